"""A document to work on, as `bench --json` prints one."""

from tunstack.bench.probe import Figures
from tunstack.bench.result import SCHEMA, summarize
from tunstack.bench.rows import ROWS

PERCENTILES = [at * 1e-6 for at in range(100, 199)]


def make_document(*, ratio: float = 0.5, time: str = "2026-01-02T03:04:05Z") -> dict:
    """Every row; those with a ceiling have that ratio."""
    names = [name for row in ROWS for name in (row.name, row.against) if name]
    figures = Figures(dict.fromkeys(names, 0.5), dict.fromkeys(names, PERCENTILES))
    rows = [summarize(row, [figures]) for row in ROWS]
    for row in rows:
        if row["ratio"] is not None:
            row["ratio"], row["ratios"] = ratio, [ratio]
    machine = ("cpu", "kernel", "python", "fastpath", "transport", "user")
    return {
        "schema": SCHEMA,
        "time": time,
        "version": "0.1.0",
        "machine": dict.fromkeys(machine, "a <b> & c") | {"cores": 2},
        "rows": rows,
        "left_out": [],
    }
