"""The packed result of parsing one packet, and the verdicts on packets.

:data:`RECORD` has the layout of ``ts_record`` in ``kernels.h``: no padding, native byte
order.
"""

import struct
from enum import IntEnum

RECORD = struct.Struct("=IIIIIIHHBBB37sI")

Record = tuple[int, int, int, int, int, int, int, int, int, int, int, bytes, int]
"""``(seq, ack, ip, options, payload, end, window, gso, verdict, flags, code, key, tsval)``.

=========  ============================  ==================  =========================
field      TCP                           UDP                 ICMP, ICMPv6
=========  ============================  ==================  =========================
seq        SEG.SEQ                       0                   sequence number of an echo
ack        SEG.ACK                       0                   0
ip         offset of the IP header       the same            the same
options    offset of the TCP options     offset of payload   offset of the message
payload    offset of the text            the same            offset behind 8 octets
end        offset behind the text        the same            the same
window     SEG.WND, unscaled             0                   0
gso        gso_size, or 0                the same            0
verdict    a :class:`Verdict`            the same            the same
flags      FIN 1 SYN 2 RST 4 PSH 8       0                   type
           ACK 16 URG 32 ECE 64 CWR 128
code       :data:`NO_OPTIONS`,           0                   code
           :data:`TIMESTAMPS` alone,
           or :data:`MORE_OPTIONS`
key        flow key                      flow key            ports: identifier of an
                                                             echo, 0
tsval      TSval, with TIMESTAMPS alone  0                   0
=========  ============================  ==================  =========================

The flow key is 37 octets: protocol, source, destination (IPv4 as IPv4-mapped IPv6),
source port, destination port. A packet whose verdict is not ``DELIVER`` has ``ip`` and,
as far as the packet was understood, ``end`` (of the packet) and a key; the rest is 0.
A ``FRAGMENT`` has a key without ports, and ``payload`` and ``end`` around what follows
the (fragment) header.
"""

NO_OPTIONS, TIMESTAMPS, MORE_OPTIONS = 0, 1, 2
"""What options a TCP segment has. Timestamps alone are those laid out as RFC 7323,
appendix A, recommends: two NOPs in front."""


class Verdict(IntEnum):
    """What becomes of a packet. Everything behind ``FRAGMENT`` is a drop."""

    DELIVER = 0
    FRAGMENT = 1
    TRUNCATED = 2
    BAD_VERSION = 3
    BAD_HEADER_LENGTH = 4
    BAD_TOTAL_LENGTH = 5
    BAD_CHECKSUM = 6
    BAD_ADDRESS = 7
    UNKNOWN_PROTOCOL = 8
    BAD_EXTENSION_HEADER = 9
    BAD_TRANSPORT_HEADER = 10
    BAD_PORT = 11
    BAD_VIRTIO_HEADER = 12
    BAD_FRAGMENT = 13

    @property
    def reason(self) -> str:
        """The name used in counters: ``bad-checksum``."""
        return self.name.lower().replace("_", "-")
