"""ICMP and ICMPv6 messages (RFC 792, RFC 4443)."""

import struct
from typing import NamedTuple

from tunstack import _fastpath
from tunstack.wire import extension, ip
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal

ICMP, ICMP6 = 1, 58

ECHO_REQUEST = {ICMP: 8, ICMP6: 128}
ECHO_REPLY = {ICMP: 0, ICMP6: 129}

_MESSAGE = struct.Struct("!BBHHH")

_UNREACHABLE = {
    ICMP: {
        Refusal.NETWORK_UNREACHABLE: (3, 0, 0),
        Refusal.HOST_UNREACHABLE: (3, 1, 0),
        Refusal.PROTOCOL_UNREACHABLE: (3, 2, 0),
        Refusal.REFUSED: (3, 3, 0),
        Refusal.PROHIBITED: (3, 13, 0),
    },
    # Linux makes EHOSTUNREACH of 1/3 and EACCES of 1/1; 4/1 points at the octet of
    # the next header.
    ICMP6: {
        Refusal.NETWORK_UNREACHABLE: (1, 0, 0),
        Refusal.HOST_UNREACHABLE: (1, 3, 0),
        Refusal.PROTOCOL_UNREACHABLE: (4, 1, 6),
        Refusal.REFUSED: (1, 4, 0),
        Refusal.PROHIBITED: (1, 1, 0),
    },
}
"""Type, code and the number behind the checksum."""

_TIME_EXCEEDED = {ICMP: (11, 1, 0), ICMP6: (3, 1, 0)}
"""In reassembly."""

_QUOTE_4 = 576 - 20 - 8
"""Octets quoted: RFC 1812, section 4.3.2.3."""

_QUOTE_6 = 1280 - 40 - 8
"""RFC 4443, section 2.4 (c)."""

MAX_QUOTE = _QUOTE_6
"""Octets of a packet that any error quotes."""

_ERRORS_4 = frozenset((3, 4, 5, 11, 12))
_LAST_ERROR_6 = 127

TOO_BIG = {ICMP: frozenset(((3, 4),)), ICMP6: frozenset(((2, 0),))}
"""Type and code of what :func:`too_big` reads."""

_LEAST_MTU = {ICMP: 552, ICMP6: 1280}
"""Less is not believed: Linux's ``min_pmtu``, RFC 8201 section 4."""


class TooBig(NamedTuple):
    """A segment that was too large for a link on its way."""

    key: bytes
    """Of the flow, as its packets from the host have it."""
    seq: int
    """Sequence number of the segment."""
    mtu: int
    """Of that link, in octets."""


def echo_reply(key: bytes, sequence: int, data: bytes, ident: int) -> bytes:
    """Build the packet that answers echo request ``sequence`` of the flow ``key``.

    Args:
        key: of the request.
        sequence: of the request.
        data: what the target sent back.
        ident: as in :func:`tunstack.wire.ip.header`.
    """
    identifier, _ = flow_key.ports(key)
    fields = (ECHO_REPLY[key[0]], 0, identifier, sequence)
    return _packet(key[0], key[17:33], key[1:17], fields, data, ident)


def unreachable(refusal: Refusal, offender: bytes) -> bytes | None:
    """Build the packet that tells a sender why its packet did not arrive.

    Args:
        refusal: one of those that ICMP can say.
        offender: the packet, from its IP header on, sane enough to have been parsed, or
            the first :data:`MAX_QUOTE` octets of it.

    Returns ``None`` where no error may be sent: about ICMP errors, later fragments and
    packets that were not for or from one host (RFC 1122 section 3.2.2, RFC 4443
    section 2.4 (e)).
    """
    return _error(offender, _UNREACHABLE[_protocol(offender)][refusal])


def time_exceeded(first: bytes) -> bytes | None:
    """Build the packet that tells a sender that fragments are missing.

    Args:
        first: the fragment with offset 0, as for :func:`unreachable`.

    Sources: RFC 792, RFC 4443 section 3.3. ``None`` as in :func:`unreachable`.
    """
    return _error(first, _TIME_EXCEEDED[_protocol(first)])


