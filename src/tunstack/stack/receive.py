"""Text that came before what precedes it."""

from tunstack.stack import seq

MAX_SEGMENTS = 512
"""Pieces held per connection. What comes beyond is dropped; the host sends it again."""


class OutOfOrder:
    """Pieces beyond RCV.NXT, sorted and without overlap.

    They lie inside the window, so the window bounds their octets. Octets that came twice
    are kept as they came first.
    """

    __slots__ = ("_latest", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes]] = []
        self._latest = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def insert(self, nxt: int, start: int, text: memoryview) -> bool:
        """Keep what is new of a segment.

        Args:
            nxt: RCV.NXT.
            start: sequence number of the first octet, behind ``nxt``.
            text: copied as far as it is kept.

        Returns whether it was kept; false when there are too many pieces.
        """
        self._latest = start
        begin = seq.sub(start, nxt)
        end = begin + len(text)
        kept: list[tuple[int, bytes]] = []
        at = begin
        for other, piece in self._pieces:
            left = seq.sub(other, nxt)
            right = left + len(piece)
            if at < min(left, end):
                gap = bytes(text[at - begin : min(left, end) - begin])
                kept.append((seq.add(nxt, at), gap))
            at = max(at, right)
            kept.append((other, piece))
        if at < end:
            kept.append((seq.add(nxt, at), bytes(text[at - begin :])))
        if len(kept) > MAX_SEGMENTS:
            return False
        self._pieces = kept
        return True

    def pop(self, nxt: int) -> bytes | None:
        """Give the piece that begins at RCV.NXT, or what of an older one lies behind it."""
        while self._pieces:
            start, piece = self._pieces[0]
            if seq.lt(nxt, start):
                return None
            del self._pieces[0]
            old = seq.sub(nxt, start)
            if old < len(piece):
                return piece[old:]
        return None

    def sack_blocks(self, most: int) -> tuple[tuple[int, int], ...]:
        """Give the blocks to report (RFC 2018, section 4): the latest one first."""
        blocks: list[tuple[int, int]] = []
        for start, piece in self._pieces:
            end = seq.add(start, len(piece))
            if blocks and blocks[-1][1] == start:
                blocks[-1] = (blocks[-1][0], end)
            else:
                blocks.append((start, end))
        for index, (left, right) in enumerate(blocks):
            if seq.le(left, self._latest) and seq.lt(self._latest, right):
                blocks.insert(0, blocks.pop(index))
                break
        return tuple(blocks[:most])
