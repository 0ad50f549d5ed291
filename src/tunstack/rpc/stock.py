"""The transport on ``grpc.aio``: the one that everybody knows how to talk to.

grpcio decides when octets leave; what is ours is one stream, two tasks (one reads, one
pulls and writes) and the translation of gRPC's ways to end into :class:`Loss`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tunstack.errors import AuthError, ConfigError, HostError, TunnelError
from tunstack.rpc.channel import (
    IN_FLIGHT,
    MAX_RECEIVE,
    METHOD,
    Accept,
    Channel,
    Endpoint,
    Handler,
    Keys,
    Loss,
    Unix,
    address,
)

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0
"""Seconds that an orderly end may take before it becomes an abort."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a new connection may take until it speaks HTTP/2."""

STREAMS_PER_CONNECTION = 16

MOST = 4 * MAX_RECEIVE
"""Octets of a message that grpcio refuses. It tells the receiver nothing of it, so what is
too long but not absurd gets through to the session, which can say what was wrong."""

_, _SERVICE, _METHOD = METHOD.split("/")

_ABORTED = Loss("the stream was aborted")

_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""What grpcio says of a certificate of a stranger, and of another name's."""

_GRPC_ERRORS = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)


def _options(keepalive: float) -> list[tuple[str, int]]:
    """Give what both ends set: room for bulk, and pings while nothing is said."""
    milliseconds = int(keepalive * 1000)
    return [
        ("grpc.max_receive_message_length", MOST),
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.max_frame_size", IN_FLIGHT),
        ("grpc.http2.lookahead_bytes", MAX_RECEIVE),
        ("grpc.http2.write_buffer_size", IN_FLIGHT),
        ("grpc.http2.bdp_probe", 1),
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


class _Stream:
    """One stream, at either end: the :class:`Channel` that its handler sees.

    Args:
        peer: who is at the other end.
        read: waits for the next message; ``grpc.aio.EOF`` behind the last.
        write: sends one message and waits until grpcio has room for more.
        make_handler: gives the session's side.
    """

    def __init__(
        self,
        peer: str,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[bytes], Awaitable[None]],
        make_handler: Accept,
    ) -> None:
        self._peer = peer
        self._read = read
        self._write = write
        self._woken = asyncio.Event()
        self._closing: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._aborted: asyncio.Future[None] = self._loop.create_future()
        self.life: asyncio.Task[None] | None = None
        """The task that serves this stream; the loop itself does not keep tasks."""
        self.handler: Handler = make_handler(self)
        self._receiving = asyncio.create_task(self._receive())
        self._transmitting = asyncio.create_task(self._transmit())
        self._receiving.add_done_callback(self._log_failure)
        self._transmitting.add_done_callback(self._log_failure)

    @property
    def peer(self) -> str:
        return self._peer

    def wake(self) -> None:
        self._woken.set()

    def hand_over(self, handler: Handler) -> None:
        self.handler = handler

    def close(self) -> None:
        if self._closing is None:
            self._woken.set()
            self._closing = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        if not self._aborted.done():
            self._aborted.set_result(None)

    @property
    def said_all(self) -> bool:
        """We closed, and grpcio took everything."""
        task = self._transmitting
        return task.done() and task.exception() is None

    @property
    def heard_all(self) -> bool:
        """The other end has nothing more to say."""
        task = self._receiving
        return task.done() and task.exception() is None

    @property
    def aborted(self) -> bool:
        """We gave up."""
        return self._aborted.done()

    async def either_ends(self) -> None:
        """Wait until one direction is over, or we gave up."""
        await asyncio.wait(
            (self._receiving, self._transmitting, self._aborted),
            return_when=asyncio.FIRST_COMPLETED,
        )

    async def receiving_ends(self) -> None:
        """Wait until the other end is done too, or we gave up."""
        await asyncio.wait(
            (self._receiving, self._aborted), return_when=asyncio.FIRST_COMPLETED
        )

    def stop(self, loss: Loss) -> None:
        """Let go of the stream and tell the handler.

        Nothing is waited for: grpcio may cancel whoever waits, at any moment.
        """
        if self._closing is not None:
            self._closing.cancel()
        self._receiving.cancel()
        self._transmitting.cancel()
        self.handler.channel_lost(loss)

    def _log_failure(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, _GRPC_ERRORS):
            _log.error("%s: the session failed", self._peer, exc_info=failure)

    async def _receive(self) -> None:
        """Push what arrives until the other end has nothing more to say."""
        while (message := await self._read()) is not grpc.aio.EOF:
            self.handler.message_received(message)
            self.handler.turn_ended()

    async def _transmit(self) -> None:
        """Pull and write until there is nothing more to say and we are closing."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while (message := self.handler.next_message()) is not None:
                whole = b"".join(message) if isinstance(message, tuple) else message
                await self._write(whole)
            if self._closing is not None:
                return


# The client's end


async def connect(
    endpoint: Endpoint | Unix,
    make_handler: Callable[[Channel], Handler],
    *,
    keepalive: float,
    timeout: float,
) -> Channel:
    """Open a stream to a manager.

    Args:
        endpoint: where, and whether to use TLS.
        make_handler: called once the connection stands.
        keepalive: seconds of silence after which the other end is asked; after as many
            again without an answer the stream is lost.
        timeout: seconds until this must have worked.

    Raises:
        TunnelError: nothing is there, or it does not speak gRPC, or not in time.
        AuthError: the manager's certificate is not to be trusted.
    """
    peer = endpoint.peer
    where = f"unix:{endpoint.path}" if isinstance(endpoint, Unix) else peer
    options: list[tuple[str, int | str]] = [
        *_options(keepalive),
        # Every session is a connection of its own, straight to where it was told.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]
    if isinstance(endpoint, Endpoint) and endpoint.tls:
        if endpoint.server_name is not None:
            options.append(("grpc.ssl_target_name_override", endpoint.server_name))
        credentials = grpc.ssl_channel_credentials(endpoint.ca)
        channel = grpc.aio.secure_channel(where, credentials, options)
    else:
        channel = grpc.aio.insecure_channel(where, options)
    call = channel.stream_stream(METHOD)()
    try:
        await _connected(channel, call, peer, timeout)
    except BaseException:
        call.cancel()
        await channel.close()
        raise
    stream = _Stream(peer, call.read, call.write, make_handler)
    stream.life = asyncio.create_task(_run_client(stream, channel, call))
    return stream


async def _connected(channel: Any, call: Any, peer: str, timeout: float) -> None:
    """Wait until the connection stands, or say why it does not."""
    ready = asyncio.ensure_future(channel.channel_ready())
    ended = asyncio.ensure_future(call.code())
    try:
        done, _ = await asyncio.wait(
            (ready, ended), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        ready.cancel()
        ended.cancel()
    if not done:
        raise TunnelError(
            f"the connection to {peer} timed out after {timeout:g} s"
            " (timeouts.manager_connect)"
        )
    if ready not in done:
        details = await call.details() or "no reason given"
        if any(words in details for words in _UNTRUSTED):
            raise AuthError(f"the certificate of {peer} is not to be trusted: {details}")
        raise TunnelError(f"no connection to {peer}: {details}")


async def _run_client(stream: _Stream, channel: Any, call: Any) -> None:
    await stream.either_ends()
    if stream.said_all:
        with suppress(*_GRPC_ERRORS):  # it may have ended meanwhile
            await call.done_writing()
        await stream.receiving_ends()
    if not call.done():
        call.cancel()
    loss = _ABORTED if stream.aborted else await _client_loss(stream, call)
    await channel.close()
    stream.stop(loss)


async def _client_loss(stream: _Stream, call: Any) -> Loss:
    code, details = await call.code(), await call.details()
    if code is grpc.StatusCode.OK:
        return Loss("the manager ended the stream", clean=True)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Loss(f"{stream.peer} does not serve {_SERVICE}", refused=True)
    return Loss(f"{details or 'no reason given'} ({code.name})")


# The server's end


class _Server:
    """A ``grpc.aio`` server of the tunnel and of health checks."""

    def __init__(self, server: Any, accept: Accept) -> None:
        self._server = server
        self._accept = accept
        self._health = health.aio.HealthServicer()
        self._announcing: asyncio.Task[None] | None = None
        self.port = 0
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    def set_serving(self, serving: bool) -> None:
        self._announcing = asyncio.ensure_future(self._announce(serving))

    async def _announce(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if serving else states.NOT_SERVING
        for service in ("", _SERVICE):
            await self._health.set(service, status)

    async def close(self) -> None:
        await self._server.stop(grace=CLOSE_TIMEOUT / 10)

    async def start(self, address: str, keys: Keys | None) -> None:
        """Begin to serve.

        Raises:
            RuntimeError: the address cannot be bound.
            ConfigError: the keys cannot be read.
        """
        if keys is None:
            self.port = self._server.add_insecure_port(address)
        else:
            try:
                pairs = [(keys.key.read_bytes(), keys.certificate.read_bytes())]
            except OSError as exc:
                text = f"{exc.filename} cannot be read: {exc.strerror}"
                raise ConfigError(text) from exc
            self.port = self._server.add_secure_port(
                address, grpc.ssl_server_credentials(pairs)
            )
        await self._announce(serving=True)
        await self._server.start()

    async def _serve(self, _requests: Any, context: Any) -> None:
        peer = unquote(context.peer()).partition(":")[2]
        stream = _Stream(peer, context.read, context.write, self._accept)
        # grpcio cancels this very task when the stream breaks.
        loss = Loss("the client went away")
        in_order = False
        try:
            await stream.either_ends()
            if stream.aborted:
                loss = _ABORTED
            elif stream.said_all:
                loss = Loss("the manager ended the stream", clean=True)
            elif stream.heard_all:
                # Not clean: grpcio may show a stream that broke as one that ended.
                loss = Loss("the client ended the stream")
            in_order = stream.said_all or stream.heard_all
        finally:
            stream.stop(loss)
        if not in_order:
            # This waits behind what was written before. A client that does not read
            # hears of it when its connection ends: grpcio has no reset for servers.
            await context.abort(grpc.StatusCode.ABORTED, loss.reason)


async def serve(
    host: str, port: int, accept: Accept, *, keys: Keys | None, keepalive: float
) -> _Server:
    """Listen for streams, and answer ``grpc.health.v1``.

    Args:
        host: address to listen on.
        port: 0 picks one; see :attr:`Server.port`.
        accept: gives the handler of each stream.
        keys: for TLS; ``None`` means plaintext.
        keepalive: seconds of silence after which a client is asked; after as many again
            without an answer its streams are lost.

    Raises:
        HostError: the address is taken, or not this computer's.
        ConfigError: the keys cannot be read.
    """
    options = [
        *_options(keepalive),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIMEOUT * 1000)),
        # A client may ask as often as it likes whether we live.
        ("grpc.http2.max_ping_strikes", 0),
    ]
    server = _Server(grpc.aio.server(options=options), accept)
    where = address(host, port)
    try:
        await server.start(where, keys)
    except RuntimeError as exc:
        raise HostError(
            f"cannot listen on {where}: it is taken, or not an address of this computer",
            hint="choose another address with --listen",
        ) from exc
    return server
