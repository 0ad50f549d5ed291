"""``python -m benchmarks.gate``: measure, compare with the baseline, exit 1 when worse."""

import argparse
import json
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.gate import allocations, instructions, ratios, syscalls, tools
from benchmarks.gate.table import render
from benchmarks.gate.verdict import FAILURES, Row, Verdict, compare, least, suspects
from tests.support import lab

BASELINE = tools.CHECKOUT / "benchmarks/baseline.json"

PARTS = (instructions.PART, allocations.PART, syscalls.PART, ratios.PART)

NOISY = {syscalls.PART, ratios.PART}
"""Measured again when something in them looks worse."""

REPEATS = 2
"""How often at most."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    skipped = _not_possible()
    rows = {row.key: row for part in options.parts for row in _measure(part, skipped)}
    if options.renew:
        others = (f"{part}: " for part in PARTS if part not in options.parts)
        _renew(options.baseline, rows.values(), (*skipped, *others))
        return 0
    baseline = json.loads(options.baseline.read_text())
    asked = {
        key: row
        for key, row in baseline["rows"].items()
        if key.partition(":")[0] in options.parts
    }
    others = {
        name: (baseline["tools"].get(name), version)
        for name, version in tools.versions().items()
        if baseline["tools"].get(name) != version
    }

    def judge() -> list[Verdict]:
        return compare(rows.values(), asked, same_tools=not others, skipped=tuple(skipped))

    verdicts = judge()
    for _ in range(REPEATS):
        for part in suspects(verdicts) & NOISY:
            rows = least(rows, _measure(part, skipped))
        verdicts = judge()
    failed = any(verdict.finding in FAILURES for verdict in verdicts)
    if options.as_json:
        print(json.dumps(_document(verdicts, others, skipped, failed), indent=1))
    else:
        print(render(verdicts, others, skipped, failed))
    return int(failed)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gate", description=__doc__)
    known = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {known}")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--renew", action="store_true", help="write the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE")
    options = parser.parse_args(arguments)
    options.parts = options.parts or list(PARTS)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"{part} is none of {known}")
    return options


def _not_possible() -> dict[str, str]:
    """What cannot be measured here: how its keys begin, and why."""
    skipped: dict[str, str] = {}
    if reason := lab.missing():
        skipped[f"{instructions.PART}: Python, path"] = reason
        for what in ("made", "kept"):
            skipped[f"{allocations.PART}: {what}, path"] = reason
        skipped[f"{ratios.PART}: whole path"] = skipped[f"{syscalls.PART}: "] = reason
    for part, tool in ((instructions.PART, "valgrind"), (syscalls.PART, "strace")):
        if shutil.which(tool) is None:
            skipped[f"{part}: "] = f"needs {tool}"
    return skipped


def _measure(part: str, skipped: dict[str, str]) -> Iterator[Row]:
    """Give the rows of a part, if it can be measured here at all."""
    if f"{part}: " in skipped:
        return
    print(f"gate: {part}", file=sys.stderr, flush=True)
    rooms = [room for room in workloads.ROOMS if room != "path" or not lab.missing()]
    names = [name for room in rooms for name in workloads.of(room)]
    if part == instructions.PART:
        yield from instructions.measure(names)
    elif part == allocations.PART:
        yield from allocations.measure(names)
    elif part == syscalls.PART:
        yield from syscalls.measure()
    else:
        yield from ratios.measure(path=not lab.missing())


def _renew(path: Path, rows: Collection[Row], others: tuple[str, ...]) -> None:
    """Write a baseline; rows that begin as ``others`` say stay as they were."""
    kept: dict[str, Any] = {}
    if path.exists():
        before = json.loads(path.read_text())["rows"]
        kept = {key: row for key, row in before.items() if key.startswith(others)}
    new = {row.key: {"value": row.value, "unit": row.unit} for row in rows}
    document = {
        "machine": tools.machine(),
        "tools": tools.versions(),
        "rows": dict(sorted((kept | new).items())),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"gate: {len(new)} rows written to {path}", file=sys.stderr)


def _document(
    verdicts: list[Verdict],
    others: dict[str, tuple[str | None, str]],
    skipped: dict[str, str],
    failed: bool,
) -> dict[str, Any]:
    return {
        "failed": failed,
        "machine": tools.machine(),
        "tools": tools.versions(),
        "other_tools": others,
        "skipped": skipped,
        "rows": [asdict(v) | {"finding": v.finding.value} for v in verdicts],
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
