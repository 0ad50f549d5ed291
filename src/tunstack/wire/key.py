"""The flow key: 37 octets that name a flow by its packets from the host.

Protocol, source, destination (16 octets each, IPv4 as IPv4-mapped IPv6, RFC 4291
section 2.5.5.2), source port, destination port, in network order. For ICMP echo the
ports are the identifier and 0.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

_PORTS = struct.Struct("!HH")
MAPPED = bytes(10) + b"\xff\xff"


def address(value: IPv4Address | IPv6Address) -> bytes:
    """Give the 16 octets of an address in a key."""
    return value.packed if value.version == 6 else MAPPED + value.packed


def version(key: bytes) -> int:
    """Give the IP version of the flow's packets: 4 or 6."""
    return 4 if key[1:13] == MAPPED else 6


def reverse(key: bytes) -> bytes:
    """Give the key of the packets in the other direction."""
    return key[:1] + key[17:33] + key[1:17] + key[35:37] + key[33:35]


def destination(key: bytes) -> bytes:
    """Give the 16 octets of the address that the host talks to."""
    return key[17:33]


def ports(key: bytes) -> tuple[int, int]:
    """Give source and destination port; for ICMP the identifier and 0."""
    source, target = _PORTS.unpack_from(key, 33)
    return source, target
