"""``tunstack quit``."""

from collections.abc import Callable
from typing import TypeVar

import click

from tunstack.cli import leftovers, sessions

_Command = TypeVar("_Command", bound=Callable[..., object])


def _flag(letter: str, name: str, text: str) -> Callable[[_Command], _Command]:
    return click.option(letter, name, is_flag=True, expose_value=False, help=text)


@click.command()
@sessions.name_option
@_flag("-u", "--user-daemon", "Stop the engine.")
@_flag("-r", "--root-daemon", "Stop the helper.")
@_flag("-s", "--stop-daemons", "Stop both.")
def quit(name: str) -> None:
    """Disconnect, and undo everything on this host.

    Engine and helper live as long as their session, so with or without -u, -r and -s
    this ends both, and returns when device, routes and sockets are gone. When nothing
    is connected there is nothing to do, and that is no error.

    As root it also undoes what sessions have left that were killed.
    """
    click.echo("disconnected" if sessions.end(name) else "not connected")
    for line in leftovers.undo():
        click.echo(line)
