"""gRPC's messages in the DATA of a stream: one octet of flags, four of length, the octets.

Source: the gRPC project's protocol description, "Length-Prefixed-Message".
"""

import struct

from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.status import Status
from tunstack.rpc.http2.violation import CallViolation, StreamViolation

PREFIX = struct.Struct(">BI")
"""Whether the message is compressed, and its length."""

FRAME_AND_PREFIX = struct.Struct(">IBIBI")
"""The header of a frame (its length and, in the lowest octet, its type; flags; stream),
and the prefix of the message that begins its DATA."""

FRAMES = 64
"""DATA frames in which any message may come, however short they are."""

OCTETS_PER_FRAME = 256
"""The mean size of the DATA frames of a longer message, at least. Splitting a message
costs the sender little and us a turn each."""

Octets = bytes | bytearray | memoryview


class Assembler:
    """Makes messages of the DATA of one stream.

    Args:
        stream: its number, for complaints.
        limit: octets in one message at most.
    """

    __slots__ = (
        "_frames",
        "_limit",
        "_message",
        "_prefix",
        "_size",
        "_stream",
        "encoding",
    )

    def __init__(self, stream: int, limit: int) -> None:
        self.encoding = b"identity"
        """How the other end says that it compresses messages."""
        self._stream = stream
        self._limit = limit
        self._prefix = bytearray()
        self._message: bytearray | None = None
        self._size = 0
        self._frames = 0

    @property
    def empty(self) -> bool:
        """No message has begun."""
        return self._message is None and not self._prefix

    @property
    def collected(self) -> int:
        """Octets of a message that has begun, its prefix included."""
        if self._message is not None:
            return PREFIX.size + len(self._message)
        return len(self._prefix)

    @property
    def missing(self) -> int:
        """Octets that the message still needs, as far as is known."""
        if self._message is not None:
            return self._size - len(self._message)
        return PREFIX.size - len(self._prefix) if self._prefix else 0

    def take(self, data: memoryview) -> list[memoryview]:
        """Take the DATA of one frame; returns the messages that it completes.

        One that lies whole in ``data`` is a view of it.

        Raises:
            StreamViolation: a message in too small pieces.
            CallViolation: a message that is compressed or too long.
        """
        messages: list[memoryview] = []
        at, end = 0, len(data)
        while at < end:
            if self._message is None:
                at = self._take_prefix(data, at)
                if self._message is None:
                    break
            missing = self._size - len(self._message)
            piece = data[at : at + missing]
            at += len(piece)
            if len(piece) < missing:
                self._message += piece
                break
            if self._message:
                self._message += piece
                messages.append(memoryview(self._message))
            else:
                messages.append(piece)
            self._message = None
            self._frames = 0
        if not self.empty:
            self._count()
        return messages

    def _take_prefix(self, data: memoryview, at: int) -> int:
        """Take what there is of the five octets; returns what lies behind them."""
        piece = data[at : at + PREFIX.size - len(self._prefix)]
        self._prefix += piece
        if len(self._prefix) == PREFIX.size:
            compressed, self._size = PREFIX.unpack(self._prefix)
            self._prefix.clear()
            if compressed:
                self._refuse_compression()
            if self._size > self._limit:
                raise CallViolation(
                    self._stream,
                    Status.RESOURCE_EXHAUSTED,
                    f"a message of {self._size} octets: at most {self._limit}",
                )
            self._message = bytearray()
        return at + len(piece)

    def _refuse_compression(self) -> None:
        """The gRPC project's "Compression": what an end does that takes none."""
        if self.encoding == b"identity":
            raise CallViolation(
                self._stream,
                Status.INTERNAL,
                "a compressed message, although no compression was agreed on",
            )
        raise CallViolation(
            self._stream,
            Status.UNIMPLEMENTED,
            f"messages compressed with {self.encoding.decode('latin-1')} are not taken",
            (("grpc-accept-encoding", "identity"),),
        )

    def _count(self) -> None:
        self._frames += 1
        octets = len(self._message or b"")
        if self._frames > FRAMES + octets // OCTETS_PER_FRAME:
            raise StreamViolation(
                self._stream,
                Code.ENHANCE_YOUR_CALM,
                f"{self._frames} frames for {octets} octets of a message",
            )
