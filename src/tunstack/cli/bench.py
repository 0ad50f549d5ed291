"""``tunstack bench``."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from tunstack.bench import history, page
from tunstack.bench.result import Comparison, Document, compare, load, rows_of
from tunstack.bench.rows import GROUPS, ROWS, choose
from tunstack.bench.run import Run
from tunstack.bench.words import digits, quantity, share
from tunstack.errors import ConfigError
from tunstack.host import paths

_COLOURS = {"good": "green", "fair": "yellow", "poor": "red", "worse": "red"}

_BAR = 30
"""Columns of the progress bar."""

_COLUMNS = 80
"""Of the table. On a terminal with fewer its lines would be two."""


def _complete(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    questions = dict.fromkeys(GROUPS, "all of them")
    questions |= {row.name: row.question for row in ROWS}
    return [
        CompletionItem(name, help=question)
        for name, question in questions.items()
        if name.startswith(incomplete)
    ]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with plots and earlier runs.",
)
@click.option(
    "--compare",
    "other",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Compare the ratios with those of an earlier --json.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=100),
    default=20.0,
    show_default=True,
    metavar="PERCENT",
    help="What a ratio may have lost.",
)
@click.option("--list", "as_list", is_flag=True, help="Say what there is.")
@click.argument("names", nargs=-1, metavar="[NAME ...]", shell_complete=_complete)
def bench(
    names: tuple[str, ...],
    as_json: bool,
    html: Path | None,
    other: Path | None,
    tolerance: float,
    as_list: bool,
) -> None:
    """Measure how fast this is here, beside what this machine can do.

    NAMEs are rows or groups of --list; without one, all of them. What needs more rights
    or a newer kernel is left out and named. Takes about a minute.

    With --compare, exit 1 when a ratio is worse by more than the tolerance.
    """
    rows = choose(names)
    if as_list:
        for row in rows:
            click.echo(f"{row.group:8} {row.name:15} {row.question}")
        return
    before = None if other is None else load(_read(other), str(other))
    run = Run(rows)
    with _live(not as_json) as report:
        run.measure(report)
    document = run.document()
    file = paths.state_file("bench.jsonl")
    earlier = _remember(file, document)
    comparison = None if before is None else compare(before, document, tolerance / 100)
    if as_json:
        said = {} if comparison is None else {"comparison": comparison.document()}
        click.echo(json.dumps(document | said))
    else:
        _echo(_table(document, colour=_has_colour(sys.stdout)))
        if comparison is not None:
            _echo(_compared(comparison, colour=_has_colour(sys.stdout)))
    if html is not None:
        _write(html, page.render(document, earlier))
    if comparison is not None and comparison.worse:
        click.get_current_context().exit(1)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"{path} cannot be read: {exc}",
            hint="give a file that `tunstack bench --json` has printed",
        ) from exc


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}", hint="choose another --html"
        ) from exc


def _remember(file: Path, document: Document) -> list[Document]:
    """Add a run to the history; gives those before it."""
    earlier: list[Document] = []
    try:
        earlier = history.read(file)
        history.append(file, document)
    except OSError as exc:
        click.echo(f"not remembered: {file}: {exc.strerror}", err=True)
    return earlier


def _has_colour(stream: object) -> bool:
    return bool(
        stream is not None
        and getattr(stream, "isatty", bool)()
        and not os.environ.get("NO_COLOR")
    )


def _styled(word: str, colour: bool) -> str:
    return click.style(word, fg=_COLOURS.get(word)) if colour else word


def _echo(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


def _table(document: Document, *, colour: bool) -> Iterator[str]:
    group = None
    for row, found in rows_of(document):
        if row.group != group:
            group = row.group
            yield group
        value = quantity(found["value"], row.unit)
        line = f"  {row.name:14} {value:>19}  {share(found):35} "
        yield (line + _styled(found["verdict"] or "", colour)).rstrip()
    reasons: dict[str, list[str]] = {}
    for out in document["left_out"]:
        reasons.setdefault(out["reason"], []).append(out["name"])
    for reason, left in reasons.items():
        yield f"left out: {', '.join(left)}: {reason}"


def _compared(comparison: Comparison, *, colour: bool) -> Iterator[str]:
    yield "compared  before     now"
    for change in comparison.changes:
        verdict = _styled("worse", colour) if change.worse else ""
        line = f"  {change.name:15} {digits(change.before):>8} {digits(change.after):>8}"
        yield f"{line}  {change.factor - 1:+8.0%}  {verdict}".rstrip()
    for when, names in (
        ("before", comparison.only_before),
        ("now", comparison.only_after),
    ):
        if names:
            yield f"only {when}: {', '.join(names)}"


@contextmanager
def _live(show: bool) -> Iterator["_Screen"]:
    """Show the table while it fills, on a terminal only, and take it away again."""
    screen = _Screen(show and sys.stderr.isatty())
    try:
        yield screen
    finally:
        screen.clear()


class _Screen:
    """What stands on the terminal while a run lasts."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._lines = 0

    def __call__(self, run: Run) -> None:
        """Show how far a run is."""
        if not self._on:
            return
        size = shutil.get_terminal_size()
        full = round(_BAR * run.done)
        bar = f"[{'#' * full}{'.' * (_BAR - full)}] {run.done:4.0%}"
        document = {"rows": run.results(), "left_out": []}
        table = _table(document, colour=_has_colour(sys.stderr))
        if size.columns < _COLUMNS:
            table = iter(())
        lines = [*table, bar][-(size.lines - 1) :]
        self.clear()
        click.echo("\n".join(lines), err=True)
        self._lines = len(lines)

    def clear(self) -> None:
        """Take it away."""
        if self._lines:  # ECMA-48: cursor up, erase to the end of the page
            click.echo(f"\x1b[{self._lines}A\x1b[J", err=True, nl=False)
            self._lines = 0
