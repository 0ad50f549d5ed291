"""The table of throughputs: its rows, and how it is written and read."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from tests.netsim.simulation import Case, Outcome

TABLE = Path(__file__).with_name("table.md")

_TITLE = """# Throughput in virtual time

Between a model of Linux and the stack, as a fraction of what the network and the
receiver's window let through. Made by `pytest tests/netsim --renew`; a row that gets a
tenth worse fails. Up is towards the cluster.

"""

_COLUMNS = (
    "way", "packets", "delay", "queue", "lost", "late", "twice", "read",
    "of ideal", "sent again", "silences", "overflows",
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Give the rows."""
    for up in (True, False):
        for delay, loss in product((5e-5, 1e-3, 2e-2), (0, 0.001, 0.01, 0.05)):
            yield Case(up=up, delay=delay, queue=512, loss=loss)
        for delay, loss in product((5e-5, 1e-3, 2e-2), (0, 0.01)):
            yield Case(up=up, delay=delay, queue=64, loss=loss)
        for loss, (reorder, duplicate) in product(
            (0, 0.01), ((0.01, 0), (0, 0.01), (0.01, 0.01))
        ):
            yield Case(
                up=up,
                delay=1e-3,
                queue=512,
                loss=loss,
                reorder=reorder,
                duplicate=duplicate,
            )
        for delay, loss in product((5e-5, 1e-3), (0, 0.001, 0.01, 0.05)):
            yield Case(up=up, delay=delay, queue=512, loss=loss, offload=True)
    for loss in (0, 0.01):
        yield Case(up=False, delay=1e-3, queue=512, loss=loss, reader=5e6)


def render(outcomes: Mapping[str, Outcome]) -> str:
    """Write the table, in Markdown."""
    rows = [
        (
            *name.split(", "),
            f"{outcome.fraction:.3f}",
            f"{outcome.resent:.1%}",
            str(outcome.silences),
            str(outcome.overflows),
        )
        for name, outcome in outcomes.items()
    ]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    lines = [_COLUMNS, tuple("-" * width for width in widths), *rows]
    return _TITLE + "".join(f"| {' | '.join(_pad(line, widths))} |\n" for line in lines)


def _pad(line: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    return (cell.rjust(width) for cell, width in zip(line, widths, strict=True))


def committed() -> dict[str, float]:
    """Read the committed fractions, by the name of the case."""
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    fractions = {}
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        fractions[", ".join(cells[:8])] = float(cells[8])
    return fractions
