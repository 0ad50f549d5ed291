"""Credentials, made anew from the kubeconfig: its files read, its exec plugin asked."""

import asyncio
import os
from collections.abc import Mapping

from tunstack.cluster import kubeconfig
from tunstack.cluster.access import Access, resolve
from tunstack.config import Config


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
        environment = self._environment
        home = kubeconfig.home_of(environment)
        return resolve(
            kubeconfig.choose(self._config.cluster, environment, home),
            environment,
            interactive=self._interactive,
            plugin_timeout=self._config.timeouts.exec_plugin,
        )
