"""One HTTP/2 connection on an asyncio transport: plain, TLS, or what looks like one.

A turn begins with octets, a timer, or a user who has something to say. It lets the
machine and the users of its streams act, and ends with one write of what came due: no
task, no other thread and no further turn lies between a message and its answer.
"""

import asyncio
import logging
import math
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

from tunstack.rpc.channel import address
from tunstack.rpc.http2.connection import Connection, What
from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.grpc import response
from tunstack.rpc.http2.headers import Headers
from tunstack.rpc.http2.status import Metadata, Outcome, Status
from tunstack.rpc.http2.stream import (
    Deliver,
    Pull,
    Stream,
    TurnEnded,
    ignore,
    silence,
)

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0
"""Seconds that the other end has to take our last words."""

WRITE = 256 * 1024
"""Octets of DATA in one write, about; what does not fit the kernel then waits here."""

UNSENT = 256 * 1024
"""Octets that may wait in the kernel for the network: what lies there is no longer ours
to put in order."""

ALONE = 20e-6
"""Seconds behind something said in which more is taken for a part of the same."""

_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # named since Python 3.12

_MESSAGE = What.MESSAGE

_monotonic = time.monotonic


class User:
    """Whoever uses a stream, at either end. All calls happen within a turn.

    This one hears nothing and says nothing. See :meth:`Exchange.carry` for messages.
    """

    def response_received(self, headers: Headers) -> None:
        """The server has begun to answer; only clients hear this."""

    def ended(self, headers: Headers) -> None:
        """The other end has nothing more to say: the trailers of a response, if any."""

    def reset(self, outcome: Outcome) -> None:
        """The stream is gone before its time. Nothing more is called."""


class Exchange:
    """One stream, as its user sees it."""

    __slots__ = ("_connection", "_sender", "_stream", "_transport", "headers")

    def __init__(self, transport: "Transport", stream: Stream, headers: Headers) -> None:
        self._transport = transport
        self._connection = transport.connection
        self._sender = transport.connection.sender
        self._stream = stream
        self.headers = headers
        """Of the request."""

    def carry(
        self,
        deliver: Deliver,
        pull: Pull,
        turn_ended: TurnEnded = silence,
        *,
        eager: bool = False,
    ) -> None:
        """Say where messages go and come from; until then, and at first, nowhere.

        Args:
            deliver: takes each message.
            pull: gives each message; asked when there is room for one.
            turn_ended: told behind the messages that came together.
            eager: each is used up during ``deliver``. Else :meth:`consumed` says when.
        """
        stream = self._stream
        stream.deliver, stream.pull = deliver, pull
        stream.turn_ended = turn_ended
        if eager:
            self._connection.be_eager(stream, _monotonic())

    def silence(self) -> None:
        """Let messages go nowhere and come from nowhere."""
        self.carry(ignore, silence, eager=True)

    @property
    def peer(self) -> str:
        """Who is at the other end, for people."""
        return self._transport.peer

    def wake(self) -> None:
        """Say that there is a message to pull, cheap to repeat."""
        self._sender.wake(self._stream)
        if not self._transport.in_turn:
            self._transport.stir()

    def consumed(self, octets: int) -> None:
        """A message of so many octets is used up: the other end may send more."""
        self._connection.consumed(self._stream, octets, _monotonic())
        self._transport.stir()

    def respond(self, metadata: Metadata = ()) -> None:
        """Begin the response."""
        self._connection.respond(self._stream, response(metadata))
        self._transport.stir()

    def answer(self, headers: Headers, body: bytes) -> None:
        """Give a whole response that is not one of gRPC."""
        self._connection.answer(self._stream, headers, body)
        self._transport.stir()

    def finish(self, outcome: Outcome | None = None) -> None:
        """Say no more behind what there is: a client's half, or a whole response."""
        self._connection.finish(self._stream, outcome)
        self._transport.stir()

    def fail(self, outcome: Outcome) -> None:
        """End the response now, whatever waits to be sent."""
        self._connection.fail(self._stream, outcome)
        self._transport.stir()

    def reset(self, code: Code = Code.CANCEL) -> None:
        """End the stream now. The user is not told."""
        self._connection.reset(self._stream, code)
        self._transport.stir()


