"""``tunstack config``."""

import json

import click

from tunstack.cli import settings
from tunstack.config import plain


@click.group()
def config() -> None:
    """Show the settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def view(as_json: bool) -> None:
    """Show the settings in force and where each came from."""
    loaded = settings.load({})
    values = plain(loaded.config)
    if as_json:
        document: dict[str, dict[str, object]] = {}
        for key, value in values.items():
            table, _, name = key.partition(".")
            document.setdefault(table, {})[name] = {
                "value": value,
                "source": loaded.sources[key],
            }
        click.echo(json.dumps(document))
        return
    table = ""
    for key, value in values.items():
        if not key.startswith(f"{table}."):
            table = key.partition(".")[0]
            click.echo(f"[{table}]")
        shown = "# not set" if value is None else f"= {json.dumps(value)}"
        name = key.partition(".")[2]
        click.echo(f"{name:16} {shown:32}  # {loaded.sources[key]}")
