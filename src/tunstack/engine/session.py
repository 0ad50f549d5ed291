"""The library: connections from inside the cluster, for any asyncio program.

::

    async with tunstack.connect("127.0.0.1:7777") as session:
        reader, writer = await session.open_connection("echo.default", 80)

needs no device and no root. With a device, :meth:`Session.attach` carries the packets
of everything that is routed into it.
"""

import asyncio
import ipaddress
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from tunstack.config import Config, build
from tunstack.engine import names
from tunstack.engine.datagrams import DatagramSocket
from tunstack.engine.link import Cluster, Manager, parse_endpoint
from tunstack.engine.links import Links
from tunstack.engine.streams import open_stream
from tunstack.engine.way import Direct, Way
from tunstack.errors import ConfigError

if TYPE_CHECKING:
    from tunstack.engine.bridge import Bridge
    from tunstack.host.device import Device

READ_LIMIT = 64 * 1024
"""Octets: the ``limit`` of readers, as in :func:`asyncio.open_connection`."""

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}


@dataclass(frozen=True, slots=True)
class Status:
    """How a session is."""

    state: str
    """``connected``, ``reconnecting`` or ``disconnected``."""
    manager: Manager
    """Who is at the other end."""
    rtt: float | None
    """Seconds of a round trip to the manager; ``None`` when not known yet."""
    cluster: Cluster
    """What the manager says of the cluster."""
    flows: dict[str, int]
    """How many there are: ``tcp``, ``udp``, ``icmp``."""


class Session:
    """A session with a manager. Made by :func:`connect`.

    When the stream to the manager breaks, the session reconnects by itself and its
    connections go on; see :attr:`Status.state`. Those that the manager has lost fail
    with :class:`ConnectionResetError`.
    """

    def __init__(self, links: Links, config: Config) -> None:
        self._links = links
        self._config = config
        self._sockets: WeakSet[DatagramSocket] = WeakSet()
        self._bridges: list[Bridge] = []

    def status(self) -> Status:
        """Say how the session is."""
        links = self._links
        counts = Counter(_PROTOCOLS[flow.protocol] for flow in links.flows)
        return Status(
            state=links.state,
            manager=links.manager,
            rtt=links.rtt,
            cluster=links.cluster,
            flows={name: counts[name] for name in ("tcp", "udp", "icmp")},
        )

    async def resolve(self, name: str) -> list[str]:
        """Look up the addresses of a name, as the cluster sees it.

        ``service.namespace`` and ``service.namespace.svc`` are completed with the
        cluster's domain. An address stands for itself.

        Raises:
            socket.gaierror: there is no such name, or no answer within
                ``dns.lookup_timeout``.
        """
        return await names.resolve(self._links, name, self._config.dns.lookup_timeout)

    async def open_connection(
        self, host: str, port: int, *, limit: int = READ_LIMIT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection from the cluster.

        Args:
            host: name or address; of several addresses the first that answers is taken.
            port: of the target.
            limit: octets the reader holds; see :func:`asyncio.open_connection`.

        Raises:
            socket.gaierror: as :meth:`resolve`.
            OSError: what the target or the cluster's network said, as a socket says it:
                ``ConnectionRefusedError``, ``TimeoutError``, ...
        """
        *first, last = await self.resolve(host)
        for address in first:
            try:
                return await self._open(address, port, limit)
            except OSError:
                continue
        return await self._open(last, port, limit)

    async def _open(
        self, address: str, port: int, limit: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await open_stream(
            self._links,
            ipaddress.ip_address(address),
            port,
            credit=self._config.tcp.send_buffer,
            limit=limit,
        )

    async def open_datagram(self, host: str, port: int) -> DatagramSocket:
        """Make a UDP socket in the cluster, connected to one target.

        Args:
            host: name or address.
            port: of the target.

        Raises:
            socket.gaierror: as :meth:`resolve`.
        """
        address = ipaddress.ip_address((await self.resolve(host))[0])
        sock = DatagramSocket(self._links, address, port, queue=self._config.udp.queue)
        self._sockets.add(sock)
        return sock

    async def _close(self) -> None:
        # Not every socket has a flow by which the links could tell it.
        for sock in tuple(self._sockets):
            sock.close()
        for bridge in self._bridges:
            bridge.close()
        await self._links.close()

    def attach(
        self, device: "Device", *, on_lost: Callable[[], None] = lambda: None
    ) -> "Bridge":
        """Carry the packets of a device.

        Args:
            device: belongs to the bridge from here on.
            on_lost: called once when the device is gone without our doing.

        Returns:
            What carries them, until its ``close()`` or the end of the session.
        """
        # Here, because only this needs the packet stack.
        from tunstack.engine.bridge import Bridge

        bridge = Bridge(
            self._links, device, self._config, secret=os.urandom(16), on_lost=on_lost
        )
        self._bridges.append(bridge)
        return bridge


@asynccontextmanager
async def connect(
    manager: str | None = None,
    *,
    token: str | None = None,
    tls_ca: bytes | str | Path | None = None,
    insecure: bool = False,
    config: Config | None = None,
) -> AsyncIterator[Session]:
    """Connect to a manager, for as long as the ``async with`` lasts.

    At its end connections that are still open are reset: wait for the ones that matter
    with ``await writer.wait_closed()``.

    Args:
        manager: ``HOST:PORT``; ``None`` takes ``config.tunnel.manager``, and where that is
            ``None`` too, the manager in the Kubernetes cluster that ``config.cluster``,
            ``KUBECONFIG`` and ``~/.kube/config`` lead to.
        token: proves who the caller is.
        tls_ca: authorities to trust instead of the system's: PEM in octets, or a file of
            it. With it even loopback is reached by TLS.
        insecure: plaintext although the manager is not on loopback.
        config: settings. ``None`` means the defaults, with what the kubeconfig's extension
            says, if that is read.

    Raises:
        ConfigError: the manager is not named as ``HOST:PORT``; or there is no file of that
            name; or the kubeconfig is not right.
        ClusterError: the API is unreachable, forbids, or has no manager.
        TunnelError: there is no manager, or it is silent, or speaks another protocol.
        AuthError: one of both ends does not trust the other.
    """
    given, config = config is not None, config or Config()
    manager = manager or config.tunnel.manager
    way: Way
    if manager is None:
        if token is not None or tls_ca is not None or insecure:
            raise ConfigError(
                "token, tls_ca and insecure are for a manager reached directly",
                hint="give its HOST:PORT",
            )
        # Here, because only this needs HTTP.
        from tunstack.cluster import extension
        from tunstack.engine.kubernetes import ThroughKubernetes
        from tunstack.engine.renewal import Renewal

        if not given:
            found = extension.find(config.cluster, os.environ)
            config = build({key: value for key, (_, value) in found.items()})
        renew = Renewal(config)
        way = ThroughKubernetes(await renew(), renew, config)
    else:
        way = Direct(parse_endpoint(manager, tls_ca=_read_pem(tls_ca), insecure=insecure))
    links = Links(way, token=token, config=config, count=way.sessions)
    session = Session(links, config)
    try:
        await links.start()
        yield session
    finally:
        await session._close()


def _read_pem(source: bytes | str | Path | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as exc:
        raise ConfigError(f"tls_ca: {source} cannot be read: {exc.strerror}") from exc
