"""Allocations of CPython: how many a unit of work takes, and how many it keeps."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from benchmarks.gate import tools
from benchmarks.gate.verdict import Limit, Row
from benchmarks.workloads import find

PART = "allocations"

STEPS = 1024

MADE = Limit(share=0.03, elsewhere=0.3, slack=0.2)
KEPT = Limit(share=0.0, elsewhere=0.0, slack=0.6)
"""Nothing may stay for good: whoever leaks, leaks one at least. Messages stay until the
other end has acknowledged a few hundred of them."""


def measure(names: Sequence[str]) -> Iterator[Row]:
    """Give two rows for each of the workloads."""
    for name in names:
        unit, found = find(name).unit, _count(name)
        for what, limit in (("made", MADE), ("kept", KEPT)):
            yield Row(
                part=PART,
                name=f"{what}, {name}",
                value=round(found[what], 3),
                unit=f"per {unit}",
                limit=limit,
            )


def _count(name: str) -> dict[str, float]:
    words = [str(tools.probe()), "allocations", str(STEPS), name]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gate.worker", *words],
        cwd=tools.CHECKOUT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": f"{tools.CHECKOUT / 'src'}:{tools.CHECKOUT}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
