"""IP headers and fragments, with scapy as the oracle."""

import pytest
from scapy.layers.inet import IP, UDP, defragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, defragment6

from tunstack.wire import ip
from tunstack.wire.key import MAPPED

V4 = (MAPPED + bytes([10, 96, 0, 1]), MAPPED + bytes([198, 18, 0, 1]))
V6 = (bytes.fromhex("fd960000000000000000000000000001"), bytes(15) + b"\x09")


@pytest.mark.parametrize("length", [0, 1, 65_515])
def test_an_ipv4_header_is_what_scapy_would_make(length):
    header = ip.header(17, *V4, length)
    parsed = IP(header)
    assert (parsed.src, parsed.dst, parsed.proto) == ("10.96.0.1", "198.18.0.1", 17)
    assert (parsed.len, parsed.ihl, parsed.ttl, parsed.flags) == (20 + length, 5, 64, "DF")
    del parsed.chksum
    assert bytes(parsed) == header


@pytest.mark.parametrize("length", [0, 1, 65_535])
def test_an_ipv6_header_is_what_scapy_would_make(length):
    header = ip.header(17, *V6, length)
    parsed = IPv6(header)
    assert (parsed.src, parsed.dst, parsed.nh) == ("fd96::1", "::9", 17)
    assert (parsed.plen, parsed.hlim, parsed.version) == (length, 64, 6)
    assert bytes(parsed) == header


@pytest.mark.parametrize("length", [1, 7, 8, 1480, 1481, 25_000, 65_507])
@pytest.mark.parametrize("mtu", [576, 1500])
def test_ipv4_fragments_make_the_packet_again(length, mtu):
    packet = IP(src="10.96.0.1", dst="198.18.0.1", flags="DF") / UDP() / bytes(length)
    pieces = [IP(piece) for piece in ip.fragment(bytes(packet), mtu, 0xBEEF)]
    assert all(len(piece) <= mtu for piece in pieces)
    assert {piece.id for piece in pieces} == {0xBEEF}
    assert not any(piece.flags.DF for piece in pieces)
    for piece in pieces:
        given = piece.chksum
        del piece.chksum
        assert IP(bytes(piece)).chksum == given
    if len(pieces) > 1:
        (whole,) = defragment(pieces)
    else:
        (whole,) = pieces
    assert bytes(whole[UDP]) == bytes(packet[UDP])


@pytest.mark.parametrize("length", [1, 7, 8, 1480, 1481, 25_000, 65_527])
@pytest.mark.parametrize("mtu", [1280, 1500])
def test_ipv6_fragments_make_the_packet_again(length, mtu):
    packet = IPv6(src="fd96::1", dst="fd00::1") / UDP() / bytes(length)
    pieces = [IPv6(piece) for piece in ip.fragment(bytes(packet), mtu, 0xDEADBEEF)]
    assert all(len(piece) == 40 + piece.plen <= mtu for piece in pieces)
    assert {piece[IPv6ExtHdrFragment].id for piece in pieces} == {0xDEADBEEF}
    assert [piece[IPv6ExtHdrFragment].m for piece in pieces] == [1] * (len(pieces) - 1) + [
        0
    ]
    whole = defragment6(pieces)
    assert bytes(whole)[-8 - length :] == bytes(packet)[40:]


@pytest.mark.parametrize("mtu", [576, 1499, 1500])
def test_all_fragments_but_the_last_are_as_long_as_can_be(mtu):
    packet = bytes(IP(src="10.96.0.1", dst="198.18.0.1") / UDP() / bytes(4000))
    pieces = ip.fragment(packet, mtu, 1)
    assert {len(piece) for piece in pieces[:-1]} == {20 + (mtu - 20) // 8 * 8}
