"""One end of an HTTP/2 connection that carries gRPC: RFC 9113, without the network.

Theory of operation. Whoever owns the socket receives into :attr:`Connection.room`, tells
:meth:`Connection.receive` how much, and takes the events that it led to; writes what
``sender.output`` gives, as much as the socket takes; and calls
:meth:`Connection.expire` at :attr:`Connection.deadline`. The clock is an argument
everywhere.

* A message that lies whole in one DATA frame, and nearly all do, costs a few
  comparisons; its event carries a view of where it arrived. Everything else
  goes the long way.
* What the other end does wrong is an event and a frame that says so. Nothing that
  arrives raises.
* What the other end can have us hold is bounded by :class:`~.limits.Limits`, what it can
  have us do by budgets.
"""

import math
import struct
from collections.abc import Callable
from enum import Enum
from typing import Any

from tunstack.rpc.http2.budget import WORTH, Budget
from tunstack.rpc.http2.frame import (
    HEADER,
    MAX_WINDOW,
    PREFACE,
    STREAM,
    WORD,
    Code,
    Flag,
    Type,
    code_name,
    pack,
)
from tunstack.rpc.http2.grpc import outcome_of_reset, response, trailers
from tunstack.rpc.http2.headers import (
    HeaderCodec,
    Headers,
    content_length,
    find,
    request_fault,
    response_fault,
    trailers_fault,
)
from tunstack.rpc.http2.inbox import Inbox
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.message import FRAME_AND_PREFIX, PREFIX
from tunstack.rpc.http2.sender import Sender
from tunstack.rpc.http2.settings import DEFAULT_WINDOW, Setting
from tunstack.rpc.http2.settings import pack as pack_settings
from tunstack.rpc.http2.settings import unpack as unpack_settings
from tunstack.rpc.http2.status import Outcome, Status
from tunstack.rpc.http2.stream import Stream, silence
from tunstack.rpc.http2.violation import (
    CallViolation,
    ConnectionViolation,
    StreamViolation,
)
from tunstack.rpc.http2.window import ReceiveWindow


class What(Enum):
    """What happened. In parentheses: the stream and the value of the event."""

    READY = "ready"
    """The other end has sent its first settings (``None``, ``None``)."""
    REQUEST = "request"
    """A stream has begun (the stream, its :data:`~.headers.Headers`)."""
    RESPONSE = "response"
    """A response has begun (the stream, its headers)."""
    MESSAGE = "message"
    """A message (the stream, its octets). A view is valid until there is ``room`` again."""
    END = "end"
    """The other end has nothing more to say (the stream, the fields that ended it)."""
    RESET = "reset"
    """A stream is gone before its time (the stream, an :class:`~.status.Outcome`)."""
    GOAWAY = "goaway"
    """The other end takes no more streams (``None``, the reason)."""
    OVER = "over"
    """The connection is gone, after all its streams (``None``, the reason)."""


Event = tuple[What, Any, Any]
"""What happened, the stream or ``None``, and the value."""

_GOAWAY = struct.Struct(">II")

_MESSAGE = What.MESSAGE
_HEADER = HEADER.size
_PREFIX = PREFIX.size
_LEAST = FRAME_AND_PREFIX.size
_unpack = FRAME_AND_PREFIX.unpack_from

_REMEMBERED = 1000
"""Streams that we have reset and whose frames may still be on their way."""

_RTT_INTERVAL = 1.0
"""Seconds between two measurements of the round trip."""

_DRAIN = 1.0
"""Seconds for the PING of a graceful shutdown: section 6.8 asks for a round trip."""


