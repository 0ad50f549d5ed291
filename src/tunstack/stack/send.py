"""What is sent to the host and not acknowledged yet.

One queue with three marks: acknowledged (its head), sent (:attr:`SendQueue.sent`), and
its end. It keeps views of the messages that the octets came in, so sending copies
nothing.
"""

MAX_VIEWS = 256
"""Views in one packet: well under IOV_MAX."""


class SendQueue:
    """The text between SND.UNA and the last octet that the cluster sent."""

    __slots__ = ("_at", "_chunks", "_head", "_next", "_next_at", "sent", "size")

    def __init__(self) -> None:
        self._chunks: list[memoryview | None] = []
        self._head = 0  # first chunk with octets that are not acknowledged
        self._at = 0  # octets of it that are
        self._next = 0  # chunk to send from next
        self._next_at = 0
        self.size = 0
        """Octets held."""
        self.sent = 0
        """Octets of those that have been sent at least once."""

    def append(self, view: memoryview) -> None:
        """Add text behind the end."""
        self._chunks.append(view)
        self.size += len(view)

    def take(self, most: int) -> list[memoryview]:
        """Give up to ``most`` octets that were never sent; marks them as sent."""
        views: list[memoryview] = []
        chunks, index, at = self._chunks, self._next, self._next_at
        left = most
        while left and index < len(chunks) and len(views) < MAX_VIEWS:
            chunk = chunks[index]
            assert chunk is not None
            rest = len(chunk) - at
            if rest > left:
                views.append(chunk[at : at + left])
                at += left
                left = 0
            else:
                views.append(chunk[at:] if at else chunk)
                left -= rest
                index += 1
                at = 0
        self._next, self._next_at = index, at
        self.sent += most - left
        return views

    def peek(self, offset: int, most: int) -> list[memoryview]:
        """Give up to ``most`` octets from ``offset`` octets behind SND.UNA, sent before."""
        views: list[memoryview] = []
        index = self._head
        skip = offset + self._at
        left = min(most, self.sent - offset)
        while left > 0 and len(views) < MAX_VIEWS:
            chunk = self._chunks[index]
            assert chunk is not None
            index += 1
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            piece = chunk[skip : skip + left]
            skip = 0
            left -= len(piece)
            views.append(piece)
        return views

    def acknowledge(self, octets: int) -> None:
        """Forget the first ``octets``, which were sent."""
        self.size -= octets
        self.sent -= octets
        chunks = self._chunks
        octets += self._at
        while octets:
            chunk = chunks[self._head]
            assert chunk is not None
            if octets < len(chunk):
                break
            octets -= len(chunk)
            chunks[self._head] = None
            self._head += 1
        self._at = octets
        if self._head == len(chunks):
            chunks.clear()
            self._head = self._next = 0
        elif self._head > 64 and self._head * 2 > len(chunks):
            del chunks[: self._head]
            self._next -= self._head
            self._head = 0
