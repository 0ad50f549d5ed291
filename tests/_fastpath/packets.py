"""Packets to parse, made by scapy."""

import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.packet import Packet

SOURCE, TARGET = "198.18.0.1", "10.96.0.1"
SOURCE6, TARGET6 = "fd00::1", "fd96::1"

NEEDS_CSUM, DATA_VALID = 1, 2

ip4 = IP(src=SOURCE, dst=TARGET)
ip6 = IPv6(src=SOURCE6, dst=TARGET6)
tcp = TCP(sport=40000, dport=80, seq=0xFFFFFFF0, ack=7, flags="PA", window=512)
udp = UDP(sport=40000, dport=53)
syn_options = [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)]
echo4 = ICMP(type=8, id=0x1234, seq=0x5678)
echo6 = ICMPv6EchoRequest(id=0x1234, seq=0x5678)

GOOD: dict[str, Packet] = {
    "tcp4": ip4 / tcp / b"text",
    "tcp6": ip6 / tcp / b"text",
    "tcp4 without text": ip4 / tcp,
    "tcp4 options": ip4 / TCP(sport=1, dport=65535, flags="S", options=syn_options),
    "tcp6 options": ip6 / TCP(sport=1, dport=65535, flags="S", options=syn_options),
    "tcp4 large": ip4 / tcp / (bytes(range(256)) * 250),
    "udp4": ip4 / udp / b"query",
    "udp6": ip6 / udp / b"query",
    "udp4 empty": ip4 / udp,
    "udp6 empty": ip6 / udp,
    "udp4 without checksum": ip4 / UDP(sport=1, dport=2, chksum=0) / b"odd",
    "echo4": ip4 / echo4 / b"ping",
    "echo6": ip6 / echo6 / b"ping",
    "reply4": ip4 / ICMP(type=0, id=1, seq=2),
    "reply6": ip6 / ICMPv6EchoReply(id=1, seq=2),
    "icmp4 error": ip4 / ICMP(type=3, code=4, nexthopmtu=1400) / bytes(28),
    "icmp6 error": ip6 / ICMPv6TimeExceeded() / bytes(48),
    "ip4 options": IP(src=SOURCE, dst=TARGET, options=[b"\x94\x04\0\0"]) / echo4,
    "hop by hop": ip6 / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / udp / b"x",
    "all headers": ip6
    / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(12))])
    / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    / IPv6ExtHdrRouting(segleft=0, addresses=["fd00::9"])
    / IPv6ExtHdrFragment(offset=0, m=0, id=9)
    / IPv6ExtHdrDestOpt()
    / tcp
    / b"text",
}
"""Packets that are delivered."""

FRAGMENTS: dict[str, Packet] = {
    "first4": IP(src=SOURCE, dst=TARGET, flags="MF", id=5) / udp / bytes(64),
    "later4": IP(src=SOURCE, dst=TARGET, frag=9, proto=17) / bytes(8),
    "last4": IP(src=SOURCE, dst=TARGET, frag=9, proto=17) / b"odd",
    "first6": ip6 / IPv6ExtHdrFragment(m=1, id=5, nh=17) / bytes(64),
    "last6": ip6 / IPv6ExtHdrFragment(offset=9, id=5, nh=17) / b"odd",
}


def virtio(
    packet: bytes,
    *,
    flags: int = NEEDS_CSUM,
    gso: int = 0,
    size: int = 0,
    header: int = 0,
    start: int | None = None,
    offset: int | None = None,
) -> bytes:
    """Put a virtio header before a packet of TCP or UDP without extension headers."""
    if start is None:
        start = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    if offset is None:
        offset = 16 if packet[9 if packet[0] >> 4 == 4 else 6] == 6 else 6
    return struct.pack("=BBHHHH", flags, gso, header, size, start, offset) + packet
