"""The client's end of connections."""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import NoReturn

from tunstack._version import PRODUCT
from tunstack.errors import AuthError, TunnelError
from tunstack.rpc.channel import Endpoint, Pair, Unix
from tunstack.rpc.http2 import grpc
from tunstack.rpc.http2.connection import Connection
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Metadata, Status
from tunstack.rpc.lean import tls
from tunstack.rpc.lean.call import CallError, ClientCall
from tunstack.rpc.lean.pair import PairTransport
from tunstack.rpc.lean.secure import Secure
from tunstack.rpc.lean.transport import Exchange, Transport, User, reason

USER_AGENT = f"grpc-python-tunstack/{PRODUCT}"


class Client:
    """A connection to a server, on which any of its methods can be called.

    Made by :func:`open_client`.
    """

    def __init__(self, transport: Transport, scheme: str, authority: str) -> None:
        self._transport = transport
        self._scheme = scheme
        self._authority = authority

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip, when one was measured."""
        return self._transport.connection.rtt

    def begin(
        self,
        path: str,
        make_user: Callable[[Exchange], User],
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> Exchange:
        """Begin a call that ``make_user`` gives the user of.

        Args:
            path: ``/package.Service/Method``.
            make_user: called at once.
            metadata: for the server.
            timeout: seconds that the server is told; nothing here ends by it.

        Raises:
            CallError: the connection is over, or takes no further call now.
        """
        connection = self._transport.connection
        refusal = connection.over or connection.going_away
        if refusal is None and len(connection.streams) >= connection.peer_streams:
            refusal = f"the server takes {connection.peer_streams} calls at once"
        if refusal is not None:
            raise CallError(Status.UNAVAILABLE, refusal)
        headers = grpc.request(
            path,
            self._authority,
            scheme=self._scheme,
            user_agent=USER_AGENT,
            timeout=timeout,
            metadata=metadata,
        )
        return self._transport.begin(headers, make_user)

    def call(
        self, path: str, *, metadata: Metadata = (), timeout: float | None = None
    ) -> ClientCall:
        """Begin a call.

        Args:
            path: ``/package.Service/Method``.
            metadata: for the server.
            timeout: seconds after which the call has failed with DEADLINE_EXCEEDED.

        Raises:
            CallError: the connection is over, or takes no further call now.
        """
        calls: list[ClientCall] = []

        def make(exchange: Exchange) -> User:
            calls.append(ClientCall(exchange, timeout))
            return calls[0]

        self.begin(path, make, metadata=metadata, timeout=timeout)
        return calls[0]

    async def unary(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> bytes:
        """Call a method with one message, and give the one that it answers with.

        Raises:
            CallError: it did not end with OK, or not with one message.
        """
        call = self.call(path, metadata=metadata, timeout=timeout)
        try:
            await call.write(message)
            call.done_writing()
            answer = await call.read()
            if answer is None or await call.read() is not None:
                raise CallError(Status.INTERNAL, "not one message in answer to one")
            return answer
        finally:
            call.cancel()

    def end(self) -> None:
        """Close the connection; returns at once."""
        self._transport.close()

    async def close(self) -> None:
        """Close the connection, and wait until it is."""
        self.end()
        await self._transport.gone


async def open_client(
    endpoint: Endpoint | Unix | Pair,
    *,
    keepalive: float | None,
    timeout: float,
    limits: Limits | None = None,
) -> Client:
    """Connect to a server.

    Args:
        endpoint: where it is.
        keepalive: seconds of silence after which it is asked, and after as many again
            given up; ``None`` to trust it.
        timeout: seconds until this must have worked.
        limits: of what the server may do.

    Raises:
        TunnelError: nothing is there, or it does not speak HTTP/2, or not in time.
        AuthError: the server's certificate is not to be trusted.
        ConfigError: the authorities are none.
    """
    connection = Connection(
        client=True, now=time.monotonic(), limits=limits, keepalive=keepalive
    )
    transport = Transport(connection)
    try:
        async with asyncio.timeout(timeout):
            await _connect(transport, endpoint)
            await asyncio.shield(transport.ready)
    except TimeoutError:
        transport.abort()
        raise TunnelError(
            f"the connection to {endpoint.peer} timed out after {timeout:g} s"
            " (timeouts.manager_connect)"
        ) from None
    except BaseException:
        transport.abort()
        raise
    refusal = connection.over or connection.going_away
    if refusal is not None:
        transport.abort()
        _complain(endpoint.peer, transport.error, refusal)
    secure = isinstance(endpoint, Endpoint) and endpoint.tls
    return Client(transport, "https" if secure else "http", endpoint.authority)


async def _connect(transport: Transport, endpoint: Endpoint | Unix | Pair) -> None:
    """Open the socket, with TLS where it is wanted."""
    loop = asyncio.get_running_loop()
    try:
        if isinstance(endpoint, Pair):
            PairTransport(transport, endpoint.reader, endpoint.writer, endpoint.peer)
        elif isinstance(endpoint, Unix):
            await loop.create_unix_connection(lambda: transport, str(endpoint.path))
        else:
            protocol: asyncio.BufferedProtocol = transport
            if endpoint.tls:
                context = tls.client_context(endpoint.ca)
                name = endpoint.server_name or endpoint.host
                protocol = Secure(transport, context, name)
            await loop.create_connection(lambda: protocol, endpoint.host, endpoint.port)
    except OSError as exc:
        _complain(endpoint.peer, exc, "")
    transport.peer = endpoint.peer


def _complain(peer: str, error: Exception | None, text: str) -> NoReturn:
    """Say why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        raise AuthError(
            f"the certificate of {peer} is not to be trusted: {error.verify_message}"
        ) from error
    text = text if error is None else reason(error)
    raise TunnelError(f"no connection to {peer}: {text}") from error
