"""Measurements beside a baseline: which are worse than noise explains.

Everything is a cost: less is better. Counts of instructions are comparable as they are
only between the same interpreter, compiler and C library; between others their ratio to
a loop that never changes is, within wider limits.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much more is still noise."""

    share: float
    """Of the baseline's value."""
    elsewhere: float
    """The same where the tools are others."""
    slack: float = 0.0
    """On top, in the row's unit: what is nearly nothing may double."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement."""

    part: str
    """Of the gate."""
    name: str
    value: float
    unit: str
    limit: Limit
    reference: str | None = None
    """The name of the row to whose value this one's is proportional on other tools."""

    @property
    def key(self) -> str:
        """What the row is called in a baseline."""
        return f"{self.part}: {self.name}"


class Finding(Enum):
    """What became of a row."""

    SAME = "ok"
    WORSE = "WORSE"
    BETTER = "better"
    NEW = "new"
    """The baseline does not know it."""
    MISSING = "MISSING"
    """Only the baseline knows it."""
    SKIPPED = "skipped"


FAILURES = frozenset({Finding.WORSE, Finding.MISSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of one row; ``None`` where there is nothing to compare."""

    key: str
    finding: Finding
    baseline: float | None = None
    now: float | None = None
    unit: str = ""
    change: float | None = None
    """Share by which the cost has grown; ``None`` where the baseline is nearly nothing."""
    limit: float | None = None
    """The share up to which that is noise."""


def compare(
    rows: Iterable[Row],
    baseline: Mapping[str, Mapping[str, Any]],
    *,
    same_tools: bool,
    skipped: Collection[str] = (),
) -> list[Verdict]:
    """Give a verdict for each row, and for each that the baseline has besides.

    Args:
        rows: what has been measured.
        baseline: by key: ``value`` and ``unit``.
        same_tools: whether interpreter, compilers and libraries are the baseline's.
        skipped: how the keys of rows begin that could not be measured here.
    """
    found = {row.key: row for row in rows}
    verdicts = [_judge(row, found, baseline, same_tools) for row in found.values()]
    for key, value in baseline.items():
        if key not in found:
            expected = any(map(key.startswith, skipped))
            finding = Finding.SKIPPED if expected else Finding.MISSING
            verdicts.append(
                Verdict(
                    key=key, finding=finding, baseline=value["value"], unit=value["unit"]
                )
            )
    return verdicts


def suspects(verdicts: Iterable[Verdict]) -> set[str]:
    """Give the parts in which something looks worse."""
    return {
        verdict.key.partition(":")[0]
        for verdict in verdicts
        if verdict.finding is Finding.WORSE
    }


def least(rows: Mapping[str, Row], again: Iterable[Row]) -> dict[str, Row]:
    """Give rows after some have been measured again: what disturbs only ever adds.

    Args:
        rows: by key.
        again: of any of these.
    """
    found = dict(rows)
    for row in again:
        if row.value < found[row.key].value:
            found[row.key] = row
    return found


def _judge(
    row: Row,
    found: Mapping[str, Row],
    baseline: Mapping[str, Mapping[str, Any]],
    same_tools: bool,
) -> Verdict:
    known = baseline.get(row.key)
    if known is None:
        return Verdict(key=row.key, finding=Finding.NEW, now=row.value, unit=row.unit)
    then, now = float(known["value"]), row.value
    share, slack = row.limit.share, row.limit.slack
    if not same_tools:
        share = row.limit.elsewhere
        if row.reference is not None:
            now *= baseline[row.reference]["value"] / found[row.reference].value
    room = then * share + slack
    finding = Finding.SAME
    if now > then + room:
        finding = Finding.WORSE
    elif now < then - room:
        finding = Finding.BETTER
    return Verdict(
        key=row.key,
        finding=finding,
        baseline=then,
        now=now,
        unit=row.unit,
        change=now / then - 1 if then > slack else None,
        limit=room / then if then > slack else None,
    )
