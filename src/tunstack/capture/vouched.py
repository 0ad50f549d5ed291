"""Packets as a device with offload hands them over.

What is captured on the host that sends has checksums that its network card was yet to
fill in, and a capture of the loopback device has addresses that no device carries. Neither
is a fault of the stream that is to be replayed.
"""

from tunstack import _fastpath
from tunstack.wire import key as flow_key

VNET = 10
"""Octets of virtio header before each packet."""

_DATA_VALID = bytes((2,)) + bytes(VNET - 1)
"""virtio 1.2, section 5.1.6: the transport checksum is right; nothing to be cut."""

_LOOPBACK4, _STAND_IN4 = 127, 240
"""First octets: 127.0.0.0/8, and what RFC 1112 reserves and nobody has."""

_LOOPBACK6 = bytes(15) + b"\x01"
_STAND_IN6 = b"\x3f\xff" + _LOOPBACK6[2:]
"""Of the addresses for documentation (RFC 9637)."""


def vouch(packet: bytes) -> bytearray:
    """Give a packet behind a virtio header that vouches for its checksums.

    The header checksum of IPv4, which no virtio header can vouch for, is made right, and
    loopback addresses are replaced; :func:`recorded` gives them back.
    """
    whole = bytearray(_DATA_VALID + packet)
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        for at in (VNET + 12, VNET + 16):
            if whole[at] == _LOOPBACK4:
                whole[at] = _STAND_IN4
        size = (packet[0] & 15) * 4
        if size <= len(packet):
            whole[VNET + 10 : VNET + 12] = b"\0\0"
            total = _fastpath.sum16(bytes(whole[VNET : VNET + size]), 0)
            whole[VNET + 10 : VNET + 12] = (0xFFFF - total).to_bytes(2, "big")
    elif version == 6 and len(packet) >= 40:
        for at in (VNET + 8, VNET + 24):
            if whole[at : at + 16] == _LOOPBACK6:
                whole[at : at + 16] = _STAND_IN6
    return whole


def recorded(address: bytes) -> bytes:
    """Give the address that was captured: 16 octets, as in a flow key."""
    if address == _STAND_IN6:
        return _LOOPBACK6
    if address[:12] == flow_key.MAPPED and address[12] == _STAND_IN4:
        return address[:12] + bytes((_LOOPBACK4,)) + address[13:]
    return address
