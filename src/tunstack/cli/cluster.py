"""The caller's cluster: the settings that its kubeconfig has, and the access to it."""

import sys
from collections.abc import Mapping

from tunstack.cli import settings
from tunstack.cli.caller import Caller
from tunstack.cluster import extension, kubeconfig
from tunstack.cluster.access import Access
from tunstack.config import Config
from tunstack.engine.renewal import Renewal


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
