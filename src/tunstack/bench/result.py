"""From samples to a document, and from two documents to what has changed.

A document is what ``bench --json`` prints::

    {"schema": "tunstack-bench/1", "time": "2026-01-02T03:04:05Z", "version": ...,
     "machine": {"cpu", "cores", "kernel", "python", "fastpath", "transport", "user"},
     "rows": [{"name", "group", "unit", "higher", "value", "samples",
               "ceiling": {"name", "value", "samples"} or null,
               "ratio" or null, "ratios", "verdict" or null,
               "percentiles": {"ours", "ceiling"} or null}],
     "left_out": [{"name", "reason"}]}

Values are in SI units without prefixes. ``ratios`` are the shares of each round, ``ratio``
their median: what disturbs a machine disturbs a figure and its ceiling alike.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunstack.bench.probe import Figures
from tunstack.bench.rows import BY_NAME, SCALES, Row, Scale
from tunstack.errors import ConfigError

SCHEMA = "tunstack-bench/1"

Document = dict[str, Any]


def judge(ratio: float, scale: Scale) -> str:
    """Say what a share of the ceiling is worth: ``good``, ``fair`` or ``poor``."""
    if ratio >= scale.good:
        return "good"
    return "fair" if ratio >= scale.fair else "poor"


def share(row: Row, value: float, ceiling: float) -> float:
    """Give the share of the ceiling: 1 is as good as that, more is better."""
    return value / ceiling if row.higher else ceiling / value


def summarize(row: Row, rounds: Sequence[Figures]) -> Document | None:
    """Make a row of the document; ``None`` when it has not been measured yet.

    Args:
        row: which one.
        rounds: what was measured, each with all of a round.
    """
    samples = [figures.values[row.name] for figures in rounds if row.name in figures.values]
    if not samples:
        return None
    document: Document = {
        "name": row.name,
        "group": row.group,
        "unit": row.unit,
        "higher": row.higher,
        "value": statistics.median(samples),
        "samples": samples,
        "ceiling": None,
        "ratio": None,
        "ratios": [],
        "verdict": None,
        "percentiles": None,
    }
    ours = _median_percentiles(rounds, row.name)
    if row.against is None or row.scale is None:
        return document
    pairs = [
        (figures.values[row.name], figures.values[row.against])
        for figures in rounds
        if {row.name, row.against} <= figures.values.keys()
    ]
    if not pairs:
        return document
    scale = SCALES[row.scale]
    ceilings = [ceiling for _, ceiling in pairs]
    ratios = [share(row, *pair) for pair in pairs]
    ratio = statistics.median(ratios)
    document |= {
        "ceiling": {
            "name": scale.ceiling,
            "value": statistics.median(ceilings),
            "samples": ceilings,
        },
        "ratio": ratio,
        "ratios": ratios,
        "verdict": judge(ratio, scale),
    }
    if ours:
        theirs = _median_percentiles(rounds, row.against)
        document["percentiles"] = {"ours": ours, "ceiling": theirs}
    return document


def _median_percentiles(rounds: Sequence[Figures], name: str) -> list[float]:
    found = [figures.percentiles[name] for figures in rounds if name in figures.percentiles]
    return [statistics.median(values) for values in zip(*found, strict=True)]


def load(text: str, source: str) -> Document:
    """Read a document.

    Args:
        text: of JSON.
        source: where it is from, for people.

    Raises:
        ConfigError: it is no such document.
    """
    hint = "give a file that `tunstack bench --json` has printed"
    try:
        document: Document = json.loads(text)
        schema = document["schema"]
        for row in document["rows"]:
            _ = row["name"], row["value"], row["unit"]
            if row["ratio"] is not None and not row["ratio"] > 0:
                raise ValueError
    except (ValueError, TypeError, KeyError) as exc:
        raise ConfigError(f"{source} has no results of a benchmark", hint=hint) from exc
    if schema != SCHEMA:
        raise ConfigError(f"{source} is of another kind, {schema}, not {SCHEMA}", hint=hint)
    return document


@dataclass(frozen=True, slots=True)
class Change:
    """One row of two documents."""

    name: str
    before: float
    after: float
    """Ratios."""
    worse: bool
    """By more than the tolerance, and not one round was as good as it was before."""

    @property
    def factor(self) -> float:
        """Above 1 it has become better."""
        return self.after / self.before


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two documents say of the same rows."""

    changes: list[Change]
    only_before: list[str]
    only_after: list[str]

    @property
    def worse(self) -> bool:
        """Whether any row is."""
        return any(change.worse for change in self.changes)

    def document(self) -> Document:
        """Give it for ``--json``."""
        return {
            "rows": [
                {
                    "name": change.name,
                    "before": change.before,
                    "after": change.after,
                    "worse": change.worse,
                }
                for change in self.changes
            ],
            "only_before": self.only_before,
            "only_after": self.only_after,
            "worse": self.worse,
        }


def compare(before: Document, after: Document, tolerance: float) -> Comparison:
    """Compare the ratios of two documents, which may be of different machines.

    Args:
        before: the earlier one.
        after: the later one.
        tolerance: the share of a ratio that may be lost, 0.2 for a fifth.
    """
    old, new = _compared(before), _compared(after)
    changes = []
    for name, row in new.items():
        if name in old:
            was, now = old[name]["ratio"], row["ratio"]
            # A neighbour of this machine disturbs rounds, but a loss is in all of them.
            worse = now < was * (1 - tolerance) and max(row["ratios"]) < was
            changes.append(Change(name, was, now, worse))
    return Comparison(
        changes,
        [name for name in old if name not in new],
        [name for name in new if name not in old],
    )


def _compared(document: Document) -> dict[str, Document]:
    return {row["name"]: row for row in document["rows"] if row["ratio"] is not None}


def rows_of(document: Document) -> Iterable[tuple[Row, Mapping[str, Any]]]:
    """Give the rows that this version knows, each with what was measured."""
    for row in document["rows"]:
        if row["name"] in BY_NAME:
            yield BY_NAME[row["name"]], row
