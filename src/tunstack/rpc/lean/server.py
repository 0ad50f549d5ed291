"""The server's end of connections."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunstack.errors import HostError
from tunstack.rpc.channel import Keys, address
from tunstack.rpc.http2.connection import Connection
from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.grpc import is_grpc, unpack_timeout
from tunstack.rpc.http2.headers import Headers, find
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Outcome, Status
from tunstack.rpc.lean import tls
from tunstack.rpc.lean.pair import PairTransport
from tunstack.rpc.lean.secure import Secure
from tunstack.rpc.lean.transport import Exchange, Transport, User

_log = logging.getLogger(__name__)

CONNECTIONS = 512
"""Connections at once. One more costs the oldest without a stream, or is turned away."""

BACKLOG = 128

Begin = Callable[[Exchange, float | None], User]
"""Serves a call: gives the user of its stream. The number is the seconds that the client
waits for the answer, ``None`` without an end. :func:`~.call.method` makes one."""


class Server:
    """Serves methods by their path, on as many connections as come.

    Args:
        methods: by ``/package.Service/Method``.
        keepalive: seconds of silence after which a client is asked, and after as many
            again given up; ``None`` to trust them.
        limits: of what each client may do.
    """

    def __init__(
        self,
        methods: Mapping[str, Begin],
        *,
        keepalive: float | None,
        limits: Limits | None = None,
    ) -> None:
        self._methods = methods
        self._services = {path.rpartition("/")[0] for path in methods}
        self._keepalive = keepalive
        self._limits = limits or Limits()
        self._transports: dict[Transport, None] = {}
        self._listener: asyncio.Server | None = None
        self.port = 0
        """The port that it listens on; 0 when on no port."""

    async def listen(self, where: tuple[str, int] | Path, keys: Keys | None = None) -> None:
        """Begin to accept connections.

        Args:
            where: address and port, 0 for any; or the path of a Unix socket.
            keys: for TLS; ``None`` means plaintext.

        Raises:
            HostError: the address is taken, or not this computer's.
            ConfigError: the keys are none.
        """
        loop = asyncio.get_running_loop()
        context = None if keys is None else tls.server_context(keys)

        def connected() -> asyncio.BufferedProtocol:
            transport = self._connected()
            return transport if context is None else Secure(transport, context)

        try:
            if isinstance(where, Path):
                self._listener = await loop.create_unix_server(
                    connected, str(where), backlog=BACKLOG
                )
            else:
                sock = await _bound(*where)
                self._listener = await loop.create_server(
                    connected, sock=sock, backlog=BACKLOG
                )
                self.port = sock.getsockname()[1]
        except OSError as exc:
            name = where if isinstance(where, Path) else address(*where)
            raise HostError(
                f"cannot listen on {name}: it is taken, or not an address of this computer",
                hint="choose another address with --listen",
            ) from exc

    def serve(self, reader: Any, writer: Any, peer: str) -> None:
        """Serve a connection that came another way, as a pair like asyncio's."""
        PairTransport(self._connected(), reader, writer, peer)

    async def close(self, grace: float) -> None:
        """Stop listening, let streams end for so many seconds, and end what is left."""
        if self._listener is not None:
            self._listener.close()
        transports = list(self._transports)
        for transport in transports:
            transport.shut_down()
        await self._wait(grace)
        for transport in transports:
            transport.close(reason="the server is closing")
        await self._wait(grace)
        for transport in list(self._transports):
            transport.abort()
        await self._wait(grace)

    async def _wait(self, seconds: float) -> None:
        if self._transports:
            gone = [transport.gone for transport in self._transports]
            await asyncio.wait(gone, timeout=seconds)

    def _connected(self) -> Transport:
        crowded = len(self._transports) >= CONNECTIONS and not self._make_room()
        connection = Connection(
            client=False,
            now=time.monotonic(),
            limits=self._limits,
            keepalive=self._keepalive,
        )
        transport = Transport(connection, self._begin)
        self._transports[transport] = None
        transport.gone.add_done_callback(lambda _: self._transports.pop(transport, None))
        if crowded:
            transport.close(Code.ENHANCE_YOUR_CALM, "too many connections")
        return transport

    def _make_room(self) -> bool:
        """End the oldest connection without a stream; returns whether there was one."""
        for transport in self._transports:
            if not transport.connection.streams:
                _log.warning("%s: too many connections", transport.peer)
                transport.abort()
                del self._transports[transport]
                return True
        return False

    def _begin(self, exchange: Exchange) -> User:
        """Find out who serves a request."""
        headers = exchange.headers
        path = (find(headers, b":path") or b"").decode("latin-1")
        if not is_grpc(headers) or find(headers, b":method") != b"POST":
            body = b"" if find(headers, b":method") == b"HEAD" else _NOT_GRPC
            exchange.answer(_UNSUPPORTED, body)
            return User()
        begin = self._methods.get(path)
        if begin is None:
            service = path.rpartition("/")[0]
            what = "method" if service in self._services else "service"
            return _refuse(exchange, Status.UNIMPLEMENTED, f"unknown {what} {path}")
        value = find(headers, b"grpc-timeout")
        timeout = None if value is None else unpack_timeout(value)
        if value is not None and timeout is None:
            return _refuse(exchange, Status.INTERNAL, "a malformed grpc-timeout")
        return begin(exchange, timeout)


_UNSUPPORTED: Headers = [(b":status", b"415"), (b"content-type", b"text/plain")]
_NOT_GRPC = b"This is a gRPC server: it answers POST of application/grpc.\n"


def _refuse(exchange: Exchange, status: Status, text: str) -> User:
    exchange.finish(Outcome(status, text))
    return User()


async def _bound(host: str, port: int) -> socket.socket:
    """Make a socket with that address."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, name = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock
