"""``tunstack config``."""

import json

import click

from tunstack.cli import caller, kubernetes, settings
from tunstack.config import plain


@click.group()
def config() -> None:
    """Show the settings."""


@config.command()
@kubernetes.options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def view(
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    manager_namespace: str | None,
    as_json: bool,
) -> None:
    """Show the settings in force and where each came from.

    With those that the cluster's entry in the kubeconfig has, if there is one.
    """
    from tunstack.cli import cluster

    said = kubernetes.said(kubeconfig, context, namespace, manager_namespace)
    loaded = settings.load(said)
    who = caller.find()
    if cluster.leads_somewhere(loaded.config, who):
        loaded = cluster.load(said, who)
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
