"""IP headers for packets that are not made by the kernels, and fragments."""

import struct

from tunstack import _fastpath
from tunstack.wire.key import MAPPED

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_FRAGMENT = struct.Struct("!BxHI")

TTL = 64
MINIMUM_MTU_6 = 1280
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
FRAGMENT_PROTOCOL = 44


def is_v4(address: bytes) -> bool:
    """Whether 16 octets are an IPv4-mapped address."""
    return address[:12] == MAPPED


def header(
    protocol: int, source: bytes, destination: bytes, length: int, ident: int = 0
) -> bytes:
    """Build an IP header (RFC 791 section 3.1, RFC 8200 section 3).

    Args:
        protocol: what follows.
        source, destination: 16 octets each, both IPv4-mapped or neither.
        length: octets that follow.
        ident: IPv4 identification of a packet that routers may cut; with 0, DF is set
            (RFC 6864, section 4).
    """
    if not is_v4(source):
        return _IPV6.pack(6 << 28, length, protocol, TTL, source, destination)
    flags = 0 if ident else DONT_FRAGMENT
    return _header4(protocol, source[12:], destination[12:], length, ident, flags)


def _header4(
    protocol: int, source: bytes, destination: bytes, length: int, ident: int, flags: int
) -> bytes:
    fields = (0x45, 0, 20 + length, ident, flags, TTL, protocol)
    total = _fastpath.sum16(_IPV4.pack(*fields, 0, source, destination), 0)
    return _IPV4.pack(*fields, 0xFFFF - total, source, destination)


def pseudo_sum(protocol: int, source: bytes, destination: bytes, length: int) -> int:
    """Sum the pseudo header of a transport checksum (RFC 9293 3.1, RFC 8200 8.1).

    One formula serves both versions: the octets that make an address IPv4-mapped are
    left out.
    """
    if is_v4(source):
        source, destination = source[12:], destination[12:]
    data = source + destination + struct.pack("!II", length, protocol)
    return _fastpath.sum16(data, 0)


def fragment(packet: bytes, mtu: int, ident: int) -> list[bytes]:
    """Cut a packet without options or extension headers into fragments.

    Args:
        packet: from its IP header on; cut whatever its DF says.
        mtu: octets in one fragment at most.
        ident: identification, to be unique among recent ones.

    Sources: RFC 791 section 2.3, RFC 8200 section 4.5.
    """
    if packet[0] >> 4 == 4:
        return _fragment4(packet, mtu, ident)
    return _fragment6(packet, mtu, ident)


def _fragment4(packet: bytes, mtu: int, ident: int) -> list[bytes]:
    protocol, source, destination = packet[9], packet[12:16], packet[16:20]
    text = packet[20:]
    step = (mtu - 20) & ~7
    fragments = []
    for at in range(0, len(text), step):
        piece = text[at : at + step]
        more = MORE_FRAGMENTS if at + step < len(text) else 0
        head = _header4(protocol, source, destination, len(piece), ident, more | at >> 3)
        fragments.append(head + piece)
    return fragments


def _fragment6(packet: bytes, mtu: int, ident: int) -> list[bytes]:
    protocol, source, destination = packet[6], packet[8:24], packet[24:40]
    text = packet[40:]
    step = (mtu - 48) & ~7
    fragments = []
    for at in range(0, len(text), step):
        piece = text[at : at + step]
        more = at + step < len(text)
        extension = _FRAGMENT.pack(protocol, at | more, ident)
        head = header(FRAGMENT_PROTOCOL, source, destination, 8 + len(piece))
        fragments.append(head + extension + piece)
    return fragments
