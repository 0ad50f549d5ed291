"""Mux frames: what travels inside one message of the tunnel's stream.

``docs/protocol.md`` specifies them. A frame is a header of 8 octets, kind (8 bits),
payload length (24 bits) and flow (32 bits) in network order, and the payload.
"""

import struct
from enum import IntEnum

HEADER = struct.Struct("!II")
"""``kind << 24 | length``, flow."""

LENGTH = 0xFF_FFFF
"""The part of a header's first word that is the length."""

MAX_PAYLOAD = 65_536
"""Octets in one frame: more is a violation of the protocol."""

MAX_MESSAGE = 256 * 1024
"""Octets of frames in one message that we make: the size at which gRPC is fastest."""

OPEN = struct.Struct("!BBHI16s")
"""Protocol (6, 17, 1 or 58), 0, port, credit, address (IPv4 as IPv4-mapped)."""

CREDIT = struct.Struct("!I")
"""Octets. The payload of OPENED and of CREDIT."""

REASON = struct.Struct("!B")
"""A :class:`Refusal`. First octet of REFUSED, RESET and UNREACHABLE; text follows."""

SEQUENCE = struct.Struct("!H")
"""Sequence number of an ICMP echo. The first octets of ECHO; the data follows."""

COUNT = struct.Struct("!Q")
"""Messages received so far. The payload of ACK."""


class Kind(IntEnum):
    """What a frame says. Flow 0 is the session itself."""

    OPEN = 1
    OPENED = 2
    REFUSED = 3
    DATA = 4
    CREDIT = 5
    FIN = 6
    RESET = 7
    DATAGRAM = 8
    ECHO = 9
    UNREACHABLE = 10
    ACK = 11


class Refusal(IntEnum):
    """Why a flow does not come about, ends, or did not reach its target."""

    UNSPECIFIED = 0
    REFUSED = 1
    NETWORK_UNREACHABLE = 2
    HOST_UNREACHABLE = 3
    PROHIBITED = 4
    TIMED_OUT = 5
    PROTOCOL_UNREACHABLE = 6
    TOO_BIG = 7
    LIMIT = 8
    UNAVAILABLE = 9
    RESET = 10
    LOST = 11
