"""Memory that a connection receives into, so that frames are whole where they lie."""

from tunstack.rpc.http2.frame import HEADER

_FIRST = 64 * 1024
"""Octets at first: what most connections need."""


class Inbox:
    """What has arrived and is not used up, one behind the other in one piece of memory.

    It grows for frames that do not fit and for reads that fill it, up to two frames.

    Args:
        frame: octets in one frame at most.
    """

    __slots__ = ("_most", "_size", "end", "start", "view")

    def __init__(self, frame: int) -> None:
        self._most = 2 * (frame + HEADER.size)
        self._size = min(_FIRST, self._most)
        self.view = memoryview(bytearray(self._size))
        self.start = self.end = 0
        """Where what has arrived begins in :attr:`view`, and what lies behind it."""

    def room(self, _sizehint: int = -1) -> memoryview:
        """Give memory to receive into, never empty.

        What lies there changes then, under whoever still has a view of it.
        """
        if self.start == self.end:
            if self.end == self._size < self._most:
                # A bulk transfer fills it: fewer, larger reads.
                self._move(min(2 * self._size, self._most))
            self.start = self.end = 0
            return self.view
        needed = self._needed()
        if needed > self._size:
            self._move(min(max(2 * self._size, needed), self._most))
        elif self.start + needed > self._size:
            self._move(self._size)
        return self.view[self.end :]

    def _needed(self) -> int:
        """Octets of the frame that has begun to arrive, and one more."""
        if self.end - self.start < HEADER.size:
            return HEADER.size + 1
        high, low, *_ = HEADER.unpack_from(self.view, self.start)
        return int(high << 16 | low) + HEADER.size + 1

    def _move(self, size: int) -> None:
        """Bring what is there to the beginning of memory of ``size`` octets."""
        waiting = self.view[self.start : self.end]
        if size != self._size:
            self._size = size
            self.view = memoryview(bytearray(size))
        self.view[: len(waiting)] = waiting
        self.start, self.end = 0, len(waiting)