class Connection:
    """One end of a connection.

    Args:
        client: which end.
        now: seconds, of a clock that does not go back.
        limits: of what the other end may do.
        keepalive: seconds of silence after which the other end is asked, and after as
            many again given up; ``None`` to trust it.
    """

    def __init__(
        self,
        *,
        client: bool,
        now: float,
        limits: Limits | None = None,
        keepalive: float | None = None,
    ) -> None:
        self.client = client
        self.limits = limits = limits or Limits()
        self.streams: dict[int, Stream] = {}
        self.over: str | None = None
        """Why the connection has ended."""
        self.complaint: Code | None = None
        """What we have told the other end that it did wrong, if we did."""
        self.deadline = math.inf
        """When :meth:`expire` has something to do, or earlier."""
        self.rtt: float | None = None
        """Seconds of the last round trip that was measured."""
        self.peer_streams = MAX_WINDOW
        """Streams that the other end lets us have at once."""
        self.going_away: str | None = None
        """Why the other end takes no more streams."""
        self.events: list[Event] = []
        """What has happened and nobody has taken yet."""
        self._codec = HeaderCodec(limits)
        self.sender = Sender(self._codec, self._last_frame_sent, self._blocked)
        self._inbox = Inbox(limits.frame)
        self._window = ReceiveWindow(
            limits.connection_window, limits.connection_window, DEFAULT_WINDOW
        )
        self._peer_window = DEFAULT_WINDOW
        self._highest = 0
        """The highest number of a stream so far, ours or the other end's."""
        self._last_processed = 0
        self._refuses_above = MAX_WINDOW
        self._draining = False
        self._drain_at = math.inf
        self._reset_by_us: dict[int, None] = {}
        self._moved = 0
        """Octets of DATA received so far, and :data:`WORTH` for each message."""
        self._block: tuple[int, int, bytearray, int] | None = None
        """Stream, flags, octets and continuations of a header block that goes on."""
        self._preface = not client
        self._settled = False
        self._heard_at = self._rtt_at = now
        self._keepalive = keepalive
        self._asked_at: float | None = None
        self._ping_at: float | None = None
        self._pings = 0
        self._handshake_at = now + limits.handshake
        self._answers = Budget(limits.answers, limits.answers / 10, 256, now)
        self._resets = Budget(limits.resets, limits.resets / 10, 1024, now)
        self._idle = Budget(limits.idle_frames, limits.idle_frames / 10, 64, now)
        self._introduce(now)
        self.expire(now)

    def _introduce(self, now: float) -> None:
        limits = self.limits
        settings = {
            Setting.HEADER_TABLE_SIZE: limits.header_table,
            Setting.INITIAL_WINDOW_SIZE: limits.window,
            Setting.MAX_FRAME_SIZE: limits.frame,
            Setting.MAX_HEADER_LIST_SIZE: limits.header_list,
        }
        if self.client:
            settings[Setting.ENABLE_PUSH] = 0
            self.sender.control += PREFACE
        else:
            settings[Setting.MAX_CONCURRENT_STREAMS] = limits.streams
        self._control(Type.SETTINGS, 0, 0, pack_settings(settings))
        self._grant_connection(now)

    # What we do

    def take_events(self) -> list[Event]:
        """Take what has happened since this was called last."""
        events, self.events = self.events, []
        return events

    def request(self, headers: Headers) -> Stream:
        """Begin a stream; only clients do, and not once :attr:`going_away` is set.

        Args:
            headers: the request's.
        """
        self._highest = self._highest + 2 if self._highest else 1
        stream = self._new_stream(self._highest)
        self.sender.headers(stream, headers)
        return stream

    def respond(self, stream: Stream, headers: Headers) -> None:
        """Begin a response."""
        if not (stream.responded or stream.local_closed):
            stream.responded = True
            self.sender.headers(stream, headers)

    def answer(self, stream: Stream, headers: Headers, body: bytes) -> None:
        """Give a whole response that is not one of gRPC."""
        self.respond(stream, headers)
        stream.plain = False
        stream.discards = stream.lingers = True
        if body and not stream.local_closed:
            stream.rest = memoryview(body)
        self._finish(stream, [])

    def finish(self, stream: Stream, outcome: Outcome | None = None) -> None:
        """End our half behind all messages: with an outcome a server's, else a client's."""
        if outcome is None:
            self._finish(stream, [])
        elif stream.responded:
            self._finish(stream, trailers(outcome))
        else:
            stream.responded = True
            self._finish(stream, response() + trailers(outcome))

    def _finish(self, stream: Stream, fields: Headers) -> None:
        if stream.ending is None and not stream.local_closed:
            stream.ending = fields
            self.sender.wake(stream)

    def fail(self, stream: Stream, outcome: Outcome) -> None:
        """End a server's stream at once; what waits to be sent is dropped."""
        if not stream.local_closed:
            stream.rest, stream.prefix, stream.ending = None, b"", None
            stream.pull = silence
            self.finish(stream, outcome)

    def reset(self, stream: Stream, code: Code) -> None:
        """End both halves at once, if they have not ended."""
        if stream.id in self.streams:
            self._control(Type.RST_STREAM, 0, stream.id, WORD.pack(code))
            self._remember(stream.id)
            self._remove(stream)

    def consumed(self, stream: Stream, octets: int, now: float) -> None:
        """A message of so many octets is used up: the other end may send more.

        Not needed for those of an :attr:`Stream.eager` one.
        """
        window, own = stream.window, self._window
        octets = min(octets + _PREFIX, window.held)  # a reset one holds nothing
        window.held -= octets
        own.held -= octets
        if not stream.remote_closed:
            self._grant(stream, now)
        self._grant_connection(now)

    def be_eager(self, stream: Stream, now: float) -> None:
        """From now on each message is used up when its event is taken.

        Those whose events have not been taken yet are, too.
        """
        stream.eager = True
        told = max(stream.window.held - stream.assembler.collected, 0)
        stream.window.held -= told
        self._window.held -= told
        if not stream.remote_closed:
            self._grant(stream, now)

    def shutdown(self, now: float) -> None:
        """Take no more streams, and end when those that there are have ended.

        Section 6.8: what was sent before the other end knew is still taken.
        """
        if self._draining or self.over is not None:
            return
        self._draining = True
        self._drain_at = now + _DRAIN
        self.deadline = min(self.deadline, self._drain_at)
        self._go_away(MAX_WINDOW, Code.NO_ERROR, "")
        self._ping(now)

    def close(self, code: Code, reason: str) -> None:
        """End the connection at once, and say why."""
        if self.over is None:
            self.complaint = code or None
            self._go_away(self._last_processed, code, reason)
            self.lost(reason)

    def lost(self, reason: str) -> None:
        """The connection has ended."""
        if self.over is not None:
            return
        self.over = reason
        for stream in tuple(self.streams.values()):
            self._remove(stream)
            self.events.append((What.RESET, stream, Outcome(Status.UNAVAILABLE, reason)))
        self.events.append((What.OVER, None, reason))
        self.deadline = math.inf

    def expire(self, now: float) -> None:
        """Do what time asks for."""
        if self.over is not None:
            return
        deadlines = [math.inf]
        if not self._settled:
            if now >= self._handshake_at:
                seconds = self.limits.handshake
                self.close(Code.SETTINGS_TIMEOUT, f"no HTTP/2 within {seconds:g} s")
                return
            deadlines.append(self._handshake_at)
        if self._keepalive is not None:
            deadlines.append(self._keep_alive(self._keepalive, now))
        since = self.sender.blocked_since
        if since is not None:
            if now - since >= self.limits.stall:
                seconds = self.limits.stall
                reason = f"a window was closed for {seconds:g} s"
                self.close(Code.ENHANCE_YOUR_CALM, reason)
                return
            deadlines.append(since + self.limits.stall)
        if now >= self._drain_at:
            self._drained()
        deadlines.append(self._drain_at)
        if self.over is None:
            self.deadline = min(deadlines)

    def _keep_alive(self, seconds: float, now: float) -> float:
        """Ask whether anybody is there; returns when to look again."""
        if self._asked_at is not None and self._heard_at > self._asked_at:
            self._asked_at = None
        if self._asked_at is None:
            if now - self._heard_at < seconds:
                return self._heard_at + seconds
            self._asked_at = now
            self._ping(now)
        elif now - self._asked_at >= seconds:
            self.close(Code.NO_ERROR, f"no answer to a PING for {seconds:g} s")
        return self._asked_at + seconds

    def _ping(self, now: float) -> None:
        self._pings += 1
        self._ping_at = now
        self._control(Type.PING, 0, 0, self._pings.to_bytes(8, "big"))

    def _control(self, kind: Type, flags: int, stream: int, payload: bytes) -> None:
        self.sender.control += pack(kind, flags, stream, payload)

    def _go_away(self, last: int, code: Code, reason: str) -> None:
        text = reason.encode()[:256]
        self._control(Type.GOAWAY, 0, 0, _GOAWAY.pack(last, code) + text)

    def _drained(self) -> None:
        """The other end knows that it is to begin no more: say which were the last."""
        self._drain_at = math.inf
        self._refuses_above = self._last_processed
        self._go_away(self._last_processed, Code.NO_ERROR, "")
        if not self.streams:
            self.lost("drained")

    # Streams

    def _new_stream(self, number: int) -> Stream:
        limits = self.limits
        window = ReceiveWindow(limits.window, limits.window_most, limits.window)
        stream = Stream(number, self._peer_window, window, limits.message)
        self.streams[number] = stream
        return stream

    def _last_frame_sent(self, stream: Stream) -> None:
        if stream.remote_closed:
            self._remove(stream)
        elif not (self.client or stream.lingers):
            # The response is complete: section 8.1 has us stop the request so.
            self._control(Type.RST_STREAM, 0, stream.id, WORD.pack(Code.NO_ERROR))
            self._remember(stream.id)
            self._remove(stream)

    def _blocked(self, now: float) -> None:
        self.deadline = min(self.deadline, now + self.limits.stall)

    def _remove(self, stream: Stream) -> None:
        """Forget a stream. What a user has not read of it stays held, unless it broke."""
        self.streams.pop(stream.id, None)
        if not (stream.remote_closed and stream.local_closed):
            self._release(stream)
        stream.remote_closed = True
        stream.plain = False
        self.sender.forget(stream)
        if self._draining and not self.streams and self._drain_at == math.inf:
            self.lost("drained")

    def _release(self, stream: Stream) -> None:
        """Nobody will read what a stream holds."""
        self._window.held -= stream.window.held
        stream.window.held = 0

    def _remember(self, number: int) -> None:
        self._reset_by_us[number] = None
        if len(self._reset_by_us) > _REMEMBERED:
            del self._reset_by_us[next(iter(self._reset_by_us))]

    def _remote_end(self, stream: Stream, fields: Headers) -> None:
        """The other end has closed its half."""
        stream.remote_closed = True
        stream.plain = False
        if stream.missing:
            raise StreamViolation(
                stream.id, Code.PROTOCOL_ERROR, "less DATA than content-length says"
            )
        if not stream.assembler.empty and not stream.discards:
            raise CallViolation(stream.id, Status.INTERNAL, "a message was cut short")
        self.events.append((What.END, stream, fields))
        if stream.local_closed:
            self._remove(stream)

    def _grant(self, stream: Stream, now: float) -> None:
        assembler, window = stream.assembler, stream.window
        needed = assembler.missing if window.held == assembler.collected else 0
        increment = window.grant(now, self.rtt, needed)
        if increment:
            self._control(Type.WINDOW_UPDATE, 0, stream.id, WORD.pack(increment))
            if now - self._rtt_at > _RTT_INTERVAL or self.rtt is None:
                self._measure(now)

    def _measure(self, now: float) -> None:
        if self._ping_at is None:
            self._rtt_at = now
            self._ping(now)

    def _grant_connection(self, now: float) -> None:
        increment = self._window.grant(now, None)
        if increment:
            self._control(Type.WINDOW_UPDATE, 0, 0, WORD.pack(increment))

    # What the other end says

    @property
    def room(self) -> Callable[[int], memoryview]:
        """Gives memory to receive into, never empty: ``get_buffer`` of asyncio.

        The views in the events before it are no longer valid.
        """
        return self._inbox.room

    def receive(self, count: int, now: float) -> None:
        """Take what has arrived.

        Args:
            count: octets that are new in what :attr:`room` gave.
            now: seconds.
        """
        inbox, self._heard_at = self._inbox, now
        inbox.end += count
        if self._preface or self.over is not None:
            self._take_preface()
            if self._preface:
                return
        view, at, end = inbox.view, inbox.start, inbox.end
        most, streams, own = self.limits.frame, self.streams, self._window
        while at != end:
            if end - at >= _LEAST and self._block is None:
                length_and_type, flags, number, compressed, size = _unpack(view, at)
                length = size + _PREFIX
                # The type of DATA is 0, and so is that of nothing else.
                if length_and_type == length << 8 and length <= most:
                    stream = streams.get(number)
                    stop = at + _HEADER + length
                    simple = not (flags or compressed) and stop <= end
                    if simple and stream is not None and stream.plain:
                        window = stream.window
                        if length <= window.remaining and length <= own.remaining:
                            # What nearly everything is: a message, whole in its frame.
                            message = view[at + _LEAST : stop]
                            self.events.append((_MESSAGE, stream, message))
                            inbox.start = at = stop
                            self._moved += length + WORTH
                            own.remaining -= length
                            window.remaining -= length
                            if not stream.eager:
                                own.held += length
                                window.held += length
                            elif window.remaining < window.low:
                                self._grant(stream, now)
                            continue
            stop = self._take_frame(view, at, end, now)
            if stop == at:
                break
            inbox.start = at = stop
        if own.remaining < own.low and self.over is None:
            self._grant_connection(now)

    def _take_preface(self) -> None:
        """Take what comes before all frames, and what comes when all is over."""
        inbox = self._inbox
        if self.over is not None:
            inbox.start = inbox.end
            return
        size = min(inbox.end - inbox.start, len(PREFACE))
        if inbox.view[inbox.start : inbox.start + size] != PREFACE[:size]:
            self.close(Code.PROTOCOL_ERROR, "not the preface of HTTP/2")
            inbox.start = inbox.end
        elif size == len(PREFACE):
            self._preface = False
            inbox.start += size

    def _take_frame(self, view: memoryview, at: int, end: int, now: float) -> int:
        """Take a frame of any kind; returns where it ends, ``at`` when it is not whole."""
        if end - at < _HEADER:
            return at
        high, low, kind, flags, number = HEADER.unpack_from(view, at)
        length: int = high << 16 | low
        start = at + _HEADER
        stop = start + length
        try:
            self._check_frame(length, kind)
            if stop > end:
                return at
            try:
                self._take(kind, flags, number & STREAM, view[start:stop], now)
            except StreamViolation as violation:
                self._violated(violation, now)
        except ConnectionViolation as violation:
            self.close(violation.code, violation.reason)
        return end if self.over is not None else stop

    def _check_frame(self, length: int, kind: int) -> None:
        """Look at a frame before it has arrived whole."""
        if not self._settled and kind != Type.SETTINGS:
            raise ConnectionViolation(Code.PROTOCOL_ERROR, "not HTTP/2: no SETTINGS first")
        if length > self.limits.frame:
            raise ConnectionViolation(
                Code.FRAME_SIZE_ERROR,
                f"a frame of {length} octets: at most {self.limits.frame}",
            )

    def _take(
        self, kind: int, flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Take one frame, the long way."""
        if self._block is not None and (
            kind != Type.CONTINUATION or number != self._block[0]
        ):
            raise ConnectionViolation(
                Code.PROTOCOL_ERROR, "a header block that is not continued at once"
            )
        taker = _TAKERS.get(kind)
        if taker is None:
            self._count_idle(now)
        else:
            taker(self, flags, number, payload, now)

    def _violated(self, violation: StreamViolation, now: float) -> None:
        """End one stream; and the connection when that happens too often."""
        self._count_reset(now)
        stream = self.streams.get(violation.stream)
        if stream is None:
            self._control(Type.RST_STREAM, 0, violation.stream, WORD.pack(violation.code))
            self._remember(violation.stream)
            return
        outcome = Outcome(Status.INTERNAL, violation.reason)
        if isinstance(violation, CallViolation):
            outcome = violation.outcome
            if not (self.client or stream.local_closed):
                stream.plain, stream.discards = False, True
                self._release(stream)
                self.fail(stream, outcome)
                self.events.append((What.RESET, stream, outcome))
                return
        self.reset(stream, violation.code)
        self.events.append((What.RESET, stream, outcome))

    def _count_answer(self, now: float) -> None:
        if not self._answers.spend(now, self._moved + self.sender.moved):
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM, "more PING and SETTINGS than anybody needs"
            )
        if len(self.sender.control) > self.limits.unread:
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM, "answers are asked for and not read"
            )

    def _count_reset(self, now: float) -> None:
        if not self._resets.spend(now, self._moved + self.sender.moved):
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM, "too many streams end before their time"
            )

    def _count_idle(self, now: float) -> None:
        if not self._idle.spend(now, self._moved + self.sender.moved):
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM, "too many frames that move nothing"
            )

    def _check_number(self, number: int, kind: Type) -> None:
        """A frame must not belong to a stream that never began (section 5.1, idle)."""
        if number % 2 == 0 or number > self._highest:
            raise ConnectionViolation(
                Code.PROTOCOL_ERROR, f"{kind.name} on stream {number}, which is idle"
            )

    def _check_closed(self, number: int, kind: Type, now: float) -> None:
        """What arrives on a closed stream was on its way when we reset it, or is wrong."""
        self._check_number(number, kind)
        if number not in self._reset_by_us:
            raise ConnectionViolation(
                Code.STREAM_CLOSED, f"{kind.name} on stream {number}, which is closed"
            )
        self._count_idle(now)

    def _take_data(self, flags: int, number: int, payload: memoryview, now: float) -> None:
        """Section 6.1. Padding counts as DATA and is used up at once (section 6.9.1)."""
        length = len(payload)
        own = self._window
        if length > own.remaining:
            raise ConnectionViolation(
                Code.FLOW_CONTROL_ERROR, "more DATA than the connection's window"
            )
        data = _unpad(flags, payload, Type.DATA)
        own.remaining -= length
        self._moved += length
        stream = self.streams.get(number)
        if stream is None:
            self._check_closed(number, Type.DATA, now)
            self._grant_connection(now)
            return
        if stream.remote_closed:
            raise StreamViolation(
                number, Code.STREAM_CLOSED, "DATA behind the end of a stream"
            )
        if self.client and not stream.responded:
            raise StreamViolation(
                number, Code.PROTOCOL_ERROR, "DATA before the header fields"
            )
        if length > stream.window.remaining:
            raise StreamViolation(
                number, Code.FLOW_CONTROL_ERROR, "more DATA than the stream's window"
            )
        stream.window.remaining -= length
        if stream.missing is not None:
            stream.missing -= len(data)
            if stream.missing < 0:
                raise StreamViolation(
                    number, Code.PROTOCOL_ERROR, "more DATA than content-length says"
                )
        if not data and not flags & Flag.END_STREAM:
            self._count_idle(now)
        if not stream.discards:
            stream.window.held += len(data)
            own.held += len(data)
            for message in stream.assembler.take(data):
                self.events.append((What.MESSAGE, stream, message))
                self._moved += WORTH
                if stream.eager:
                    stream.window.held -= len(message) + _PREFIX
                    own.held -= len(message) + _PREFIX
            stream.plain = stream.missing is None and stream.assembler.empty
        if flags & Flag.END_STREAM:
            self._remote_end(stream, [])
        elif not stream.discards:
            self._grant(stream, now)
        self._grant_connection(now)

    def _take_headers(
        self, flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.2."""
        if number % 2 == 0:
            raise ConnectionViolation(Code.PROTOCOL_ERROR, f"HEADERS on stream {number}")
        fields = _unpad(flags, payload, Type.HEADERS)
        if flags & Flag.PRIORITY:
            if len(fields) < 5:
                raise ConnectionViolation(
                    Code.FRAME_SIZE_ERROR, "HEADERS shorter than its priority"
                )
            if WORD.unpack_from(fields)[0] & STREAM == number:
                raise ConnectionViolation(
                    Code.PROTOCOL_ERROR, f"stream {number} depends on itself"
                )
            fields = fields[5:]
        self._continue_block(number, flags, bytearray(fields), 0, flags, now)

    def _take_continuation(
        self, flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.10."""
        if self._block is None:
            raise ConnectionViolation(
                Code.PROTOCOL_ERROR, "CONTINUATION of no header block"
            )
        number, first_flags, block, count = self._block
        self._block = None
        if count == self.limits.continuations:
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM, f"more than {count} CONTINUATION in one block"
            )
        block += payload
        self._continue_block(number, first_flags, block, count + 1, flags, now)

    def _continue_block(
        self,
        number: int,
        first_flags: int,
        block: bytearray,
        count: int,
        flags: int,
        now: float,
    ) -> None:
        """A header block has come so far; take its fields if that was the end."""
        if len(block) > self.limits.header_list:
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM,
                f"a header block of more than {self.limits.header_list} octets",
            )
        if not flags & Flag.END_HEADERS:
            self._block = number, first_flags, block, count
            return
        fields = self._codec.decode(bytes(block))
        end = bool(first_flags & Flag.END_STREAM)
        stream = self.streams.get(number)
        if stream is not None:
            self._take_more_fields(stream, fields, end)
        elif self.client or number <= self._highest:
            self._check_closed(number, Type.HEADERS, now)
        else:
            self._take_request(number, fields, end)

    def _take_request(self, number: int, fields: Headers, end: bool) -> None:
        self._highest = number
        if number > self._refuses_above or len(self.streams) >= self.limits.streams:
            raise StreamViolation(number, Code.REFUSED_STREAM, "no more streams")
        fault = request_fault(fields)
        if fault is not None:
            raise StreamViolation(number, Code.PROTOCOL_ERROR, f"a request with {fault}")
        stream = self._new_stream(number)
        self._last_processed = number
        self._begin_data(stream, fields)
        self.events.append((What.REQUEST, stream, fields))
        if end:
            self._remote_end(stream, [])

    def _take_more_fields(self, stream: Stream, fields: Headers, end: bool) -> None:
        """Take the fields of a response, or trailers."""
        if stream.remote_closed:
            raise StreamViolation(
                stream.id, Code.STREAM_CLOSED, "HEADERS behind the end of a stream"
            )
        begins = self.client and not stream.responded
        fault = response_fault(fields) if begins else trailers_fault(fields)
        if fault is not None:
            raise StreamViolation(
                stream.id, Code.PROTOCOL_ERROR, f"header fields with {fault}"
            )
        if not begins:
            if not end:
                raise StreamViolation(
                    stream.id, Code.PROTOCOL_ERROR, "trailers that do not end the stream"
                )
            self._remote_end(stream, fields)
            return
        if (find(fields, b":status") or b"").startswith(b"1"):
            return  # informational: the response itself follows (section 8.1)
        stream.responded = True
        self._begin_data(stream, fields)
        self.events.append((What.RESPONSE, stream, fields))
        if end:
            self._remote_end(stream, fields)

    @staticmethod
    def _begin_data(stream: Stream, fields: Headers) -> None:
        stream.missing = content_length(fields)
        stream.assembler.encoding = find(fields, b"grpc-encoding") or b"identity"
        stream.plain = stream.missing is None

    def _take_priority(
        self, _flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.3: deprecated, and looked at only for its form."""
        if number == 0:
            raise ConnectionViolation(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            self._fault(number, Code.FRAME_SIZE_ERROR, "PRIORITY of another size than 5")
        if WORD.unpack_from(payload)[0] & STREAM == number:
            self._fault(number, Code.PROTOCOL_ERROR, f"stream {number} depends on itself")
        self._count_idle(now)

    def _fault(self, number: int, code: Code, reason: str) -> None:
        """End the stream if there is one; else, as nothing smaller can, the connection."""
        if number in self.streams:
            raise StreamViolation(number, code, reason)
        raise ConnectionViolation(code, reason)

    def _take_rst_stream(
        self, _flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.4."""
        self._check_size(Type.RST_STREAM, payload, 4)
        self._check_number(number, Type.RST_STREAM)
        stream = self.streams.get(number)
        if stream is None:
            self._count_idle(now)
            return
        (code,) = WORD.unpack(payload)
        if self.client and code == Code.NO_ERROR and stream.remote_closed:
            # The response is complete, and nobody wants the rest of the request.
            self._remove(stream)
            return
        self._count_reset(now)
        self._remove(stream)
        text = f"the stream was reset: {code_name(code)}"
        self.events.append((What.RESET, stream, outcome_of_reset(code, text)))

    def _take_settings(
        self, flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.5."""
        if number:
            raise ConnectionViolation(Code.PROTOCOL_ERROR, f"SETTINGS on stream {number}")
        if flags & Flag.ACK:
            self._check_size(Type.SETTINGS, payload, 0)
            if not self._settled:
                raise ConnectionViolation(Code.PROTOCOL_ERROR, "no SETTINGS first")
            self._count_idle(now)
            return
        self._count_answer(now)
        settings = unpack_settings(bytes(payload))
        if self.client and settings.get(Setting.ENABLE_PUSH):
            raise ConnectionViolation(Code.PROTOCOL_ERROR, "a server enables push")
        sender = self.sender
        for setting, value in settings.items():
            if setting is Setting.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)
            elif setting is Setting.MAX_FRAME_SIZE:
                sender.frame = min(value, self.limits.frame)
            elif setting is Setting.HEADER_TABLE_SIZE:
                self._codec.limit_table(value)
            elif setting is Setting.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
        self._control(Type.SETTINGS, Flag.ACK, 0, b"")
        if not self._settled:
            self._settled = True
            self.events.append((What.READY, None, None))

    def _resize_windows(self, size: int) -> None:
        """Section 6.9.2: the difference counts for every stream, even below zero."""
        change, self._peer_window = size - self._peer_window, size
        for stream in self.streams.values():
            if stream.send_window + change > MAX_WINDOW:
                raise ConnectionViolation(
                    Code.FLOW_CONTROL_ERROR, "a setting that makes a window too large"
                )
            self.sender.widen_stream(stream, change)

    def _take_push_promise(
        self, _flags: int, _number: int, _payload: memoryview, _now: float
    ) -> None:
        """Section 6.6: servers take none, and we as a client have forbidden it."""
        raise ConnectionViolation(Code.PROTOCOL_ERROR, "PUSH_PROMISE is not wanted")

    def _take_ping(self, flags: int, number: int, payload: memoryview, now: float) -> None:
        """Section 6.7."""
        if number:
            raise ConnectionViolation(Code.PROTOCOL_ERROR, f"PING on stream {number}")
        self._check_size(Type.PING, payload, 8)
        if not flags & Flag.ACK:
            self._count_answer(now)
            self._control(Type.PING, Flag.ACK, 0, bytes(payload))
            return
        if self._ping_at is None or int.from_bytes(payload, "big") != self._pings:
            self._count_idle(now)
            return
        self.rtt = now - self._ping_at
        self._ping_at = None
        if self._drain_at != math.inf:
            self._drained()

    def _take_goaway(
        self, _flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.8."""
        if number:
            raise ConnectionViolation(Code.PROTOCOL_ERROR, f"GOAWAY on stream {number}")
        if len(payload) < _GOAWAY.size:
            raise ConnectionViolation(
                Code.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} octets"
            )
        self._count_idle(now)
        last, code = _GOAWAY.unpack_from(payload)
        text = bytes(payload[_GOAWAY.size :][:256]).decode(errors="replace")
        reason = f"{code_name(code)}: {text}" if text else code_name(code)
        if self.going_away is None:
            self.events.append((What.GOAWAY, None, reason))
        self.going_away = reason  # the last one says why the connection ends
        if not self.client:
            return
        for stream in [s for s in self.streams.values() if s.id > last & STREAM]:
            self._remove(stream)
            outcome = Outcome(Status.UNAVAILABLE, f"refused: {reason}")
            self.events.append((What.RESET, stream, outcome))

    def _take_window_update(
        self, _flags: int, number: int, payload: memoryview, now: float
    ) -> None:
        """Section 6.9."""
        self._check_size(Type.WINDOW_UPDATE, payload, 4)
        self._count_idle(now)
        increment = WORD.unpack(payload)[0] & STREAM
        sender = self.sender
        if number == 0:
            if increment == 0:
                raise ConnectionViolation(Code.PROTOCOL_ERROR, "a window widened by 0")
            if sender.window + increment > MAX_WINDOW:
                raise ConnectionViolation(
                    Code.FLOW_CONTROL_ERROR, "the connection's window is too large"
                )
            sender.widen(increment)
            return
        self._check_number(number, Type.WINDOW_UPDATE)
        stream = self.streams.get(number)
        if stream is None:
            return  # it may have crossed the last frame of the stream
        if increment == 0:
            raise StreamViolation(number, Code.PROTOCOL_ERROR, "a window widened by 0")
        if stream.send_window + increment > MAX_WINDOW:
            raise StreamViolation(
                number, Code.FLOW_CONTROL_ERROR, "a stream's window is too large"
            )
        sender.widen_stream(stream, increment)

    @staticmethod
    def _check_size(kind: Type, payload: memoryview, size: int) -> None:
        if len(payload) != size:
            raise ConnectionViolation(
                Code.FRAME_SIZE_ERROR, f"{kind.name} of {len(payload)} octets, not {size}"
            )


_TAKERS: dict[int, Callable[[Connection, int, int, memoryview, float], None]] = {
    Type.DATA: Connection._take_data,
    Type.HEADERS: Connection._take_headers,
    Type.PRIORITY: Connection._take_priority,
    Type.RST_STREAM: Connection._take_rst_stream,
    Type.SETTINGS: Connection._take_settings,
    Type.PUSH_PROMISE: Connection._take_push_promise,
    Type.PING: Connection._take_ping,
    Type.GOAWAY: Connection._take_goaway,
    Type.WINDOW_UPDATE: Connection._take_window_update,
    Type.CONTINUATION: Connection._take_continuation,
}


def _unpad(flags: int, payload: memoryview, kind: Type) -> memoryview:
    """Cut padding off: sections 6.1 and 6.2."""
    if not flags & Flag.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionViolation(
            Code.PROTOCOL_ERROR, f"{kind.name} with more padding than octets"
        )
    return payload[1 : len(payload) - payload[0]]