class Transport(asyncio.BufferedProtocol):
    """Owns a connection's socket.

    Args:
        connection: the machine.
        accept: gives the user of each stream that begins; only a server's.
    """

    def __init__(
        self,
        connection: Connection,
        accept: Callable[[Exchange], User] | None = None,
    ) -> None:
        self.connection = connection
        self.peer = "an unknown peer"
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the other end has shown that it speaks HTTP/2, or the connection is
        over."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing is left of the connection."""
        self.error: Exception | None = None
        """What broke the connection, if something did."""
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        self.get_buffer = connection.room  # type: ignore[method-assign,assignment]
        self._transport: Any = None
        self._paused = False
        self.in_turn = False
        """What is said now will be written when the turn ends."""
        self._turn_ends = False
        self._stirred_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closing: asyncio.TimerHandle | None = None
        self._open = False
        """There is a socket, and something may still be written to it."""

    # What asyncio says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = transport
        self._open = True
        # Whatever the kernel does not take at once is waited for.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self.peer = _name(transport.get_extra_info("peername")) or self.peer
        _set_up(transport.get_extra_info("socket"))
        self._turn()

    def buffer_updated(self, count: int) -> None:
        """Take what has arrived."""
        now = _monotonic()
        self.in_turn = True
        try:
            self.connection.receive(count, now)
            self._act(now)
        finally:
            self.in_turn = False

    def eof_received(self) -> bool:
        """The other end says no more, and so the connection is over."""
        self._open = False
        self._lose(self.connection.going_away or "the connection was closed")
        return False

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has taken all."""
        self._paused = False
        self._turn()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left."""
        self._open = False
        self.error = exc
        self._lose("the connection was closed" if exc is None else reason(exc))
        for timer in (self._timer, self._closing):
            if timer is not None:
                timer.cancel()
        if not self.gone.done():
            self.gone.set_result(None)

    # What users and owners say

    def begin(self, headers: Headers, make_user: Callable[[Exchange], User]) -> Exchange:
        """Begin a stream; only a client's."""
        connection = self.connection
        stream = connection.request(headers)
        exchange = Exchange(self, stream, headers)
        stream.user = make_user(exchange)
        self.stir()
        return exchange

    def stir(self) -> None:
        """Write what there is: now if it comes alone, else with what else comes.

        What is said right behind something else is likely to be one of many things
        that one turn of the event loop has to say, and leaves with them at its end.
        """
        if self.in_turn or self._turn_ends or self._paused:
            return
        now = _monotonic()
        if now - self._stirred_at < ALONE:
            self._turn_ends = True
            self._loop.call_soon(self._turn_over)
            return
        self._stirred_at = now
        self.in_turn = True
        try:
            self._act(now)
        finally:
            self.in_turn = False

    def shut_down(self) -> None:
        """Take no more streams, and close when those that there are have ended."""
        self.connection.shutdown(_monotonic())
        self._turn()

    def close(self, code: Code = Code.NO_ERROR, reason: str = "") -> None:
        """Say goodbye and close; the users of what streams there are hear of it."""
        self.connection.close(code, reason)
        self._turn()

    def abort(self) -> None:
        """Close without a word."""
        self._open = False
        self._lose("the connection was aborted")
        if self._transport is not None:
            self._transport.abort()

    # Turns

    def _turn(self) -> None:
        """Do what is due, unless that is being done."""
        if not self.in_turn:
            self.in_turn = True
            try:
                self._act(_monotonic())
            finally:
                self.in_turn = False

    def _turn_over(self) -> None:
        self._turn_ends = False
        self._turn()

    def _lose(self, reason: str) -> None:
        self.connection.lost(reason)
        self._turn()

    def _act(self, now: float) -> None:
        """Tell users what has happened and write, until neither is left to do."""
        connection, sender = self.connection, self.connection.sender
        while True:
            if connection.events:
                self._tell_users()
            if not self._open:
                return
            room = 1  # the first message is often the only one: it waits for no other
            while (sender.ready or sender.control) and not self._paused:
                chunks = sender.output(room, now)
                room = WRITE
                if len(chunks) == 1:
                    self._transport.write(chunks[0])
                elif chunks:
                    self._transport.writelines(chunks)
            if not connection.events:
                break
        if connection.over is not None:
            self._close()
        elif connection.deadline < self._timer_at:
            self._arm(now)

    def _tell_users(self) -> None:
        """Hand out what has happened, and with it messages that came together."""
        events, self.connection.events = self.connection.events, []
        turn: Stream | None = None
        for what, stream, value in events:
            if turn is not None and (stream is not turn or what is not _MESSAGE):
                self._end_turn(turn)
                turn = None
            try:
                if what is _MESSAGE:
                    turn = stream
                    stream.deliver(value)
                else:
                    self._tell(what, stream, value)
            except Exception:  # noqa: BLE001 - whatever a user does
                self._fail(stream)
        if turn is not None:
            self._end_turn(turn)

    def _end_turn(self, stream: Stream) -> None:
        try:
            stream.turn_ended()
        except Exception:  # noqa: BLE001 - whatever a user does
            self._fail(stream)

    def _tell(self, what: What, stream: Stream | None, value: Any) -> None:
        if stream is None:
            self._told(what, value)
            return
        user: User = stream.user
        if what is What.REQUEST:
            assert self._accept is not None
            stream.user = self._accept(Exchange(self, stream, value))
        elif what is What.RESPONSE:
            user.response_received(value)
        elif what is What.END:
            user.ended(value)
        elif what is What.RESET:
            user.reset(value)

    def _told(self, what: What, value: Any) -> None:
        """Take what concerns no stream."""
        if what in (What.READY, What.OVER) and not self.ready.done():
            self.ready.set_result(None)
        if what is What.OVER:
            level = logging.DEBUG if self.connection.complaint is None else logging.INFO
            _log.log(level, "%s: %s", self.peer, value or "closed")

    def _fail(self, stream: Stream) -> None:
        """A user broke down, just now: its stream ends, and no other."""
        _log.exception("%s: the session failed", self.peer)
        user, stream.user = stream.user, User()
        stream.deliver = ignore
        stream.turn_ended = stream.pull = silence
        outcome = Outcome(Status.INTERNAL, "the session failed")
        if self.connection.client:
            self.connection.reset(stream, Code.INTERNAL_ERROR)
        else:
            self.connection.fail(stream, outcome)
        if user is not None:
            user.reset(outcome)

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self.connection.deadline
        self._timer = self._loop.call_later(max(self._timer_at - now, 0), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.connection.expire(_monotonic())
        self._turn()

    def _close(self) -> None:
        """Close once our last words are on their way.

        To close a socket while it has something to read makes the kernel reset the
        connection, and what we said last may be lost. So only our half is closed at
        first, and what still comes is thrown away, for a time.
        """
        transport = self._transport
        if self._closing is None:
            self._closing = self._loop.call_later(CLOSE_TIMEOUT, transport.abort)
        if self.connection.sender.pending:
            return
        self._open = False
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()


def reason(exc: Exception) -> str:
    """Say what went wrong as the kernel does, or OpenSSL, without where in the code."""
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return f"TLS failed: {exc.reason.lower().replace('_', ' ')}"
    number = getattr(exc, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(getattr(exc, "strerror", None) or exc or type(exc).__name__)


def _name(peer: Any) -> str:
    """Name whom a socket is connected to."""
    return address(*peer[:2]) if isinstance(peer, tuple) else str(peer or "")


def _set_up(sock: Any) -> None:
    """Keep what cannot be put in order any more short (tcp(7), TCP_NOTSENT_LOWAT)."""
    inet = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
    if inet and sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT)
