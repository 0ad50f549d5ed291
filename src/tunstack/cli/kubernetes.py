"""The options that commands about Kubernetes have in common: kubectl's."""

import os
from collections.abc import Callable
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])

_OPTIONS = (
    click.option("--kubeconfig", metavar="FILE", help="Instead of KUBECONFIG."),
    click.option("--context", metavar="NAME", help="Of the kubeconfig."),
    click.option(
        "-n", "--namespace", metavar="NAME", help="Namespace to be in, of the cluster."
    ),
    click.option(
        "--manager-namespace",
        metavar="NAME",
        help="Where the traffic manager is.  [default: tunstack]",
    ),
)

_MANAGER_NAMESPACE = click.option(
    "-n",
    "--namespace",
    "--manager-namespace",
    "manager_namespace",
    metavar="NAME",
    help="Of the traffic manager.  [default: tunstack]",
)


def options(command: _Command) -> _Command:
    """Add kubectl's options. They are arguments of the same name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def admin_options(command: _Command) -> _Command:
    """Add those of commands about the manager itself: its namespace is the only one."""
    for option in (_MANAGER_NAMESPACE, *reversed(_OPTIONS[:2])):
        command = option(command)
    return command


def said(
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    manager_namespace: str | None,
) -> dict[str, object]:
    """Give what the options said, by ``table.key``."""
    values = {
        # The engine, which may have to read it again, is elsewhere.
        "cluster.kubeconfig": kubeconfig and os.path.abspath(kubeconfig),
        "cluster.context": context,
        "cluster.namespace": namespace,
        "cluster.manager_namespace": manager_namespace,
    }
    return {key: value for key, value in values.items() if value is not None}
