"""``tunstack version``."""

import json
from typing import Any

import click

from tunstack.cli import sessions
from tunstack.engine.control import Document, blank_status
from tunstack.errors import NotConnected


@click.command()
@sessions.name_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def version(name: str, as_json: bool) -> None:
    """Show the version of every part.

    Product and protocol version of the client, and of the engine, the helper and the
    manager when there is a session.
    """
    try:
        with sessions.find(name) as engine:
            report: Document = engine.ask("status")
    except NotConnected:
        report = blank_status(name)
    parts = {part: _versions(report[part]) for part in _PARTS}
    if as_json:
        click.echo(json.dumps(parts))
        return
    for part, versions in parts.items():
        if versions is None:
            click.echo(f"{part:8} not running")
        else:
            click.echo(f"{part:8} {versions['version']}  protocol {versions['protocol']}")


_PARTS = ("client", "engine", "helper", "manager")


def _versions(part: dict[str, Any] | None) -> dict[str, Any] | None:
    return part and {key: part[key] for key in ("version", "protocol")}
