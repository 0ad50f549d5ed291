"""frame_tcp and frame_udp."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from tests._fastpath.packets import SOURCE, SOURCE6, TARGET, TARGET6
from tests._fastpath.test_parse import make_key, parse
from tunstack._fastpath import reference
from tunstack._fastpath.record import Verdict

VIRTIO = 10
OPTIONS = bytes.fromhex("020405b401010402")
TEXT = random.Random(9293).randbytes(1399)

FAMILIES = [(IP, SOURCE, TARGET, 20), (IPv6, SOURCE6, TARGET6, 40)]
each_family = pytest.mark.parametrize(
    ("layer", "host", "cluster", "ip"), FAMILIES, ids=["4", "6"]
)


def tcp(impl, key: bytes, text: bytes = b"", **changes) -> bytes:
    values = {
        "seq": 1, "ack": 2, "flags": 0x10, "window": 3, "options": b"",
        "payload_len": len(text), "payload_sum": impl.sum16(text, 0),
        "ident": 4, "gso": 0, "vnet": 0,
    } | changes  # fmt: skip
    return impl.frame_tcp(key, **values) + text


def udp(impl, key: bytes, text: bytes = b"", vnet: int = 0, **changes) -> bytes:
    values = {
        "payload_len": len(text), "payload_sum": impl.sum16(text, 0), "ident": 4,
    } | changes  # fmt: skip
    return impl.frame_udp(key, vnet=vnet, **values) + text


def completed(packet: bytes, offset: int) -> bytes:
    """Do what the kernel does with a packet whose virtio header says NEEDS_CSUM."""
    start, at = struct.unpack_from("=HH", packet, 6)
    assert at == offset
    packet = packet[VIRTIO:]
    total = 0xFFFF - reference.sum16(packet[start:], 0) or 0xFFFF
    at += start
    return packet[:at] + total.to_bytes(2, "big") + packet[at + 2 :]


def rebuilt(layer, packet: bytes) -> bytes:
    """Have scapy compute every length and checksum anew."""
    parsed = layer(packet)
    for part, names in ((layer, ("len", "plen", "chksum")), (TCP, ("dataofs", "chksum")),
                        (UDP, ("len", "chksum"))):  # fmt: skip
        for name in names if part in parsed else ():
            if name in parsed[part].fields:
                del parsed[part].fields[name]
    return bytes(parsed)


@each_family
@pytest.mark.parametrize("options", [b"", OPTIONS, OPTIONS * 5], ids=len)
@pytest.mark.parametrize("text", [b"", b"t", TEXT], ids=len)
def test_a_segment_is_what_scapy_would_make_of_it(
    impl, layer, host, cluster, ip, options, text
):
    key = make_key(6, host, cluster, 40000, 80)
    packet = tcp(
        impl, key, text, seq=2**32 - 1, ack=2**31, flags=0x18, window=65535,
        options=options, ident=0xABCD,
    )  # fmt: skip
    parsed = layer(packet)
    assert (parsed.src, parsed.dst) == (cluster, host)
    assert (parsed[TCP].sport, parsed[TCP].dport) == (80, 40000)
    assert (parsed[TCP].seq, parsed[TCP].ack) == (2**32 - 1, 2**31)
    assert (parsed[TCP].flags, parsed[TCP].window) == ("PA", 65535)
    assert (parsed[TCP].urgptr, parsed[TCP].dataofs * 4) == (0, 20 + len(options))
    assert packet[ip + 20 :] == options + text
    assert rebuilt(layer, packet) == packet


@each_family
@pytest.mark.parametrize("text", [b"", b"t", TEXT], ids=len)
def test_a_datagram_is_what_scapy_would_make_of_it(impl, layer, host, cluster, ip, text):
    packet = udp(impl, make_key(17, host, cluster, 40000, 53), text)
    parsed = layer(packet)
    assert (parsed.src, parsed.dst) == (cluster, host)
    assert (parsed[UDP].sport, parsed[UDP].dport) == (53, 40000)
    assert parsed[UDP].len == 8 + len(text)
    assert rebuilt(layer, packet) == packet


def test_an_ipv4_packet_is_not_to_be_fragmented_and_lives_for_64_hops(impl):
    key = make_key(17, SOURCE, TARGET, 1, 2)
    parsed = IP(udp(impl, key, b"", ident=0xABCD))
    assert (parsed.flags, parsed.frag, parsed.ttl, parsed.id) == (0, 0, 64, 0xABCD)
    parsed = IP(udp(impl, key, b"", ident=0))
    assert (parsed.flags, parsed.frag, parsed.ttl, parsed.id) == ("DF", 0, 64, 0)


def test_an_ipv6_packet_has_no_class_and_no_label_and_lives_for_64_hops(impl):
    parsed = IPv6(udp(impl, make_key(17, SOURCE6, TARGET6, 1, 2)))
    assert (parsed.version, parsed.tc, parsed.fl, parsed.hlim) == (6, 0, 0, 64)


@each_family
def test_the_kernel_completes_the_checksum_behind_a_virtio_header(
    impl, layer, host, cluster, ip
):
    key = make_key(6, host, cluster, 40000, 80)
    packet = tcp(impl, key, TEXT, options=OPTIONS, vnet=VIRTIO)
    header_length = ip + 20 + len(OPTIONS)
    assert struct.unpack_from("=BBHHHH", packet) == (1, 0, header_length, 0, ip, 16)
    assert completed(packet, 16) == tcp(impl, key, TEXT, options=OPTIONS)
    key = make_key(17, host, cluster, 40000, 53)
    packet = udp(impl, key, TEXT, vnet=VIRTIO)
    assert struct.unpack_from("=BBHHHH", packet) == (1, 0, ip + 8, 0, ip, 6)
    assert completed(packet, 6) == udp(impl, key, TEXT)


@each_family
def test_a_payload_longer_than_a_segment_is_for_the_kernel_to_cut(
    impl, layer, host, cluster, ip
):
    key = make_key(6, host, cluster, 40000, 80)
    gso_type = 1 if ip == 20 else 4
    for length, want in ((1399, (0, 0)), (1400, (0, 0)), (1401, (gso_type, 1400))):
        packet = tcp(impl, key, bytes(length), gso=1400, vnet=VIRTIO)
        kind, _, size = struct.unpack_from("=xBHH", packet)
        assert (kind, size) == want
    assert tcp(impl, key, bytes(1401), gso=0, vnet=VIRTIO)[1] == 0


@each_family
def test_the_largest_packet_fits_and_a_larger_one_is_a_value_error(
    impl, layer, host, cluster, ip
):
    most = 65_535 - (ip if ip == 20 else 0)
    for make, header in ((tcp, 20), (udp, 8)):
        key = make_key(6 if make is tcp else 17, host, cluster, 1, 2)
        packet = make(impl, key, bytes(most - header))
        assert len(packet) == ip + most
        assert rebuilt(layer, packet) == packet
        for vnet in (0, VIRTIO):
            with pytest.raises(ValueError):
                make(impl, key, payload_len=most - header + 1, vnet=vnet)
            with pytest.raises(ValueError):
                make(impl, key, payload_len=2**32 - 1, vnet=vnet)


@pytest.mark.parametrize("options", [bytes(1), bytes(6), bytes(44)], ids=len)
def test_options_that_no_segment_has_are_a_value_error(impl, options):
    with pytest.raises(ValueError):
        tcp(impl, make_key(6, SOURCE, TARGET, 1, 2), options=options)


def test_a_virtio_header_of_another_size_is_a_value_error(impl):
    for make, protocol in ((tcp, 6), (udp, 17)):
        with pytest.raises(ValueError):
            make(impl, make_key(protocol, SOURCE, TARGET, 1, 2), vnet=12)


def test_a_datagram_never_says_that_it_has_no_checksum(impl):
    """One of the 65 536 payloads of two octets sums up to a checksum of 0."""
    key = make_key(17, SOURCE, TARGET, 40000, 53)
    empty = int.from_bytes(udp(impl, key, bytes(2))[26:28], "big")
    packet = udp(impl, key, empty.to_bytes(2, "big"))
    assert packet[26:28] == b"\xff\xff"
    assert parse(impl, packet)[8] == Verdict.DELIVER


@given(
    addresses=st.binary(min_size=36, max_size=36),
    v4=st.booleans(),
    numbers=st.tuples(*[st.integers(0, 2**32 - 1)] * 2, *[st.integers(0, 0xFFFF)] * 4),
    flags=st.integers(0, 255),
    options=st.integers(0, 10).map(lambda words: OPTIONS[:4] * words),
    payload=st.integers(0, 65_400),
    vnet=st.sampled_from([0, VIRTIO]),
)
def test_the_twins_agree(addresses, v4, numbers, flags, options, payload, vnet):
    kernels = pytest.importorskip("tunstack._fastpath.kernels", reason="not built")
    if v4:
        mapped = bytes(10) + b"\xff\xff"
        addresses = mapped + addresses[:4] + mapped + addresses[4:8] + addresses[32:]
    seq, ack, window, payload_sum, ident, gso = numbers
    key = b"\x06" + addresses
    arguments = (
        key,
        seq,
        ack,
        flags,
        window,
        options,
        payload,
        payload_sum,
        ident,
        gso,
        vnet,
    )
    assert kernels.frame_tcp(*arguments) == reference.frame_tcp(*arguments)
    key = b"\x11" + addresses
    arguments = (key, payload, payload_sum, ident, vnet)
    assert kernels.frame_udp(*arguments) == reference.frame_udp(*arguments)
