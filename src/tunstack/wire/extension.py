"""IPv6 extension headers: what is wrong with them (RFC 8200, section 4).

The parser refuses what it cannot skip and does not say why. This walks such a packet
again, to tell its sender.
"""

from collections.abc import Iterator

HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT_HEADER, DESTINATION = 0, 43, 44, 59, 60

_EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION))
_KNOWN = frozenset((6, 17, 58))

ERRONEOUS_FIELD, UNKNOWN_HEADER, UNKNOWN_OPTION = 0, 1, 2
"""Codes of an ICMPv6 parameter problem (RFC 4443, section 3.4)."""

_PAYLOAD_LENGTH_AT, _NEXT_HEADER_AT = 4, 6


def upper(packet: bytes) -> tuple[int, int]:
    """Give the protocol behind the extension headers, and where it begins."""
    *_, (protocol, at, _) = _headers(packet)
    return protocol, at


def problem(packet: bytes) -> tuple[int, int] | None:
    """Find what is to be reported of a packet that the parser has refused.

    Args:
        packet: from its IPv6 header on.

    Returns code and pointer of a parameter problem, or ``None`` when the packet is to be
    dropped in silence.
    """
    for protocol, at, named_at in _headers(packet):
        if protocol not in _EXTENSIONS:
            if protocol in _KNOWN or protocol == NO_NEXT_HEADER:
                return None
            return UNKNOWN_HEADER, named_at
        if protocol == HOP_BY_HOP and at != 40:
            return UNKNOWN_HEADER, named_at  # only right behind the IPv6 header
        if len(packet) < at + 8:
            return None
        if protocol == FRAGMENT:
            fragment = int.from_bytes(packet[at + 2 : at + 4], "big")
            if fragment & 0xFFF9:
                return _fragment_problem(packet, at, fragment)
        elif protocol == ROUTING:
            if packet[at + 3]:  # segments left, of a type that nobody here knows
                return ERRONEOUS_FIELD, at + 2
        else:
            found = _option(packet, at + 2, at + 8 + packet[at + 1] * 8)
            if found is not None:
                action, option_at = found
                return None if action == 0x40 else (UNKNOWN_OPTION, option_at)
    return None  # pragma: no cover: the last header is no extension, or cut off


def _headers(packet: bytes) -> Iterator[tuple[int, int, int]]:
    """Give each header: protocol, where it begins, and where it was named."""
    protocol, at, named_at = packet[_NEXT_HEADER_AT], 40, _NEXT_HEADER_AT
    yield protocol, at, named_at
    while protocol in _EXTENSIONS and len(packet) >= at + 8:
        size = 8 if protocol == FRAGMENT else 8 + packet[at + 1] * 8
        protocol, named_at, at = packet[at], at, at + size
        yield protocol, at, named_at


def _fragment_problem(packet: bytes, at: int, fragment: int) -> tuple[int, int] | None:
    """RFC 8200, section 4.5: a length that does not fit."""
    length = len(packet) - at - 8
    if fragment & 1 and length % 8:
        return ERRONEOUS_FIELD, _PAYLOAD_LENGTH_AT
    if at - 40 + (fragment & 0xFFF8) + length > 0xFFFF:
        return ERRONEOUS_FIELD, at + 2
    return None


def _option(packet: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Find the first option that may not be skipped: its action, and where it is."""
    while at < min(end, len(packet)):
        kind = packet[at]
        if kind & 0xC0:
            return kind & 0xC0, at
        if kind == 0:  # Pad1
            at += 1
        elif at + 1 < len(packet):
            at += 2 + packet[at + 1]
        else:
            break
    return None
