"""One page of a run: table, plots and earlier runs, in one file that loads nothing."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from tunstack.bench import plots
from tunstack.bench.result import Document, rows_of
from tunstack.bench.rows import SCALES
from tunstack.bench.words import quantity, share

_WATERFALL = ("loopback", "transport", "mux", "stack", "up-1")
"""The stages of a path, from the machine's own TCP to what an application gets."""

_SPREADS = ("transport-echo", "round-trip")

_STYLE = """
:root { color-scheme: light dark; --text: #1f2430; --back: #fff; --rule: #d8dce4;
  --ours: #2563eb; --theirs: #8a93a5; --good: #15803d; --fair: #a16207; --poor: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ee; --back: #14171f;
  --rule: #333a48; --ours: #6ea0ff; --theirs: #98a2b3; --good: #4ade80; --fair: #facc15;
  --poor: #f87171; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--rule); }
td.value { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .fair { color: var(--fair); } .poor { color: var(--poor); }
svg { width: 100%; height: auto; font-size: 13px; }
svg text { fill: var(--text); }
svg rect.ours, svg circle.dot { fill: var(--ours); }
svg .rule { stroke: var(--rule); fill: none; }
svg .line { fill: none; stroke-width: 2; }
svg .line.ours { stroke: var(--ours); }
svg .line.theirs { stroke: var(--theirs); stroke-dasharray: 5 4; }
"""


def render(document: Document, earlier: Sequence[Document]) -> str:
    """Make the page.

    Args:
        document: of the run.
        earlier: documents of runs before it, the latest last.
    """
    machine = document["machine"]
    parts = [
        "<h1>tunstack bench</h1>",
        f"<p>{escape(document['time'])}, tunstack {escape(document['version'])}, "
        f"{escape(machine['cpu'])}, {machine['cores']} cores, "
        f"Linux {escape(machine['kernel'])}, {escape(machine['python'])}, "
        f"fast path {escape(machine['fastpath'])}, "
        f"transport {escape(machine['transport'])}, {escape(machine['user'])}</p>",
        _table(document),
        *_waterfall(document),
        *_spread(document),
        *_history([*earlier, document]),
        _scales(),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width"/>'
        f"<title>tunstack bench</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _table(document: Document) -> str:
    parts = []
    for row, found in rows_of(document):
        verdict = found["verdict"] or ""
        parts.append(
            f"<tr><th>{row.name}</th><td>{escape(row.question)}</td>"
            f'<td class="value">{quantity(found["value"], row.unit)}</td>'
            f'<td>{share(found)}</td><td class="{verdict}">{verdict}</td></tr>'
        )
    parts += [
        f'<tr><th>{escape(out["name"])}</th><td colspan="4">left out:'
        f" {escape(out['reason'])}</td></tr>"
        for out in document["left_out"]
    ]
    return f"<table>{''.join(parts)}</table>"


def _waterfall(document: Document) -> Iterator[str]:
    found = {row.name: measured["value"] for row, measured in rows_of(document)}
    stages = [(name, found[name]) for name in _WATERFALL if name in found]
    if stages:
        yield "<h2>Throughput by stage, each line ten times the one before</h2>"
        yield plots.bars(stages, "bit/s")


def _spread(document: Document) -> Iterator[str]:
    for row, found in rows_of(document):
        if row.name in _SPREADS and found["percentiles"]:
            yield f"<h2>Round trips: {row.name}</h2>"
            yield plots.spreads(
                [
                    ("ours", "ours", found["percentiles"]["ours"]),
                    (found["ceiling"]["name"], "theirs", found["percentiles"]["ceiling"]),
                ]
            )


def _history(runs: Sequence[Document]) -> Iterator[str]:
    if len(runs) < 2:
        return
    yield f"<h2>The last {len(runs)} runs, as shares of the ceiling</h2>"
    by_name: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for run in runs:
        for row, found in rows_of(run):
            if found["ratio"] is not None:
                by_name.setdefault(row.name, []).append((run["time"], found))
    for name, points in by_name.items():
        yield f"<h3>{name}</h3>"
        yield plots.lines(
            [found["ratio"] for _, found in points],
            [f"{time}: {share(found)}" for time, found in points],
        )


def _scales() -> str:
    rows = "".join(
        f"<tr><th>{name}</th><td>{scale.ceiling}</td><td>{scale.good:g}</td>"
        f"<td>{scale.fair:g}</td><td>{escape(scale.reason)}</td></tr>"
        for name, scale in SCALES.items()
    )
    head = "<tr><th>kind</th><th>share of</th><th>good from</th><th>fair from</th><th></th>"
    return f"<h2>What the verdicts mean</h2><table>{head}</tr>{rows}</table>"
