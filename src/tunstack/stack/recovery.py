"""What is known of loss, and what to send again for it (RFC 5681, 6675, 2018).

There is no congestion control here: what bounds the octets on their way is the host's
window. So nothing limits what is sent again once it is known to be lost; only after a
time-out, when nothing is known, retransmission starts slowly (RFC 5681, section 3.1).
"""

from tunstack.stack import seq

DUPLICATE_ACKS = 3
"""RFC 5681, section 3.2."""


class Recovery:
    """The scoreboard of one connection; exists only while something may be lost."""

    __slots__ = ("allowed", "duplicates", "high_rxt", "mark", "point", "sacked")

    def __init__(self) -> None:
        self.sacked: list[tuple[int, int]] = []
        """What the host has beyond SND.UNA: merged, in order."""
        self.duplicates = 0
        """Duplicate acknowledgments since SND.UNA moved."""
        self.point: int | None = None
        """RFC 6675's RecoveryPoint: SND.NXT when loss was noticed; ``None`` before."""
        self.high_rxt = 0
        """Behind the last octet that was sent again."""
        self.mark = 0
        """SND.NXT when the present pass over the holes began."""
        self.allowed: int | None = None
        """After a time-out: octets beyond SND.UNA that may be on their way again."""

    def note(self, una: int, nxt: int, blocks: tuple[tuple[int, int], ...]) -> bool:
        """Take the host's SACK blocks (RFC 6675, Update); tells whether they say news."""
        before = self._octets()
        merged: list[tuple[int, int]] = []
        known = [
            (left, right)
            for left, right in (*self.sacked, *blocks)
            # In what is outstanding: anything else is old, reversed or forged.
            if seq.lt(una, right)
            and seq.lt(left, right)
            and seq.le(una, left)
            and seq.le(right, nxt)
        ]
        for left, right in sorted(known, key=lambda block: seq.sub(block[0], una)):
            if merged and seq.le(left, merged[-1][1]):
                if seq.lt(merged[-1][1], right):
                    merged[-1] = (merged[-1][0], right)
            else:
                merged.append((left, right))
        self.sacked = merged
        return self._octets() > before

    def shows_loss(self, mss: int) -> bool:
        """Whether the octet at SND.UNA is lost: RFC 6675, IsLost; RFC 5681, 3.2."""
        return (
            self.duplicates >= DUPLICATE_ACKS
            or len(self.sacked) >= DUPLICATE_ACKS
            or self._octets() > (DUPLICATE_ACKS - 1) * mss
        )

    def begin(self, una: int, nxt: int) -> None:
        """Loss has been noticed."""
        self.point = self.mark = nxt
        self.high_rxt = una

    def time_out(self, una: int, nxt: int, allowed: int) -> None:
        """Nothing came back: all of it is doubtful, and is sent again slowly.

        Args:
            una, nxt: SND.UNA and SND.NXT.
            allowed: octets to begin with.
        """
        self.begin(una, nxt)
        self.allowed = allowed

    def advance(self, una: int, octets: int) -> bool:
        """SND.UNA has moved by ``octets``; tells whether recovery is over."""
        self.duplicates = 0
        self.sacked = [block for block in self.sacked if seq.lt(una, block[1])]
        if self.point is None:
            return not self.sacked
        if seq.le(self.point, una):
            return True
        if self.allowed is not None:
            self.allowed += octets  # slow start
        if seq.lt(self.high_rxt, una):
            self.high_rxt = una
        return False

    def look_again(self, una: int, nxt: int, mss: int) -> None:
        """Begin another pass when text sent later than a retransmission arrived first.

        That retransmission is lost. Two segments' distance is for those that overtook
        it on the way, as with duplicate acknowledgments.
        """
        if self.sacked and seq.lt(seq.add(self.mark, 2 * mss), self.sacked[-1][1]):
            self.mark = nxt
            self.high_rxt = una

    def next_hole(self, una: int) -> tuple[int, int] | None:
        """Give the first stretch to send (again): RFC 6675, NextSeg rule 1."""
        if self.point is None:
            return None
        left = self.high_rxt if seq.lt(una, self.high_rxt) else una
        for start, end in self.sacked:
            if seq.lt(left, start):
                return left, start
            if seq.lt(left, end):
                left = end
        if self.allowed is None and (self.sacked or left != una):
            # Beyond the highest SACK nothing is known to be lost. Without SACK it is
            # the first segment, and the next when a partial ACK has come (RFC 6582).
            return None
        return (left, self.point) if seq.lt(left, self.point) else None

    def _octets(self) -> int:
        return sum(seq.sub(right, left) for left, right in self.sacked)
