"""UDP, ICMP and fragments as the host sees them; scapy makes and reads the packets."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.packet import Raw

from tests.support.host import ACK, MTU, SYN, Host, make_key
from tunstack.stack.events import What
from tunstack.wire.frame import Refusal

HOST = {4: "198.18.0.1", 6: "fd00::1"}
TARGET = {4: "10.96.0.1", 6: "fd96::1"}
NETWORK = {4: IP, 6: IPv6}


@pytest.fixture(params=[4, 6])
def family(request) -> int:
    return request.param


@pytest.fixture
def host(family) -> Host:
    return Host(family=family)


def udp_key(family: int) -> bytes:
    return make_key(17, HOST[family], 5000, TARGET[family], 53)


def udp_packet(family: int, payload: bytes):
    network = NETWORK[family](src=HOST[family], dst=TARGET[family])
    return network / UDP(sport=5000, dport=53) / Raw(payload)


def read(family: int, packet: bytes):
    """Parse a packet, and check that scapy would have given it the same checksums."""
    parsed = NETWORK[family](packet)
    again = NETWORK[family](packet)
    layer = again
    while layer:
        for field in ("chksum", "cksum"):
            if field in layer.fields:
                delattr(layer, field)
        layer = layer.payload
    assert bytes(again) == packet
    return parsed


@pytest.mark.parametrize("size", [0, 1, 1472 - 20])
def test_a_datagram_arrives_with_its_flow(host, family, size):
    host.feed([bytes(udp_packet(family, bytes(size)))])
    assert host.events == [(What.DATAGRAM, udp_key(family), bytes(size))]


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_an_answer_goes_the_other_way(host, family, size):
    host.stack.datagram(udp_key(family), b"x" * size)
    (packet,) = host.packets()
    parsed = read(family, packet)
    assert (parsed.src, parsed.dst) == (TARGET[family], HOST[family])
    assert (parsed[UDP].sport, parsed[UDP].dport) == (53, 5000)
    assert bytes(parsed[UDP].payload) == b"x" * size


@pytest.mark.parametrize("size", [1473, 9000, 65_000])
def test_a_large_answer_is_cut_to_the_mtu_and_scapy_joins_it(host, family, size):
    payload = bytes(index & 0xFF for index in range(size))
    host.stack.datagram(udp_key(family), payload)
    packets = host.packets()
    assert all(len(packet) <= MTU for packet in packets)
    pieces = []
    for packet in packets:
        if family == 4:
            parsed = IP(packet)
            pieces.append((parsed.frag * 8, bytes(parsed.payload)))
            assert parsed.flags.MF == (packet is not packets[-1])
        else:
            parsed = IPv6(packet)[IPv6ExtHdrFragment]
            pieces.append((parsed.offset * 8, bytes(parsed.payload)))
            assert parsed.m == (packet is not packets[-1])
    at, text = 0, b""
    for offset, piece in pieces:
        assert offset == at
        at += len(piece)
        text += piece
    assert text[8:] == payload
    network = NETWORK[family](src=TARGET[family], dst=HOST[family])
    want = bytes(network / UDP(sport=53, dport=5000) / Raw(payload))
    assert text == want[-len(text) :]  # with the checksum of the whole


def test_what_the_host_forwards_fits_every_link(family):
    host = Host(family=family, vnet=10, mtu=65_520, local=frozenset())
    payload = bytes(9000)
    host.stack.datagram(udp_key(family), payload)
    packets = [packet[10:] for packet in host.packets()]
    if family == 4:
        (packet,) = packets
        parsed = IP(packet)
        assert not parsed.flags.DF  # routers may cut it,
        assert parsed.id  # and know what belongs together
    else:
        assert all(len(packet) <= 1280 for packet in packets)


def cut(family: int, payload: bytes, ident: int = 77) -> list[bytes]:
    datagram = UDP(sport=5000, dport=53) / Raw(payload)
    if family == 4:
        packet = IP(src=HOST[4], dst=TARGET[4], id=ident) / datagram
        return [bytes(piece) for piece in fragment(packet, 1000)]
    network = IPv6(src=HOST[6], dst=TARGET[6])
    packet = network / IPv6ExtHdrFragment(id=ident) / datagram
    return [bytes(piece) for piece in fragment6(packet, 1280)]


@pytest.mark.parametrize("order", ["straight", "reverse"])
def test_fragments_of_a_datagram_are_joined(host, family, order):
    payload = bytes(index & 0xFF for index in range(9000))
    fragments = cut(family, payload)
    if order == "reverse":
        fragments.reverse()
    host.feed(fragments[:-1])
    assert host.events == []
    host.feed(fragments[-1:])
    assert host.events == [(What.DATAGRAM, udp_key(family), payload)]


def test_fragments_of_two_packets_do_not_mix(host, family):
    first = cut(family, b"a" * 3000, 1)
    second = cut(family, b"b" * 3000, 2)
    host.feed([piece for pair in zip(first, second, strict=True) for piece in pair])
    assert [event[2][:1] for event in host.events] == [b"a", b"b"]


def test_a_segment_in_fragments_opens_a_connection():
    host = Host()
    syn = host.make(0, 0, SYN, options=bytes(20))
    whole = IP(syn)
    whole.flags = 0
    del whole.chksum
    host.feed([bytes(piece) for piece in fragment(whole, 24)])
    assert host.kinds() == [What.OPEN]


def test_unfinished_packets_are_forgotten_in_time(host, family):
    fragments = cut(family, bytes(3000))
    host.feed(fragments[:1])
    host.wait(31)
    host.feed(fragments[1:])
    assert host.events == []


def test_who_sent_fragments_of_which_some_are_missing_is_told(host, family):
    first, second, *_ = cut(family, bytes(3000), 1)
    host.feed([first])
    host.feed(cut(family, bytes(3000), 2)[1:])  # without its first: nobody is told
    host.wait(29)
    assert host.packets() == []
    host.wait(2)
    (packet,) = host.packets()
    at = 20 if family == 4 else 40
    assert tuple(packet[at : at + 2]) == ((11, 1) if family == 4 else (3, 1))
    assert packet[at + 8 :] == first[: len(packet) - at - 8]
    assert host.stack.drops["fragments-timed-out"] == 2
    host.feed([second])
    assert host.events == []


def test_a_last_fragment_in_front_of_others_is_impossible(host):
    whole = udp_packet(4, b"x" * 32)
    pieces = [IP(bytes(piece)) for piece in fragment(whole, 8)]
    last = pieces[1].copy()
    last.flags = 0
    del last.chksum
    host.feed([bytes(pieces[2]), bytes(last), *map(bytes, pieces)])
    assert host.events == []
    assert host.stack.drops["bad-fragment"] >= 1


def test_a_packet_in_too_many_fragments_is_dropped(host):
    whole = udp_packet(4, b"x" * 4800)
    pieces = [bytes(piece) for piece in fragment(whole, 8)]
    assert len(pieces) > 512
    host.feed(pieces)
    assert host.events == []
    assert host.stack.drops["bad-fragment"] >= 1


def test_a_large_echo_reply_leaves_in_fragments(host, family):
    key = make_key({4: 1, 6: 58}[family], HOST[family], 77, TARGET[family], 0)
    host.stack.echo_reply(key, 9, bytes(4000))
    packets = host.packets()
    assert len(packets) > 1
    assert max(map(len, packets)) <= MTU


def test_nobody_is_told_of_an_error_that_an_error_met(host, family):
    error = {4: ICMP(type=3, code=3), 6: ICMPv6DestUnreach(code=4)}[family]
    packet = NETWORK[family](src=HOST[family], dst=TARGET[family]) / error
    host.stack.unreachable(bytes(packet / Raw(bytes(48))), Refusal.REFUSED)
    assert host.packets() == []


def test_errors_are_limited_in_rate(host, family):
    packet = NETWORK[family](src=HOST[family], dst=TARGET[family])
    setattr(packet, "proto" if family == 4 else "nh", 132)
    octets = bytes(packet / Raw(bytes(20)))
    host.feed([octets] * 200)
    assert len(host.packets()) == 50
    assert host.stack.drops["icmp-rate-limit"] == 150
    host.now += 0.125
    host.feed([octets] * 20)
    assert len(host.packets()) == 12


def test_overlapping_fragments_deliver_nothing(host):
    whole = udp_packet(4, b"x" * 3000)
    pieces = [bytes(piece) for piece in fragment(whole, 1000)]
    shifted = IP(pieces[1])
    shifted.frag -= 1
    del shifted.chksum
    host.feed([pieces[0], bytes(shifted), *pieces[1:]])
    assert not [event for event in host.events if event[0] is What.DATAGRAM]
    assert host.stack.drops["bad-fragment"] >= 1


def test_a_flood_of_unfinished_packets_is_bounded(host, family):
    payload = b"x" * 3000
    host.feed([cut(family, payload, ident)[0] for ident in range(1500)])
    unfinished = host.stack._reassembly._assemblies
    assert len(unfinished) <= 1024
    host.feed(cut(family, payload, 4000))  # and what is whole still gets through
    assert [event[2] for event in host.events] == [payload]


def test_large_sends_that_the_kernel_left_whole_are_cut_by_their_size():
    host = Host(vnet=10)
    payload = b"".join(bytes([index]) * 1000 for index in range(5)) + b"tail"
    packet = bytes(udp_packet(4, payload))
    # NEEDS_CSUM, UDP_L4, hdr_len 28, gso_size 1000, csum_start 20, csum_offset 6
    header = bytes([1, 5]) + b"".join(n.to_bytes(2, "little") for n in (28, 1000, 20, 6))
    data = header + packet
    host.stack.receive(bytearray(data), len(data), [len(data)], host.now)
    texts = [
        bytes(memoryview(event[2])[event[3] : event[4]])
        for event in host.stack.take_events()
    ]
    assert texts == [bytes([index]) * 1000 for index in range(5)] + [b"tail"]


def echo_packet(family: int) -> bytes:
    echo = {4: ICMP(type=8, id=77, seq=9), 6: ICMPv6EchoRequest(id=77, seq=9)}
    return bytes(
        NETWORK[family](src=HOST[family], dst=TARGET[family]) / echo[family] / Raw(b"ping!")
    )


def test_an_echo_request_is_handed_on_and_its_reply_comes_back(host, family):
    host.feed([echo_packet(family)])
    ((what, key, sequence, memory, start, end, ip),) = host.events
    assert bytes(memory[ip:end]) == echo_packet(family)
    assert (what, sequence) == (What.ECHO, 9)
    assert bytes(memory[start:end]) == b"ping!"
    assert bytes(memory[start - 2 : start]) == b"\0\x09"  # the bridge relies on it
    host.stack.echo_reply(key, 9, b"ping!")
    (packet,) = host.packets()
    parsed = read(family, packet)
    assert (parsed.src, parsed.dst) == (TARGET[family], HOST[family])
    message = parsed[ICMP] if family == 4 else parsed[ICMPv6EchoReply]
    assert (message.type, message.id, message.seq) == (0 if family == 4 else 129, 77, 9)
    assert packet.endswith(b"ping!")


def test_other_icmp_is_counted_and_not_answered(host):
    reply = IP(src=HOST[4], dst=TARGET[4]) / ICMP(type=0, id=1, seq=1)
    host.feed([bytes(reply)])
    assert host.events == []
    assert host.packets() == []
    assert host.stack.drops["icmp-not-echo"] == 1


def test_an_unreachable_port_is_icmp_about_the_datagram(host, family):
    offender = bytes(udp_packet(family, b"question"))
    host.stack.unreachable(offender, Refusal.REFUSED)
    (packet,) = host.packets()
    parsed = read(family, packet)
    assert parsed.dst == HOST[family]
    if family == 4:
        assert (parsed[ICMP].type, parsed[ICMP].code) == (3, 3)
        quoted = IP(bytes(parsed[ICMP].payload))
    else:
        assert parsed[ICMPv6DestUnreach].code == 4
        quoted = IPv6(bytes(parsed[ICMPv6DestUnreach].payload))
    assert (quoted.src, quoted.dst) == (HOST[family], TARGET[family])
    assert bytes(quoted) == offender


def test_an_unknown_protocol_is_said(host, family):
    packet = NETWORK[family](src=HOST[family], dst=TARGET[family])
    setattr(packet, "proto" if family == 4 else "nh", 132)
    host.feed([bytes(packet / Raw(bytes(20)))])
    (answer,) = host.packets()
    at = 20 if family == 4 else 40
    assert tuple(answer[at : at + 2]) == ((3, 2) if family == 4 else (4, 1))
    assert host.stack.drops["unknown-protocol"] == 1


def test_a_damaged_packet_is_dropped_and_counted(host):
    packet = bytearray(host.make(0, 0, SYN))
    packet[-1] ^= 1
    host.feed([bytes(packet)])
    assert host.events == []
    assert host.stack.drops["bad-checksum"] == 1


def test_nothing_is_answered_to_packets_not_for_one_host(host):
    syn = IP(bytes(Host().make(0, 0, ACK)))
    for source, target in (
        ("224.0.0.1", TARGET[4]),
        (HOST[4], "224.0.0.1"),
        (HOST[4], "255.255.255.255"),
        ("127.0.0.1", TARGET[4]),
        ("0.0.0.0", TARGET[4]),
    ):
        packet = syn.copy()
        packet.src, packet.dst = source, target
        del packet.chksum
        del packet.payload.chksum
        host.feed([bytes(packet)])
    assert host.packets() == []
    assert host.stack.drops["bad-address"] == 5
