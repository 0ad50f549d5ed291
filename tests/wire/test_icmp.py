"""ICMP messages, with scapy as the oracle."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)

from tests.support.host import make_key
from tunstack import _fastpath
from tunstack.wire import icmp
from tunstack.wire.frame import Refusal

HOST, CLUSTER = "198.18.0.1", "10.96.0.1"
HOST6, CLUSTER6 = "fd00::1", "fd96::1"


def parse(packet: bytes):
    (record,) = _fastpath.parse_batch(packet, len(packet), [len(packet)], 0)
    return record


def intact(packet: bytes) -> bool:
    """Whether scapy finds the same checksums."""
    parsed = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    part = parsed
    while part:
        for name in ("chksum", "cksum"):
            if name in part.fields and not isinstance(part, (IPerror, UDPerror)):
                del part.fields[name]
        part = part.payload
        if isinstance(part, IPerror) or part.name.startswith("IPv6 in ICMPv6"):
            break
    return bytes(parsed) == packet


@pytest.mark.parametrize("data", [b"", b"odd", bytes(1400)], ids=len)
def test_an_echo_request_is_answered(data):
    request = bytes(IP(src=HOST, dst=CLUSTER) / ICMP(type=8, id=7, seq=65535) / data)
    reply = icmp.echo_reply(parse(request)[11], 65535, data, 7)
    found = IP(reply)
    assert (found.src, found.dst) == (CLUSTER, HOST)
    assert (found[ICMP].type, found[ICMP].code, found[ICMP].id) == (0, 0, 7)
    assert found[ICMP].seq == 65535
    assert bytes(found[ICMP].payload) == data
    assert intact(reply)


@pytest.mark.parametrize("data", [b"", b"odd", bytes(1400)], ids=len)
def test_an_echo_request_of_ipv6_is_answered(data):
    ping = ICMPv6EchoRequest(id=7, seq=65535, data=data)
    request = bytes(IPv6(src=HOST6, dst=CLUSTER6) / ping)
    reply = icmp.echo_reply(parse(request)[11], 65535, data, 7)
    found = IPv6(reply)
    assert (found.src, found.dst) == (CLUSTER6, HOST6)
    assert (found[ICMPv6EchoReply].id, found[ICMPv6EchoReply].seq) == (7, 65535)
    assert found[ICMPv6EchoReply].data == data
    assert intact(reply)


SAID = {
    Refusal.REFUSED: ((3, 3), (1, 4)),
    Refusal.NETWORK_UNREACHABLE: ((3, 0), (1, 0)),
    Refusal.HOST_UNREACHABLE: ((3, 1), (1, 3)),
    Refusal.PROHIBITED: ((3, 13), (1, 1)),
    Refusal.PROTOCOL_UNREACHABLE: ((3, 2), (4, 1)),
}


@pytest.mark.parametrize("refusal", SAID)
def test_a_sender_hears_why_its_packet_did_not_arrive(refusal):
    offender = bytes(IP(src=HOST, dst=CLUSTER) / UDP(sport=5, dport=6) / b"query")
    packet = icmp.unreachable(refusal, offender)
    found = IP(packet)
    assert (found.src, found.dst) == (CLUSTER, HOST)
    assert (found[ICMP].type, found[ICMP].code) == SAID[refusal][0]
    assert packet[28:] == offender
    assert intact(packet)
    assert parse(packet)[8] == 0


@pytest.mark.parametrize("refusal", SAID)
def test_a_sender_hears_it_over_ipv6(refusal):
    offender = bytes(IPv6(src=HOST6, dst=CLUSTER6) / UDP(sport=5, dport=6) / b"query")
    packet = icmp.unreachable(refusal, offender)
    found = IPv6(packet)
    assert (found.src, found.dst) == (CLUSTER6, HOST6)
    kind = ICMPv6ParamProblem if SAID[refusal][1][0] == 4 else ICMPv6DestUnreach
    assert (found[kind].type, found[kind].code) == SAID[refusal][1]
    assert packet[48:] == offender
    assert intact(packet)
    if kind is ICMPv6ParamProblem:
        assert found[kind].ptr == 6


def test_only_so_much_is_quoted():
    offender = bytes(IP(src=HOST, dst=CLUSTER) / UDP() / bytes(2000))
    assert len(icmp.unreachable(Refusal.REFUSED, offender)) == 576
    offender = bytes(IPv6(src=HOST6, dst=CLUSTER6) / UDP() / bytes(2000))
    assert len(icmp.unreachable(Refusal.REFUSED, offender)) == 1280


@pytest.mark.parametrize(
    "offender",
    [
        IP(src=HOST, dst=CLUSTER) / ICMP(type=3, code=3) / bytes(28),
        IP(src=HOST, dst=CLUSTER) / ICMP(type=11) / bytes(28),
        IP(src=HOST, dst=CLUSTER, frag=1, proto=17) / bytes(8),
        IPv6(src=HOST6, dst=CLUSTER6) / ICMPv6DestUnreach() / bytes(48),
    ],
    ids=["error", "time exceeded", "later fragment", "error6"],
)
def test_nobody_hears_about_errors_and_later_fragments(offender):
    assert icmp.unreachable(Refusal.HOST_UNREACHABLE, bytes(offender)) is None


@pytest.mark.parametrize(
    "offender",
    [
        IP(src=HOST, dst=CLUSTER) / ICMP(),
        IPv6(src=HOST6, dst=CLUSTER6) / ICMPv6EchoRequest(),
    ],
)
def test_who_pings_hears_that_nobody_is_there(offender):
    packet = icmp.unreachable(Refusal.HOST_UNREACHABLE, bytes(offender))
    assert packet is not None
    assert intact(packet)


def test_missing_fragments_are_said_to_have_come_too_late():
    first = bytes(IP(src=HOST, dst=CLUSTER, flags="MF") / UDP() / bytes(8))
    found = IP(icmp.time_exceeded(first))
    assert (found.dst, found[ICMP].type, found[ICMP].code) == (HOST, 11, 1)
    first = bytes(IPv6(src=HOST6, dst=CLUSTER6) / IPv6ExtHdrFragment(m=1) / UDP())
    found = IPv6(icmp.time_exceeded(first))
    assert (found.dst, found[ICMPv6TimeExceeded].code) == (HOST6, 1)


def test_an_error_behind_extension_headers_is_an_error():
    error = IPv6(src=HOST6, dst=CLUSTER6) / IPv6ExtHdrDestOpt() / ICMPv6DestUnreach()
    assert icmp.unreachable(Refusal.REFUSED, bytes(error)) is None


def test_a_bad_fragment_of_ipv4_is_dropped_in_silence():
    packet = IP(src=HOST, dst=CLUSTER, flags="MF", proto=17) / bytes(9)
    assert icmp.not_understood(bytes(packet)) is None


SEGMENT = IP(src=CLUSTER, dst=HOST, options=IPOption(b"\1\1\1\0")) / TCP(
    sport=80, dport=40_000, seq=77
)
SEGMENT6 = IPv6(src=CLUSTER6, dst=HOST6) / TCP(sport=80, dport=40_000, seq=77)


def test_a_router_says_which_segment_was_too_big_and_for_what():
    message = bytes(ICMP(type=3, code=4, nexthopmtu=1400)) + bytes(SEGMENT)[:32]
    found = icmp.too_big(icmp.ICMP, message)
    assert found.key == make_key(6, HOST, 40_000, CLUSTER, 80)
    assert (found.seq, found.mtu) == (77, 1400)
    message = bytes(ICMPv6PacketTooBig(mtu=1300, cksum=0)) + bytes(SEGMENT6)
    found = icmp.too_big(icmp.ICMP6, message)
    assert found.key == make_key(6, HOST6, 40_000, CLUSTER6, 80)
    assert (found.seq, found.mtu) == (77, 1300)


def test_an_absurd_mtu_is_not_believed():
    message = bytes(ICMP(type=3, code=4, nexthopmtu=68)) + bytes(SEGMENT)
    assert icmp.too_big(icmp.ICMP, message).mtu == 552
    message = bytes(ICMPv6PacketTooBig(mtu=68, cksum=0)) + bytes(SEGMENT6)
    assert icmp.too_big(icmp.ICMP6, message).mtu == 1280


@pytest.mark.parametrize("size", [0, 1, 19, 31])
def test_half_a_segment_is_none(size):
    message = bytes(ICMP(type=3, code=4, nexthopmtu=1400)) + bytes(SEGMENT)[:size]
    assert icmp.too_big(icmp.ICMP, message) is None
    message = bytes(ICMPv6PacketTooBig(mtu=1300, cksum=0)) + bytes(SEGMENT6)[:size]
    assert icmp.too_big(icmp.ICMP6, message) is None


def test_a_datagram_is_no_segment():
    message = bytes(ICMP(type=3, code=4)) + bytes(IP(src=CLUSTER, dst=HOST) / UDP())
    assert icmp.too_big(icmp.ICMP, message) is None
    message = bytes(ICMPv6PacketTooBig(cksum=0)) + bytes(
        IPv6(src=CLUSTER6, dst=HOST6) / UDP()
    )
    assert icmp.too_big(icmp.ICMP6, message) is None
