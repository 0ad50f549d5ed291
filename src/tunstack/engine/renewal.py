"""Credentials, made anew from the kubeconfig: its files read, its exec plugin asked."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from tunstack.cluster import extension, kubeconfig
from tunstack.cluster.access import Access, resolve
from tunstack.config import ClusterConfig, Config


class Renewal:
    """Gives access to the cluster that settings lead to; each call reads everything again.

    Args:
        config: which kubeconfig and context.
        environment: of whoever's kubeconfig it is.
        interactive: an exec plugin may ask on the terminal.
    """

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str] = os.environ,
        *,
        interactive: bool = False,
    ) -> None:
        self._config = config
        self._environment = environment
        self._interactive = interactive

    async def __call__(self) -> Access:
        """Find out.

        Raises:
            KubeconfigError: names the file, the context and what is wrong.
        """
        return await asyncio.to_thread(self.now)

    def now(self) -> Access:
        """Find out, and wait for it."""
        home = Path(_home(self._environment))
        return resolve(
            kubeconfig.choose(self._config.cluster, self._environment, home),
            self._environment,
            interactive=self._interactive,
            plugin_timeout=self._config.timeouts.exec_plugin,
        )


def extension_settings(
    settings: ClusterConfig, environment: Mapping[str, str] = os.environ
) -> dict[str, object]:
    """Give the settings that the cluster's entry in the kubeconfig has.

    Raises:
        KubeconfigError: as :meth:`Renewal.now`; or there is no such key.
    """
    context = kubeconfig.choose(settings, environment, Path(_home(environment)))
    return {key: value for key, (_, value) in extension.read(context.cluster).items()}


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")
