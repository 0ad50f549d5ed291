"""Verdicts as a table for people: what is worse comes last, where it is read."""

from collections.abc import Sequence

from benchmarks.gate.verdict import Finding, Verdict

_HEAD = ("", "unit", "baseline", "now", "change", "limit", "verdict")

_ORDER = (
    Finding.SAME,
    Finding.BETTER,
    Finding.NEW,
    Finding.SKIPPED,
    Finding.MISSING,
    Finding.WORSE,
)


def render(
    verdicts: Sequence[Verdict],
    others: dict[str, tuple[str | None, str]],
    skipped: dict[str, str],
    failed: bool,
) -> str:
    """Write the table, and below it what there is to know.

    Args:
        verdicts: of all rows.
        others: tools that are not the baseline's: its version, ours.
        skipped: how keys begin that could not be measured, and why.
        failed: the conclusion.
    """
    ordered = sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.finding))
    cells = [_HEAD, *map(_cells, ordered)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_HEAD))]
    lines = []
    for row in cells:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    lines += [f"skipped: {key.rstrip(': ')}: {why}" for key, why in skipped.items()]
    if others:
        lines.append(
            "Counts are compared as ratios to the reference loops, as tools differ:"
        )
        lines += [f"  {name}: {then}, here {now}" for name, (then, now) in others.items()]
    else:
        lines.append("Counts are compared as they are: all tools are the baseline's.")
    found = [verdict.finding for verdict in verdicts]
    if Finding.BETTER in found or Finding.NEW in found:
        lines.append("Keep what is better or new: make gate RENEW=1")
    lines.append("FAILED" if failed else "passed")
    return "\n".join(lines)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.key,
        verdict.unit,
        _number(verdict.baseline),
        _number(verdict.now),
        "" if verdict.change is None else f"{verdict.change:+.1%}",
        "" if verdict.limit is None else f"{verdict.limit:.1%}",
        verdict.finding.value,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
