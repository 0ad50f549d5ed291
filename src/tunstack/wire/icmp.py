"""ICMP and ICMPv6 messages (RFC 792, RFC 4443)."""

import struct

from tunstack import _fastpath
from tunstack.wire import ip
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

_QUOTE_4 = 576 - 20 - 8
"""Octets quoted: RFC 1812, section 4.3.2.3."""

_QUOTE_6 = 1280 - 40 - 8
"""RFC 4443, section 2.4 (c)."""

_ERRORS_4 = frozenset((3, 4, 5, 11, 12))
_LAST_ERROR_6 = 127


def echo_request(key: bytes, sequence: int, data: bytes) -> bytes:
    """Build the echo request ``sequence`` of the flow ``key``."""
    return _echo(ECHO_REQUEST, key[1:17], key[17:33], key, sequence, data)


def echo_reply(key: bytes, sequence: int, data: bytes, ident: int) -> bytes:
    """Build the packet that answers echo request ``sequence`` of the flow ``key``.

    Args:
        key: of the request.
        sequence: of the request.
        data: what the target sent back.
        ident: as in :func:`tunstack.wire.ip.header`.
    """
    return _echo(ECHO_REPLY, key[17:33], key[1:17], key, sequence, data, ident)


def _echo(
    kind: dict[int, int],
    source: bytes,
    destination: bytes,
    key: bytes,
    sequence: int,
    data: bytes,
    ident: int = 0,
) -> bytes:
    identifier, _ = flow_key.ports(key)
    fields = (kind[key[0]], 0, identifier, sequence)
    return _packet(key[0], source, destination, fields, data, ident)


def unreachable(refusal: Refusal, offender: bytes) -> bytes | None:
    """Build the packet that tells a sender why its packet did not arrive.

    Args:
        refusal: one of those that ICMP can say.
        offender: the packet, from its IP header on, sane enough to have been parsed.

    Returns ``None`` where no error may be sent: about ICMP errors, later fragments and
    packets that were not for or from one host (RFC 1122 section 3.2.2, RFC 4443
    section 2.4 (e)).
    """
    version = offender[0] >> 4
    protocol = ICMP if version == 4 else ICMP6
    kind, code, number = _UNREACHABLE[protocol][refusal]
    if version == 4:
        if int.from_bytes(offender[6:8], "big") & 0x1FFF or _is_error4(offender):
            return None
        source, destination = (
            flow_key.MAPPED + offender[12:16],
            flow_key.MAPPED + offender[16:20],
        )
        quote = offender[:_QUOTE_4]
    else:
        if offender[6] == ICMP6 and offender[40:41] <= bytes((_LAST_ERROR_6,)):
            return None
        source, destination = offender[8:24], offender[24:40]
        quote = offender[:_QUOTE_6]
    fields = (kind, code, number >> 16, number & 0xFFFF)
    return _packet(protocol, destination, source, fields, quote)


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
