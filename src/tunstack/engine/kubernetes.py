"""The way to a manager through Kubernetes: a port-forward to a pod that is ready.

When a pod is gone, the next connection goes to another.
"""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tunstack.cluster.access import Access
from tunstack.cluster.api import Api
from tunstack.cluster.names import PORT
from tunstack.cluster.pods import NotReady, Pod, find_manager
from tunstack.cluster.port_forward import PortForward, open_port_forward
from tunstack.config import Config
from tunstack.engine.way import Address, look_up
from tunstack.errors import AuthError, ClusterError, TunstackError
from tunstack.rpc.channel import Pair, Unix

_log = logging.getLogger(__name__)

Renew = Callable[[], Awaitable[Access]]
"""Gives new credentials; raises :class:`TunstackError` where there are none to be had."""

_POLL = 0.25
"""Seconds between two looks at pods that are not ready."""

_SOON = 30.0
"""Seconds before they expire that credentials are renewed."""


class ThroughKubernetes:
    """A port-forward to a pod of the manager.

    Args:
        access: to the API server.
        renew: gives new access when this one has expired; ``None`` when nothing can.
        config: where the manager is, and how long anything may take.
        progress: told each step.
    """

    elsewhere = True

    def __init__(
        self,
        access: Access,
        renew: Renew | None,
        config: Config,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.access = access
        self.sessions = config.cluster.port_forwards
        self.expired = False
        """The server no longer takes the credentials, and nothing gives new ones."""
        self._renew = renew
        self._config = config
        self._progress = progress
        self._api = Api(access, timeout=config.timeouts.api_request)
        self._relays: set[_Relay] = set()

    async def open(self, last: str | None) -> Pair | Unix:
        """Forward a port of a pod, of the last one if that is still ready."""
        config = self._config
        pod = await self._pod(last and last.rpartition("/")[2])
        self._progress(f"forwarding a port of the pod {pod.name}")
        forward = await open_port_forward(
            self._api,
            pod.namespace,
            pod.name,
            PORT,
            timeout=config.timeouts.manager_connect,
        )
        peer = f"{pod.namespace}/{pod.name}"
        if config.tunnel.transport == "lean":
            return Pair(forward, forward, peer)
        relay = _Relay(forward, self._relays)
        return Unix(await relay.start(), peer)

    async def addresses(self) -> frozenset[Address]:
        """Look the API server's host up, or the proxy's that stands before it."""
        host, port = self.access.endpoint
        try:
            return await look_up(host, port)
        except OSError as exc:
            raise ClusterError(
                f"the API server's host {host} has no address: {exc}"
                if self.access.proxy is None
                else f"the proxy's host {host} has no address: {exc}",
                hint="check the network, and the kubeconfig's server",
            ) from exc

    async def close(self) -> None:
        """Close all connections to the API server."""
        for relay in list(self._relays):
            relay.close()
        await self._api.close()

    async def _pod(self, prefer: str | None) -> Pod:
        """Find a pod, with new credentials where that helps, waiting until one is ready."""
        await self._renew_in_time()
        loop = asyncio.get_running_loop()
        patience = self._config.timeouts.pod_ready
        deadline = loop.time() + patience
        said = ""
        while True:
            try:
                return await self._find(prefer)
            except NotReady as error:
                if loop.time() >= deadline:
                    raise NotReady(
                        f"{error} (waited {patience:g} s: timeouts.pod_ready)",
                        hint=error.hint,
                    ) from error
                if str(error) != said:
                    said = str(error)
                    self._progress(said)
            await asyncio.sleep(_POLL)

    async def _find(self, prefer: str | None) -> Pod:
        namespace = self._config.cluster.manager_namespace
        try:
            return await find_manager(self._api, namespace, prefer)
        except AuthError as error:
            # Expired, most likely, whatever their date said.
            self.expired = True
            await self._replace_access(error)
            return await find_manager(self._api, namespace, prefer)

    async def _renew_in_time(self) -> None:
        expires = self.access.expires
        if (
            expires is not None
            and expires - time.time() < _SOON
            and self._renew is not None
        ):
            with suppress(AuthError):  # they may be good for the seconds they have
                await self._replace_access(AuthError("the credentials expire"))

    async def _replace_access(self, reason: AuthError) -> None:
        """Go on with new credentials.

        Raises:
            AuthError: there are none.
        """
        if self._renew is None:
            raise reason
        try:
            access = await self._renew()
        except TunstackError as error:
            raise AuthError(f"{reason}; {error}", hint=error.hint) from error
        self.expired = False
        _log.info("the credentials for %s are renewed", access.server)
        self.access = access
        self._api.use(access)


class _Relay:
    """A Unix socket, in a private directory, that leads into a port-forward.

    For the stock transport, which connects by itself. One connection, and no other.
    """

    def __init__(self, forward: PortForward, relays: set["_Relay"]) -> None:
        self._forward = forward
        self._relays = relays
        self._directory = Path(tempfile.mkdtemp(prefix="tunstack-"))
        self._server: asyncio.Server | None = None

    async def start(self) -> Path:
        """Listen; gives where."""
        path = self._directory / "manager.sock"
        self._relays.add(self)
        self._server = await asyncio.start_unix_server(self._accept, path)
        return path

    def close(self) -> None:
        """End both sides, and leave nothing."""
        self._relays.discard(self)
        if self._server is not None:
            self._server.close()
        self._forward.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert self._server is not None
        self._server.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        pumps = [
            asyncio.ensure_future(_pump(reader, self._forward)),
            asyncio.ensure_future(_pump(self._forward, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            self.close()


async def _pump(
    source: asyncio.StreamReader | PortForward, target: asyncio.StreamWriter | PortForward
) -> None:
    with suppress(ClusterError, OSError):
        while octets := await source.read(1 << 18):
            target.writelines([octets])
            await target.drain()
