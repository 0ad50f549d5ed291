"""What leaves next: frames that have no window first, then the streams by turns.

Nothing is made before it can be sent. A stream is asked for its next message when the
connection has room and not before, so whatever decides about order decides late.
"""

from collections import deque
from collections.abc import Callable

from tunstack.rpc.http2.budget import WORTH
from tunstack.rpc.http2.frame import HEADER, Flag, Type, pack
from tunstack.rpc.http2.headers import HeaderCodec
from tunstack.rpc.http2.message import FRAME_AND_PREFIX, PREFIX, Octets
from tunstack.rpc.http2.settings import DEFAULT_WINDOW, MIN_FRAME
from tunstack.rpc.http2.stream import Stream

_JOINED = 16 * 1024
"""A message up to so many octets is copied behind its header: one piece to write."""

_PREFIX = PREFIX.size
_pack = FRAME_AND_PREFIX.pack


class Sender:
    """The sending half of a connection.

    Args:
        codec: compresses trailers, in the order in which they leave.
        ended: called when a stream's last frame is on its way.
        blocked: called with the time when one meets a closed window.
    """

    def __init__(
        self,
        codec: HeaderCodec,
        ended: Callable[[Stream], None],
        blocked: Callable[[float], None],
    ) -> None:
        self.control = bytearray()
        """Frames that no window holds back."""
        self.window = DEFAULT_WINDOW
        """Octets of DATA that the connection may carry."""
        self.frame = MIN_FRAME
        """Octets in one frame at most."""
        self.moved = 0
        """Octets of DATA sent so far, and :data:`WORTH` for each message."""
        self.blocked: set[Stream] = set()
        """Streams that have something to say and no window."""
        self._codec = codec
        self._ended = ended
        self._blocked = blocked
        self.ready: deque[Stream] = deque()
        """Streams that may have something to say."""

    @property
    def pending(self) -> bool:
        """Whether :meth:`output` may have something to give."""
        return bool(self.control or self.ready)

    def wake(self, stream: Stream) -> None:
        """A stream may have something to say; cheap to repeat."""
        if not stream.ready and not stream.local_closed:
            stream.ready = True
            self.ready.append(stream)

    def forget(self, stream: Stream) -> None:
        """Send nothing more of a stream."""
        stream.local_closed = True
        stream.rest = None
        stream.ending = None
        self.blocked.discard(stream)
        if stream.ready:
            stream.ready = False
            self.ready.remove(stream)

    def headers(self, stream: Stream, fields: list[tuple[bytes, bytes]]) -> None:
        """Send a list of fields, in as many frames as it takes."""
        self.control += self._header_frames(stream, fields)

    def _header_frames(
        self, stream: Stream, fields: list[tuple[bytes, bytes]], flags: int = 0
    ) -> bytes:
        block = self._codec.encode(fields)
        pieces = [block[at : at + MIN_FRAME] for at in range(0, len(block), MIN_FRAME)] or [
            b""
        ]
        frames = []
        for index, piece in enumerate(pieces):
            kind = Type.CONTINUATION if index else Type.HEADERS
            last = Flag.END_HEADERS if index == len(pieces) - 1 else 0
            frames.append(pack(kind, last | (0 if index else flags), stream.id, piece))
        return b"".join(frames)

    def output(self, room: int, now: float) -> list[Octets]:
        """Give what is to be written next.

        Args:
            room: octets of DATA after which no other frame is begun.
            now: seconds.
        """
        chunks: list[Octets] = []
        if self.control:
            chunks.append(self.control)
            self.control = bytearray()
        ready = self.ready
        while ready and room > 0:
            stream = ready[0]
            sent = 0
            if stream.rest is not None:
                sent = self._send_part(stream, stream.rest, chunks, now)
            elif (message := stream.pull()) is None:
                if stream.ending is not None:
                    self._end(stream, stream.ending, chunks)
            elif not stream.local_closed:  # by whoever was asked
                lead, body = message if isinstance(message, tuple) else (b"", message)
                size = len(lead) + len(body)
                sent = size + _PREFIX
                if (
                    sent <= stream.send_window
                    and sent <= self.window
                    and sent <= self.frame
                ):
                    stream.send_window -= sent
                    self.window -= sent
                    self.moved += sent + WORTH
                    header = _pack(sent << 8, 0, stream.id, 0, size)
                    if size <= _JOINED:
                        chunks.append(b"".join((header, lead, body)))
                    else:
                        chunks += (header + lead, body)
                else:
                    stream.prefix = PREFIX.pack(0, size) + lead
                    stream.rest = memoryview(body)
                    sent = self._send_part(stream, stream.rest, chunks, now)
            if sent:
                room -= sent
                if len(ready) > 1 and ready[0] is stream:
                    ready.rotate(-1)
            elif stream.ready:
                ready.remove(stream)
                stream.ready = False
        return chunks

    def _send_part(
        self, stream: Stream, rest: memoryview, chunks: list[Octets], now: float
    ) -> int:
        """Send as much of a message as windows and frame size allow."""
        room = min(stream.send_window, self.window, self.frame)
        if room <= 0:
            self.blocked.add(stream)
            if stream.blocked_at is None:
                stream.blocked_at = now
                self._blocked(now)
            return 0
        stream.blocked_at = None
        prefix, stream.prefix = stream.prefix[:room], stream.prefix[room:]
        body = rest[: room - len(prefix)]
        length = len(prefix) + len(body)
        stream.send_window -= length
        self.window -= length
        self.moved += length
        header = HEADER.pack(length >> 16, length & 0xFFFF, Type.DATA, 0, stream.id)
        chunks += (header + prefix, body)
        whole = len(body) == len(rest) and not stream.prefix
        stream.rest = None if whole else rest[len(body) :]
        if whole:
            self.moved += WORTH
        return length

    def _end(
        self, stream: Stream, fields: list[tuple[bytes, bytes]], chunks: list[Octets]
    ) -> None:
        """Send a stream's last frame."""
        if fields:
            chunks.append(self._header_frames(stream, fields, Flag.END_STREAM))
        else:
            chunks.append(pack(Type.DATA, Flag.END_STREAM, stream.id))
        self.forget(stream)
        self._ended(stream)

    def widen(self, increment: int) -> None:
        """The connection may carry more: so may the streams that waited for it."""
        self.window += increment
        for stream in self.blocked:
            self.wake(stream)
        self.blocked.clear()

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """A stream may carry more; or less, by a setting."""
        stream.send_window += increment
        if stream in self.blocked:
            self.blocked.discard(stream)
            self.wake(stream)

    @property
    def blocked_since(self) -> float | None:
        """Since when the one longest kept back has been waiting for a window."""
        times = [stream.blocked_at for stream in self.blocked]
        return min((time for time in times if time is not None), default=None)
