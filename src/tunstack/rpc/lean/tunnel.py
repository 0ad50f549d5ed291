"""The tunnel's stream on the lean transport: :mod:`tunstack.rpc.channel` from callbacks."""

import asyncio
from collections.abc import Callable

from tunstack.errors import TunnelError
from tunstack.rpc.channel import (
    MAX_RECEIVE,
    METHOD,
    Accept,
    Channel,
    Endpoint,
    Handler,
    Keys,
    Loss,
    Message,
    Pair,
    Unix,
)
from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.grpc import outcome_of_http, outcome_of_trailers
from tunstack.rpc.http2.headers import Headers
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Outcome, Status
from tunstack.rpc.lean.call import CallError
from tunstack.rpc.lean.client import Client, open_client
from tunstack.rpc.lean.health import Health
from tunstack.rpc.lean.server import Begin, Server
from tunstack.rpc.lean.transport import CLOSE_TIMEOUT, Exchange, User

SERVICE = METHOD.split("/")[1]

LIMITS = Limits(message=4 * MAX_RECEIVE)
"""What is too long but not absurd gets through to the session, which says so."""


class _Stream(User):
    """One stream, at either end: its handler's channel, and its exchange's user.

    Args:
        exchange: carries it.
        make_handler: gives the session's side.
    """

    def __init__(self, exchange: Exchange, make_handler: Accept) -> None:
        self._exchange = exchange
        self.wake = exchange.wake  # straight, as it is called for every message
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.TimerHandle | None = None
        self._lost = False
        self._handler: Handler | None = None
        self._handler = make_handler(self)
        self._carry()

    @property
    def peer(self) -> str:
        return self._exchange.peer

    def hand_over(self, handler: Handler) -> None:
        self._handler = handler
        self._carry()

    def close(self) -> None:
        if self._closing is None and not self._lost:
            self._closing = self._loop.call_later(CLOSE_TIMEOUT, self.abort)
            self._carry()
            self._finish()

    def abort(self) -> None:
        if not self._lost:
            self._give_up()
            self._lose(Loss("the stream was aborted"))

    def _carry(self) -> None:
        """Have messages go straight to the handler and come straight from it."""
        handler = self._handler
        if handler is not None and not self._lost:
            pull = handler.next_message if self._closing is None else self._last_message
            self._exchange.carry(
                handler.message_received, pull, handler.turn_ended, eager=True
            )

    def _last_message(self) -> Message | None:
        assert self._handler is not None
        message = self._handler.next_message()
        if message is None:
            self._said_all()
        return message

    def reset(self, outcome: Outcome) -> None:
        self._lose(Loss(outcome.message))

    def _finish(self) -> None: ...

    def _give_up(self) -> None: ...

    def _said_all(self) -> None: ...

    def _lose(self, loss: Loss) -> None:
        """Tell the handler, once, and not while it is telling us something."""
        if self._lost:
            return
        self._lost = True
        self._exchange.silence()
        if self._closing is not None:
            self._closing.cancel()
        self._loop.call_soon(self._tell, loss)

    def _tell(self, loss: Loss) -> None:
        assert self._handler is not None
        self._handler.channel_lost(loss)


class _ClientStream(_Stream):
    """The client's end, which has the connection for itself."""

    def __init__(self, exchange: Exchange, make_handler: Accept, client: Client) -> None:
        super().__init__(exchange, make_handler)
        self._client = client

    def response_received(self, headers: Headers) -> None:
        outcome = outcome_of_http(headers)
        if outcome is not None:
            self._lose(Loss(outcome.message, refused=True))

    def ended(self, headers: Headers) -> None:
        outcome = outcome_of_trailers(headers)
        if outcome.status is Status.OK:
            self._lose(Loss("the manager ended the stream", clean=True))
        elif outcome.status is Status.UNIMPLEMENTED:
            self._lose(Loss(f"{self.peer} does not serve {SERVICE}", refused=True))
        else:
            reason = outcome.message or "no reason given"
            self._lose(Loss(f"{reason} ({outcome.status.name})"))

    def _finish(self) -> None:
        self._exchange.finish()

    def _give_up(self) -> None:
        self._exchange.reset(Code.CANCEL)

    def _lose(self, loss: Loss) -> None:
        super()._lose(loss)
        self._client.end()


class _ServerStream(_Stream):
    """The manager's end."""

    def _said_all(self) -> None:
        self._lose(Loss("the manager ended the stream", clean=True))

    def ended(self, headers: Headers) -> None:
        # The answer is complete, whatever the session still had to say.
        self._lose(Loss("the client ended the stream"))
        self._finish()

    def _finish(self) -> None:
        self._exchange.finish(Outcome(Status.OK))

    def _give_up(self) -> None:
        self._exchange.fail(Outcome(Status.ABORTED, "the stream was aborted"))


async def connect(
    endpoint: Endpoint | Unix | Pair,
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
        TunnelError: nothing is there, or it does not speak HTTP/2, or not in time.
        AuthError: the manager's certificate is not to be trusted.
    """
    client = await open_client(
        endpoint, keepalive=keepalive, timeout=timeout, limits=LIMITS
    )
    streams: list[_ClientStream] = []

    def make(exchange: Exchange) -> User:
        streams.append(_ClientStream(exchange, make_handler, client))
        return streams[0]

    try:
        client.begin(METHOD, make)
    except CallError as error:
        client.end()
        reason = error.outcome.message
        raise TunnelError(f"no connection to {endpoint.peer}: {reason}") from error
    return streams[0]


class _Server:
    """A server of the tunnel and of health checks."""

    def __init__(self, accept: Accept, keepalive: float) -> None:
        self._health = Health()
        methods: dict[str, Begin] = {
            METHOD: lambda exchange, _timeout: _serve(exchange, accept),
            **self._health.methods,
        }
        self._server = Server(methods, keepalive=keepalive, limits=LIMITS)
        self.set_serving(True)

    @property
    def port(self) -> int:
        return self._server.port

    async def listen(self, host: str, port: int, keys: Keys | None) -> None:
        await self._server.listen((host, port), keys)

    def set_serving(self, serving: bool) -> None:
        for service in ("", SERVICE):
            self._health.set(service, serving)

    async def close(self) -> None:
        await self._server.close(CLOSE_TIMEOUT / 10)


def _serve(exchange: Exchange, accept: Accept) -> User:
    exchange.respond()
    return _ServerStream(exchange, accept)


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
        ConfigError: the keys are none.
    """
    server = _Server(accept, keepalive)
    await server.listen(host, port, keys)
    return server
