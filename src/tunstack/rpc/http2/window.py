"""Flow control towards the other end: RFC 9113, sections 5.2 and 6.9."""

from tunstack.rpc.http2.frame import MAX_WINDOW


class ReceiveWindow:
    """What may still be sent to us, and what we hold of what was.

    The window is given back as octets are used up, never before: whoever does not read
    holds ``size`` octets at most. It grows while it is what limits the other end: when
    half of it is used up within two round trips.

    Args:
        size: octets in flight or held, at first.
        most: where growing ends.
        announced: octets that the other end believes in before we say more.
    """

    __slots__ = ("_granted_at", "_most", "held", "low", "remaining", "size")

    def __init__(self, size: int, most: int, announced: int) -> None:
        self.size = size
        self.low = size // 2
        """With less than so much remaining it is worth looking at :meth:`grant`."""
        self.remaining = announced
        self.held = 0
        """Octets received and not used up."""
        self._most = most
        self._granted_at: float | None = None

    def grant(self, now: float, rtt: float | None, needed: int = 0) -> int:
        """Say how many octets more the other end may send: 0, or worth a frame.

        Args:
            now: seconds.
            rtt: seconds of a round trip, ``None`` when not known.
            needed: octets without which nothing can be used up at all: the rest of a
                message that is larger than the window.
        """
        room = max(self.size - self.held, needed) - self.remaining
        if room < self.low and self.remaining >= needed:
            return 0
        last, self._granted_at = self._granted_at, now
        if rtt is not None and last is not None and now - last < 2 * rtt:
            more = min(2 * self.size, self._most) - self.size
            self.size += more
            self.low = self.size // 2
            room += more
        room = min(room, MAX_WINDOW - self.remaining)
        self.remaining += room
        return room