def not_understood(offender: bytes) -> bytes | None:
    """Build the packet that tells a sender which field of its packet makes no sense here.

    Args:
        offender: as for :func:`unreachable`; of an unknown protocol, or with extension
            headers or fragments that the parser refused.

    Sources: RFC 1122 section 3.2.2.1, RFC 8200 section 4. ``None`` where the field asks
    for silence, and as in :func:`unreachable`.
    """
    if _protocol(offender) == ICMP:
        at_fault = offender[9] not in (ICMP, 6, 17)
        fields = _UNREACHABLE[ICMP][Refusal.PROTOCOL_UNREACHABLE]
        return _error(offender, fields) if at_fault else None
    problem = extension.problem(offender)
    return None if problem is None else _error(offender, (4, *problem))


def too_big(protocol: int, message: bytes) -> TooBig | None:
    """Read what a router says of a segment (RFC 1191 section 4, RFC 4443 section 3.2).

    Args:
        protocol: ICMP or ICMP6.
        message: from type to the end of what is quoted; its checksum was right.

    Returns ``None`` when what is quoted is no TCP segment.
    """
    quote = message[8:]
    if protocol == ICMP:
        mtu = int.from_bytes(message[6:8], "big")
        at = (quote[0] & 15) * 4 if quote else 0
        if at < 20 or len(quote) < at + 8 or quote[9] != 6 or quote[0] >> 4 != 4:
            return None
        addresses = flow_key.MAPPED + quote[16:20] + flow_key.MAPPED + quote[12:16]
    else:
        mtu = int.from_bytes(message[4:8], "big")
        at = 40
        if len(quote) < at + 8 or quote[6] != 6 or quote[0] >> 4 != 6:
            return None
        addresses = quote[24:40] + quote[8:24]
    ports = quote[at + 2 : at + 4] + quote[at : at + 2]
    seq = int.from_bytes(quote[at + 4 : at + 8], "big")
    return TooBig(b"\x06" + addresses + ports, seq, max(mtu, _LEAST_MTU[protocol]))


def _protocol(packet: bytes) -> int:
    return ICMP if packet[0] >> 4 == 4 else ICMP6


def _error(offender: bytes, fields: tuple[int, int, int]) -> bytes | None:
    kind, code, number = fields
    protocol = _protocol(offender)
    if protocol == ICMP:
        if int.from_bytes(offender[6:8], "big") & 0x1FFF or _is_error4(offender):
            return None
        source, destination = (
            flow_key.MAPPED + offender[12:16],
            flow_key.MAPPED + offender[16:20],
        )
        quote = offender[:_QUOTE_4]
    else:
        upper, at = extension.upper(offender)
        if upper == ICMP6 and offender[at : at + 1] <= bytes((_LAST_ERROR_6,)):
            return None
        source, destination = offender[8:24], offender[24:40]
        quote = offender[:_QUOTE_6]
    return _packet(
        protocol, destination, source, (kind, code, number >> 16, number & 0xFFFF), quote
    )


def _is_error4(packet: bytes) -> bool:
    at = (packet[0] & 15) * 4
    return packet[9] == ICMP and (len(packet) <= at or packet[at] in _ERRORS_4)


def _packet(
    protocol: int,
    source: bytes,
    destination: bytes,
    fields: tuple[int, int, int, int],
    data: bytes,
    ident: int = 0,
) -> bytes:
    kind, code, first, second = fields
    message = _MESSAGE.pack(kind, code, 0, first, second) + data
    partial = 0
    if protocol == ICMP6:
        partial = ip.pseudo_sum(protocol, source, destination, len(message))
    total = 0xFFFF - _fastpath.sum16(message, partial)
    message = message[:2] + total.to_bytes(2, "big") + message[4:]
    return ip.header(protocol, source, destination, len(message), ident) + message
