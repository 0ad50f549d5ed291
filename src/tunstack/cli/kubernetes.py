"""What commands that talk to Kubernetes have in common: kubectl's options, and settings."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from tunstack.cli import settings
from tunstack.cli.caller import Caller
from tunstack.cluster import extension, kubeconfig
from tunstack.cluster.access import Access
from tunstack.config import Config
from tunstack.engine.renewal import Renewal

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


def load(command_line: Mapping[str, object], caller: Caller) -> settings.Settings:
    """Load the settings, with those that the cluster's entry in the kubeconfig has.

    Raises:
        ConfigError: a setting or the kubeconfig is not right.
    """
    first = settings.load(command_line)
    with caller.rights():
        layer = extension.find(first.config.cluster, caller.environment)
    return settings.load(command_line, extension=layer)


def leads_somewhere(config: Config, caller: Caller) -> bool:
    """Whether a kubeconfig is meant: one that is named, or one that says anything."""
    if config.tunnel.manager is not None:
        return False
    if config.cluster.kubeconfig is not None or config.cluster.context is not None:
        return True
    environment = caller.environment
    home = kubeconfig.home_of(environment)
    with caller.rights():
        return bool(kubeconfig.load(None, environment, home).entries)


def access(config: Config, caller: Caller) -> Access:
    """Find out how to get to the API server, as the caller.

    Raises:
        KubeconfigError: names the file, the context and what is wrong.
    """
    renewal = Renewal(config, caller.environment, interactive=sys.stdin.isatty())
    with caller.rights():
        return renewal.now()
