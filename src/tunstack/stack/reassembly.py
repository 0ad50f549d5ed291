"""IP fragments become packets again (RFC 791 section 3.2, RFC 8200 section 4.5)."""

import struct

from tunstack import _fastpath
from tunstack.wire.icmp import MAX_QUOTE

TIMEOUT = 30.0
"""Seconds, as Linux has it. On this link all fragments come at once or never."""

MAX_OCTETS = 4 * 1024 * 1024
"""Octets of unfinished packets. Beyond it the oldest goes."""

MAX_PACKETS = 1024
"""Unfinished packets."""

MAX_FRAGMENTS = 512
"""Fragments of one packet: a 64 KiB one at the least MTU of IPv6 has 53."""

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_FRAGMENT = struct.Struct("!BxHI")


class Assembly:
    """The fragments of one packet so far."""

    __slots__ = ("dead", "expires_at", "first", "head", "octets", "pieces", "size")

    def __init__(self, expires_at: float) -> None:
        self.expires_at = expires_at
        self.pieces: dict[int, bytes] = {}
        self.octets = 0
        self.size: int | None = None
        """Octets of the whole payload, once the last fragment is known."""
        self.first: bytes | None = None
        """The first fragment, or as much of it as an ICMP error quotes."""
        self.head: bytes | None = None
        """The IP header that the packet will have."""
        self.dead = False
        """Fragments overlapped: nothing that comes any more may be delivered."""


class Reassembly:
    """Collects fragments, bounded in time and memory.

    Fragments that overlap drop the whole packet, what comes later included (RFC 5722;
    for IPv4 too, RFC 1858 tells why), and so does one that would exceed 65 535 octets.
    """

    def __init__(self) -> None:
        self._assemblies: dict[bytes, Assembly] = {}
        self._octets = 0
        self._evicted = 0

    def deadline(self) -> float | None:
        """Give the time to call :meth:`expire` at."""
        for assembly in self._assemblies.values():
            return assembly.expires_at
        return None

    def take_evicted(self) -> int:
        """Give how many unfinished packets had to go since the last call."""
        evicted, self._evicted = self._evicted, 0
        return evicted

    def add(self, packet: memoryview, payload: int, now: float) -> bytes | None:
        """Take one fragment.

        Args:
            packet: from its IP header on to the end of the fragment.
            payload: where what follows the IPv4 header, or the IPv6 fragment header,
                begins.
            now: the time.

        Returns the whole packet, or ``None`` while it is not whole. Raises
        :class:`ValueError` when the fragment was refused: count it.
        """
        if packet[0] >> 4 == 4:
            name, offset, more, head = self._read4(packet, payload)
        else:
            name, offset, more, head = self._read6(packet, payload)
        piece = bytes(packet[payload:])
        assembly = self._assemblies.get(name)
        if assembly is None:
            assembly = self._assemblies[name] = Assembly(now + TIMEOUT)
        if assembly.dead or not self._fits(assembly, offset, more, piece):
            self._kill(assembly)
            raise ValueError("overlapping or impossible fragment")
        if offset == 0:
            assembly.head = head
            assembly.first = bytes(packet[:MAX_QUOTE])
        if not more:
            assembly.size = offset + len(piece)
        if offset not in assembly.pieces:
            assembly.pieces[offset] = piece
            assembly.octets += len(piece)
            self._octets += len(piece)
        if assembly.head is None or assembly.octets != assembly.size:
            self._bound()
            return None
        self._remove(name)
        text = b"".join(assembly.pieces[at] for at in sorted(assembly.pieces))
        whole = _whole(assembly.head, text)
        if whole is None:
            raise ValueError("longer than a packet can be")
        return whole

    def expire(self, now: float) -> list[bytes | None]:
        """Forget packets that will not become whole.

        Returns the first fragment of each, to be told to its sender, or ``None`` where
        that had not come or no error is due.
        """
        expired: list[bytes | None] = []
        while self._assemblies:
            name, assembly = next(iter(self._assemblies.items()))
            if assembly.expires_at > now:
                break
            self._remove(name)
            expired.append(None if assembly.dead else assembly.first)
        return expired

    @staticmethod
    def _fits(assembly: Assembly, offset: int, more: bool, piece: bytes) -> bool:
        end = offset + len(piece)
        if len(assembly.pieces) >= MAX_FRAGMENTS:
            return False
        if assembly.size is not None and (
            end > assembly.size or (not more and end != assembly.size)
        ):
            return False
        for other, known in assembly.pieces.items():
            if other == offset and known == piece:
                continue  # the same once more
            if other < end and offset < other + len(known):
                return False
            if not more and other + len(known) > end:
                return False
        return True

    @staticmethod
    def _read4(packet: memoryview, payload: int) -> tuple[bytes, int, bool, bytes]:
        fields = _IPV4.unpack_from(packet)
        flags = fields[4]
        name = bytes(packet[12:20]) + bytes(packet[9:10]) + bytes(packet[4:6])
        return name, (flags & 0x1FFF) * 8, bool(flags & 0x2000), bytes(packet[:payload])

    @staticmethod
    def _read6(packet: memoryview, payload: int) -> tuple[bytes, int, bool, bytes]:
        protocol, flags, ident = _FRAGMENT.unpack_from(packet, payload - 8)
        name = bytes(packet[8:40]) + ident.to_bytes(4, "big")
        head = bytearray(packet[:40])
        head[6] = protocol
        return name, flags & 0xFFF8, bool(flags & 1), bytes(head)

    def _kill(self, assembly: Assembly) -> None:
        self._octets -= assembly.octets
        assembly.pieces.clear()
        assembly.octets = 0
        assembly.dead = True

    def _remove(self, name: bytes) -> None:
        self._octets -= self._assemblies.pop(name).octets

    def _bound(self) -> None:
        while self._octets > MAX_OCTETS or len(self._assemblies) > MAX_PACKETS:
            self._remove(next(iter(self._assemblies)))
            self._evicted += 1


def _whole(head: bytes, text: bytes) -> bytes | None:
    """Join header and payload, as a packet that was never cut; ``None`` if too long."""
    fixed = bytearray(head)
    if len(text) + (len(head) if head[0] >> 4 == 4 else 0) > 65_535:
        return None
    if head[0] >> 4 == 6:
        fixed[4:6] = len(text).to_bytes(2, "big")
    else:
        fixed[2:4] = (len(head) + len(text)).to_bytes(2, "big")
        fixed[6:8] = b"\0\0"
        fixed[10:12] = b"\0\0"
        fixed[10:12] = (0xFFFF - _fastpath.sum16(bytes(fixed), 0)).to_bytes(2, "big")
    return bytes(fixed) + text
