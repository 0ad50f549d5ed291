"""``tunstack uninstall``."""

import json
import shutil
from collections.abc import Callable

import click

from tunstack.cli import caller, kubernetes, leftovers, sessions
from tunstack.cli.progress import progress, timeout_option
from tunstack.config import Config
from tunstack.host import paths


@click.command()
@kubernetes.admin_options
@click.option(
    "--everything",
    is_flag=True,
    help="Also users' grants, what is left of any install in any namespace, our"
    " namespaces, and the sessions, their leftovers and logs on this host.",
)
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def uninstall(
    kubeconfig: str | None,
    context: str | None,
    manager_namespace: str | None,
    everything: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Remove the traffic manager from a cluster.

    Returns when its pods are gone. Goes by the labels of what is there, so it also
    works after deletions by hand. What is not there is no error.
    """
    import asyncio

    from tunstack.cli import cluster

    said = kubernetes.said(kubeconfig, context, None, manager_namespace)
    who = caller.find()
    config = cluster.load(said, who).config
    show = progress(as_json)
    ended, undone = _end_sessions(show) if everything else ([], [])
    deleted = asyncio.run(_uninstall(config, who, everything, show, timeout))
    if as_json:
        report = {"deleted": deleted, "sessions": ended, "undone": undone}
        click.echo(json.dumps(report))
        return
    for name in ended:
        click.echo(f"disconnected {name}")
    for line in undone:
        click.echo(line)
    for name in deleted:
        click.echo(f"deleted {name}")
    if not deleted:
        click.echo("there was nothing to delete")


async def _uninstall(
    config: Config,
    who: caller.Caller,
    everything: bool,
    show: Callable[[str], None],
    timeout: float,
) -> list[str]:
    from tunstack.cli import cluster
    from tunstack.cluster import install as steps
    from tunstack.cluster.api import Api

    where = None if everything else config.cluster.manager_namespace
    access = cluster.access(config, who)
    async with Api(access, timeout=config.timeouts.api_request) as api:
        return await steps.uninstall(api, where, show, timeout=timeout)


def _end_sessions(show: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Leave nothing on this host; gives the sessions there were, and what was undone."""
    names = sessions.names()
    for name in names:
        show(f"ending the session {name}")
        sessions.end(name)
    shutil.rmtree(paths.log_file("default").parent, ignore_errors=True)
    undone = leftovers.undo()
    leftovers.forget()
    return names, undone
