"""Calls with ``await``: any method, unary or streaming, at either end.

The tunnel's stream does without: it is served from callbacks (:mod:`.tunnel`). This is
for everything beside it: health, and whatever else speaks gRPC.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.grpc import (
    outcome_of_http,
    outcome_of_trailers,
    unpack_metadata,
)
from tunstack.rpc.http2.headers import Headers
from tunstack.rpc.http2.status import Metadata, Outcome, Status
from tunstack.rpc.lean.transport import Exchange, User

_log = logging.getLogger(__name__)

BACKLOG = 64 * 1024
"""Octets of messages written and not sent, beyond which a writer waits."""


_TOO_LATE = "the time of the call is over"


class CallError(Exception):
    """A call has ended otherwise than with OK.

    Raise it in a method of a server to say how the call ends.
    """

    def __init__(self, status: Status, message: str = "", metadata: Metadata = ()) -> None:
        super().__init__(f"{status.name}: {message}" if message else status.name)
        self.outcome = Outcome(status, message, metadata)


class Call(User):
    """One call: messages in and out, each in its order.

    What is not read holds the stream's window and no more; what is not sent makes
    :meth:`write` wait.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.carry(self._message_received, self._next_message)
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        """How the call ended, known once it has."""
        self._incoming: deque[bytes] = deque()
        self._outgoing: deque[bytes] = deque()
        self._backlog = 0
        self._ended = False
        self._read_waiter: asyncio.Event = asyncio.Event()
        self._write_waiter: asyncio.Event = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the messages of the other end, until it has nothing more to say."""
        return self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        while (message := await self.read()) is not None:
            yield message

    async def read(self) -> bytes | None:
        """Wait for the next message; ``None`` behind the last.

        Raises:
            CallError: the call has ended otherwise than with OK.
        """
        while not self._incoming:
            if self.outcome.done() and self.outcome.result().status is not Status.OK:
                outcome = self.outcome.result()
                raise CallError(outcome.status, outcome.message, outcome.metadata)
            if self._ended:
                return None
            self._read_waiter.clear()
            await self._read_waiter.wait()
        message = self._incoming.popleft()
        self.exchange.consumed(len(message))
        return message

    async def write(self, message: bytes) -> None:
        """Send one message; waits while too much is waiting to be sent.

        Raises:
            CallError: the call has ended.
        """
        if self.outcome.done():
            outcome = self.outcome.result()
            raise CallError(outcome.status, outcome.message, outcome.metadata)
        self._outgoing.append(message)
        self._backlog += len(message)
        self.exchange.wake()
        while self._backlog > BACKLOG and not self.outcome.done():
            self._write_waiter.clear()
            await self._write_waiter.wait()

    # What the transport says

    def _message_received(self, message: memoryview) -> None:
        """Keep a message until it is read."""
        self._incoming.append(bytes(message))
        self._read_waiter.set()

    def _next_message(self) -> bytes | None:
        """Give what was written."""
        if not self._outgoing:
            return None
        message = self._outgoing.popleft()
        self._backlog -= len(message)
        self._write_waiter.set()
        return message

    def ended(self, headers: Headers) -> None:
        """Know that nothing more comes."""
        self._ended = True
        self._read_waiter.set()

    def reset(self, outcome: Outcome) -> None:
        """Know that the call is over."""
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
        self._outgoing.clear()
        self._read_waiter.set()
        self._write_waiter.set()


class ClientCall(Call):
    """A call that this end has made.

    Args:
        exchange: its stream.
        timeout: seconds until it is cancelled; the server was told, too.
    """

    def __init__(self, exchange: Exchange, timeout: float | None = None) -> None:
        super().__init__(exchange)
        self.initial_metadata: asyncio.Future[Metadata] = (
            asyncio.get_running_loop().create_future()
        )
        """What the server said before its first message; empty when it said nothing."""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        if timeout is not None:
            self._deadline = time.monotonic() + timeout
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(timeout, self._too_late)

    def done_writing(self) -> None:
        """Send no more."""
        self.exchange.finish()

    def cancel(self, status: Status = Status.CANCELLED, reason: str = "cancelled") -> None:
        """Give the call up."""
        if not self.outcome.done():
            self.exchange.reset(Code.CANCEL)
            self._end(Outcome(status, reason))

    def _too_late(self) -> None:
        self.cancel(Status.DEADLINE_EXCEEDED, _TOO_LATE)

    def response_received(self, headers: Headers) -> None:
        """Take the beginning of the response, or of something else than one of gRPC."""
        outcome = outcome_of_http(headers)
        if outcome is not None:
            self.cancel(outcome.status, outcome.message)
        elif not self.initial_metadata.done():
            self.initial_metadata.set_result(unpack_metadata(headers))

    def ended(self, headers: Headers) -> None:
        """Know how the call ended."""
        super().ended(headers)
        self._end(outcome_of_trailers(headers))

    def _end(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if outcome.status is Status.CANCELLED and time.monotonic() >= self._deadline:
            # The server has the same deadline, and its timer may be the first.
            outcome = Outcome(Status.DEADLINE_EXCEEDED, _TOO_LATE)
        if not self.initial_metadata.done():
            self.initial_metadata.set_result(())
        super()._end(outcome)


class ServerCall(Call):
    """A call that this end serves."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self.metadata = unpack_metadata(exchange.headers)
        """What the client said with its request."""
        self.trailing: Metadata = ()
        """What is said behind the last message of a call that ends with OK."""
        self.task: asyncio.Task[None] | None = None

    def respond(self, metadata: Metadata = ()) -> None:
        """Send the initial metadata; happens by itself with the first message."""
        self.exchange.respond(metadata)

    async def write(self, message: bytes) -> None:
        """Send one message; see :meth:`Call.write`."""
        self.exchange.respond()
        await super().write(message)

    def reset(self, outcome: Outcome) -> None:
        """Nobody wants the answer any more: stop working on it."""
        super().reset(outcome)
        if self.task is not None:
            self.task.cancel()


Method = Callable[[ServerCall], Awaitable[None]]
"""Serves a call: reads, writes, returns when it is done; may raise :class:`CallError`."""


def method(serve: Method) -> Callable[[Exchange, float | None], User]:
    """Make of an ``async`` function what a :class:`~.server.Server` takes."""

    def begin(exchange: Exchange, timeout: float | None) -> User:
        call = ServerCall(exchange)
        call.task = asyncio.get_running_loop().create_task(_run(serve, call, timeout))
        return call

    return begin


async def _run(serve: Method, call: ServerCall, timeout: float | None) -> None:
    outcome = Outcome(Status.INTERNAL, "the method failed")
    try:
        async with asyncio.timeout(timeout):
            await serve(call)
        outcome = Outcome(Status.OK, metadata=call.trailing)
    except CallError as error:
        outcome = error.outcome
    except TimeoutError:
        outcome = Outcome(Status.DEADLINE_EXCEEDED, _TOO_LATE)
    except Exception:  # noqa: BLE001 - the client hears of it
        _log.exception("%s: the method failed", call.exchange.peer)
    finally:
        if not call.outcome.done():
            call.outcome.set_result(outcome)
            call.exchange.finish(outcome)
