"""Progress of long work: on a terminal, and only there."""

import sys
from collections.abc import Callable

import click

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="What it may take until all is done.",
)


def progress(as_json: bool) -> Callable[[str], None]:
    """Show the last step on one line of a terminal."""
    last = ""

    def show(text: str) -> None:
        nonlocal last
        if text != last and sys.stderr.isatty() and not as_json:
            last = text
            click.echo(text, err=True)

    return show
