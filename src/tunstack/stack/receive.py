"""Text that came before what precedes it."""

from tunstack.stack import seq

MAX_BLOCKS = 256
"""Blocks held per connection, with holes between them. A segment that would make one
more is dropped, and the host sends it again: segments of single octets are cheap to
send and dear to keep (CVE-2018-5390)."""


class OutOfOrder:
    """Blocks beyond RCV.NXT, sorted, without overlap, each as long as can be.

    They lie inside the window, so the window bounds their octets. Octets that came twice
    are kept as they came first.
    """

    __slots__ = ("_blocks", "_recent", "octets")

    def __init__(self) -> None:
        self._blocks: list[tuple[int, bytearray]] = []
        self._recent: list[tuple[int, bytearray]] = []
        """The same, the one that grew last first."""
        self.octets = 0
        """Octets held."""

    def __len__(self) -> int:
        return len(self._blocks)

    def insert(self, nxt: int, start: int, text: memoryview) -> bool:
        """Keep what is new of a segment.

        Args:
            nxt: RCV.NXT.
            start: sequence number of the first octet, behind ``nxt``.
            text: copied as far as it is kept.

        Returns whether it was kept; false when there are too many blocks.
        """
        blocks = self._blocks
        begin = seq.sub(start, nxt)
        end = begin + len(text)
        # Those that touch the text are blocks[first:last]; most text comes at the end.
        last = len(blocks)
        while last and seq.sub(blocks[last - 1][0], nxt) > end:
            last -= 1
        first = last
        while first and self._right(blocks[first - 1], nxt) >= begin:
            first -= 1
        if first == last and len(blocks) >= MAX_BLOCKS:
            return False
        touching = blocks[first:last]
        for block in touching:
            self._recent.remove(block)
        if touching and seq.sub(touching[0][0], nxt) <= begin:
            at, joined = touching.pop(0)
        else:
            at, joined = start, bytearray()
        held = len(joined)
        right = seq.sub(at, nxt) + held
        for left, later in touching:
            gap = seq.sub(left, nxt) - right
            joined += text[right - begin : right - begin + gap]
            joined += later
            held += len(later)
            right += gap + len(later)
        if right < end:
            joined += text[right - begin :]
        grown = at, joined
        blocks[first:last] = [grown]
        self.octets += len(joined) - held
        self._recent.insert(0, grown)
        return True

    def pop(self, nxt: int) -> bytes | None:
        """Give the block that begins at RCV.NXT, or what of an older one lies behind it."""
        while self._blocks:
            start, block = first = self._blocks[0]
            if seq.lt(nxt, start):
                return None
            del self._blocks[0]
            self._recent.remove(first)
            self.octets -= len(block)
            old = seq.sub(nxt, start)
            if old < len(block):
                return bytes(memoryview(block)[old:])
        return None

    def sack_blocks(self, most: int, skip: int = 0) -> tuple[tuple[int, int], ...]:
        """Give the blocks to report (RFC 2018, section 4): the latest one first.

        Args:
            most: blocks in one segment.
            skip: later ones, which further segments report.
        """
        return tuple(
            (left, seq.add(left, len(block)))
            for left, block in self._recent[skip : skip + most]
        )

    @staticmethod
    def _right(block: tuple[int, bytearray], nxt: int) -> int:
        return seq.sub(block[0], nxt) + len(block[1])
