"""Link layers, as scapy builds them."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.packet import Raw

from tunstack.capture.link import NAMES, ip_packet

V4 = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / Raw(b"text"))
V6 = bytes(IPv6(src="fd00::1", dst="fd00::2") / Raw(b"text"))

MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
LABEL = bytes((0, 0, 0, 64)), bytes((0, 0, 1, 64))
"""One that another follows, and the last."""

FRAMES = {
    "ethernet": (1, Ether(**MAC, type=0x0800) / Raw(V4), V4),
    "ethernet, v6": (1, Ether(**MAC, type=0x86DD) / Raw(V6), V6),
    "802.1Q": (1, Ether(**MAC) / Dot1Q(vlan=2, type=0x0800) / Raw(V4), V4),
    "QinQ": (
        1, Ether(**MAC) / Dot1AD(vlan=1) / Dot1Q(vlan=2, type=0x86DD) / Raw(V6), V6,
    ),
    "PPPoE": (1, Ether(**MAC) / PPPoE() / PPP(proto=0x0021) / Raw(V4), V4),
    "PPPoE, LCP": (1, Ether(**MAC) / PPPoE() / PPP(proto=0xC021) / Raw(V4), None),
    "MPLS": (1, Ether(**MAC, type=0x8847) / Raw(b"".join(LABEL) + V6), V6),
    "padding stays": (1, Ether(**MAC, type=0x0800) / Raw(V4 + bytes(22)), V4 + bytes(22)),
    "ARP": (1, Ether(**MAC) / ARP(), None),
    "802.3": (1, Ether(**MAC, type=3) / Raw(b"\x42\x42\x03"), None),
    "ppp": (9, PPP(proto=0x0021) / Raw(V4), V4),
    "ppp, v6": (9, PPP(proto=0x0057) / Raw(V6), V6),
    "ppp, compressed": (9, Raw(b"\x21" + V4), V4),
    "ppp, LCP": (9, PPP(proto=0xC021) / Raw(V4), None),
    "ppp, framed": (50, HDLC() / PPP(proto=0x0021) / Raw(V4), V4),
    "raw, BSD's number": (12, Raw(V4), V4),
    "raw, OpenBSD's number": (14, Raw(V4), V4),
    "raw": (101, Raw(V6), V6),
    "ipv4": (228, Raw(V4), V4),
    "ipv6": (229, Raw(V6), V6),
    "loopback": (0, Loopback(type=2) / Raw(V4), V4),
    "loopback, little endian": (0, Raw(bytes((30, 0, 0, 0)) + V6), V6),
    "loopback, OpenBSD's": (108, Loopback(type=24) / Raw(V6), V6),
    "loopback, AppleTalk": (0, Loopback(type=16) / Raw(V4), None),
    "cooked": (113, CookedLinux(proto=0x0800) / Raw(V4), V4),
    "cooked, tagged": (
        113, CookedLinux(proto=0x8100) / Dot1Q(vlan=2, type=0x0800) / Raw(V4), V4,
    ),
    "cooked, ARP": (113, CookedLinux(proto=0x0806) / ARP(), None),
    "cooked 2": (276, CookedLinuxV2(proto=0x86DD) / Raw(V6), V6),
    "cooked 2, ARP": (276, CookedLinuxV2(proto=0x0806) / ARP(), None),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_the_ip_packet_is_found_behind_its_link_layer(name):
    link, frame, packet = FRAMES[name]
    assert ip_packet(link, bytes(frame)) == packet


def test_every_link_type_is_tried_here():
    assert {link for link, _, _ in FRAMES.values()} == set(NAMES)


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_cut_short_gives_the_start_of_the_packet_or_none(name):
    link, frame, packet = FRAMES[name]
    octets = bytes(frame)
    for length in range(len(octets)):
        found = ip_packet(link, octets[:length])
        assert found is None or (packet or b"").startswith(found)
