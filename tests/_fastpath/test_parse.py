"""parse_batch."""

import struct
from array import array
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)

from tests._fastpath.packets import (
    DATA_VALID,
    FRAGMENTS,
    GOOD,
    NEEDS_CSUM,
    SOURCE,
    SOURCE6,
    TARGET,
    TARGET6,
    echo4,
    echo6,
    ip4,
    ip6,
    tcp,
    udp,
    virtio,
)
from tunstack._fastpath import reference
from tunstack._fastpath.record import (
    MORE_OPTIONS,
    NO_OPTIONS,
    TIMESTAMPS,
    Record,
    Verdict,
)

VIRTIO = 10


def parse(impl, packet: bytes, vnet: int = 0) -> Record:
    (record,) = impl.parse_batch(packet, len(packet), [len(packet)], vnet)
    return record


def verdict(impl, packet, vnet: int = 0) -> Verdict:
    return Verdict(parse(impl, bytes(packet), vnet)[8])


def octets(address: str) -> bytes:
    parsed = ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def make_key(protocol: int, source: str, target: str, sport: int, dport: int) -> bytes:
    addresses = octets(source) + octets(target)
    return bytes([protocol]) + addresses + struct.pack("!HH", sport, dport)


def resum(packet: bytes) -> bytes:
    """Make the checksum of an IPv4 header right again."""
    end = (packet[0] & 15) * 4
    header = packet[:10] + b"\0\0" + packet[12:end]
    total = 0xFFFF - reference.sum16(header, 0)
    return header[:10] + total.to_bytes(2, "big") + header[12:] + packet[end:]


def patched(packet, **at: int) -> bytes:
    """Change octets; ``o9=17`` sets octet 9 to 17."""
    octets = bytearray(bytes(packet))
    for name, value in at.items():
        octets[int(name[1:])] = value
    return bytes(octets)


# What is delivered


@pytest.mark.parametrize("name", GOOD)
def test_good_packets_are_delivered(impl, name):
    packet = bytes(GOOD[name])
    assert verdict(impl, packet) is Verdict.DELIVER
    assert verdict(impl, bytes(VIRTIO) + packet, VIRTIO) is Verdict.DELIVER


@pytest.mark.parametrize(
    ("source", "target", "ip"), [(SOURCE, TARGET, 20), (SOURCE6, TARGET6, 40)]
)
def test_a_segment_is_read(impl, source, target, ip):
    network = ip4 if ip == 20 else ip6
    options = [("MSS", 1460), ("NOP", None), ("NOP", None)]
    segment = TCP(
        sport=40000, dport=80, seq=2**32 - 1, ack=2**31, flags="FSRPAUEC", window=65535,
        options=options,
    )  # fmt: skip
    packet = bytes(network / segment / b"text!")
    text = ip + 20 + 8
    assert parse(impl, packet) == (
        *(2**32 - 1, 2**31),
        *(0, ip + 20, text, text + 5),
        *(65535, 0, Verdict.DELIVER, 0xFF, MORE_OPTIONS),
        make_key(6, source, target, 40000, 80),
        0,
    )


TIMESTAMP = ("Timestamp", (0xFEDCBA98, 7))
NOP = ("NOP", None)


@pytest.mark.parametrize(
    ("options", "code", "tsval"),
    [
        ([], NO_OPTIONS, 0),
        ([NOP, NOP, TIMESTAMP], TIMESTAMPS, 0xFEDCBA98),
        ([TIMESTAMP, NOP, NOP], MORE_OPTIONS, 0),
        ([NOP, NOP, TIMESTAMP, NOP, NOP, ("SAck", (1, 2))], MORE_OPTIONS, 0),
        ([NOP, NOP, ("SAckOK", b"")], MORE_OPTIONS, 0),
        ([("EOL", None)], MORE_OPTIONS, 0),
    ],
)
def test_timestamps_alone_are_read_and_other_options_announced(impl, options, code, tsval):
    record = parse(impl, bytes(ip4 / TCP(sport=1, dport=2, options=options) / b"text"))
    assert (record[8], record[10], record[12]) == (Verdict.DELIVER, code, tsval)


@pytest.mark.parametrize(
    ("source", "target", "ip"), [(SOURCE, TARGET, 20), (SOURCE6, TARGET6, 40)]
)
def test_a_datagram_is_read(impl, source, target, ip):
    packet = bytes((ip4 if ip == 20 else ip6) / udp / b"query")
    at = ip + 8
    key = make_key(17, source, target, 40000, 53)
    assert parse(impl, packet) == (
        0,
        0,
        0,
        at,
        at,
        at + 5,
        0,
        0,
        Verdict.DELIVER,
        0,
        0,
        key,
        0,
    )


@pytest.mark.parametrize(
    ("packet", "kind", "at"), [(ip4 / echo4, 8, 20), (ip6 / echo6, 128, 40)]
)
def test_an_echo_request_is_read(impl, packet, kind, at):
    record = parse(impl, bytes(packet / b"ping"))
    assert record[:11] == (
        0x5678,
        0,
        0,
        at,
        at + 8,
        at + 12,
        0,
        0,
        Verdict.DELIVER,
        kind,
        0,
    )
    assert record[11][33:] == b"\x12\x34\0\0"


def test_an_icmp_error_has_type_and_code_and_no_identifier(impl):
    record = parse(impl, bytes(GOOD["icmp4 error"]))
    assert record[0] == 0
    assert record[8:11] == (Verdict.DELIVER, 3, 4)
    assert record[11][33:] == bytes(4)


def test_padding_behind_the_packet_is_cut(impl):
    packet = bytes(ip4 / tcp / b"text")
    assert parse(impl, packet + bytes(6)) == parse(impl, packet)
    packet = bytes(ip6 / tcp / b"text")
    assert parse(impl, packet + bytes(6)) == parse(impl, packet)


def test_a_datagram_ends_where_its_length_says(impl):
    datagram = bytes(ip4 / udp / b"query")
    longer = resum(patched(datagram + b"tail", o3=len(datagram) + 4))
    assert parse(impl, longer)[:8] == parse(impl, datagram)[:8]


def test_each_slot_is_parsed_where_it_lies(impl):
    stride = 2048
    packets = [bytes(GOOD[name]) for name in ("tcp4", "udp6", "echo4")]
    arena = bytearray(3 * stride)
    for slot, packet in enumerate(packets):
        arena[slot * stride : slot * stride + len(packet)] = packet
    records = list(impl.parse_batch(arena, stride, [len(p) for p in packets], 0))
    for slot, (record, packet) in enumerate(zip(records, packets, strict=True)):
        alone = parse(impl, packet)
        shifted = tuple(offset + slot * stride for offset in alone[2:6])
        assert record == (*alone[:2], *shifted, *alone[6:])


def test_nothing_to_parse_gives_nothing(impl):
    assert list(impl.parse_batch(b"", 0, [], VIRTIO)) == []


# Fragments


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_are_told_apart(impl, name):
    packet = bytes(FRAGMENTS[name])
    text = 20 if name.endswith("4") else 48
    source, target = (SOURCE, TARGET) if name.endswith("4") else (SOURCE6, TARGET6)
    key = make_key(17, source, target, 0, 0)
    ends = (0, 0, text, len(packet))
    assert parse(impl, packet) == (0, 0, *ends, 0, 0, Verdict.FRAGMENT, 0, 0, key, 0)


def test_an_atomic_fragment_is_an_ordinary_packet(impl):
    packet = bytes(ip6 / IPv6ExtHdrFragment(offset=0, m=0, id=1) / udp / b"query")
    assert parse(impl, packet)[8] == Verdict.DELIVER
    assert parse(impl, packet)[4] == 40 + 8 + 8


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=SOURCE, dst=TARGET, flags="MF", proto=17) / bytes(9),
        IP(src=SOURCE, dst=TARGET, frag=3, proto=17),
        IP(src=SOURCE, dst=TARGET, frag=8191, proto=17) / bytes(8),
        ip6 / IPv6ExtHdrFragment(m=1, nh=17) / bytes(9),
        ip6 / IPv6ExtHdrFragment(offset=3, nh=17),
        ip6 / IPv6ExtHdrFragment(offset=8191, nh=17) / bytes(8),
    ],
    ids=["odd4", "empty4", "beyond4", "odd6", "empty6", "beyond6"],
)
def test_fragments_that_no_packet_has_are_refused(impl, packet):
    assert verdict(impl, packet) is Verdict.BAD_FRAGMENT


# What is refused

TCP4, TCP6 = bytes(ip4 / tcp / b"text"), bytes(ip6 / tcp / b"text")
UDP4, UDP6 = bytes(ip4 / udp / b"query"), bytes(ip6 / udp / b"query")


def of4(protocol: int) -> IP:
    return IP(src=SOURCE, dst=TARGET, proto=protocol)


def of6(protocol: int) -> IPv6:
    return IPv6(src=SOURCE6, dst=TARGET6, nh=protocol)


REFUSED = {
    "nothing": (b"", Verdict.TRUNCATED),
    "half a header4": (TCP4[:19], Verdict.TRUNCATED),
    "half a header6": (TCP6[:39], Verdict.TRUNCATED),
    "version 0": (bytes(60), Verdict.BAD_VERSION),
    "version 5": (patched(TCP4, o0=0x55), Verdict.BAD_VERSION),
    "header of 16": (resum(patched(TCP4, o0=0x44)), Verdict.BAD_HEADER_LENGTH),
    "header of 60": (resum(patched(TCP4[:40], o0=0x4F, o3=40)), Verdict.BAD_TOTAL_LENGTH),
    "cut short4": (TCP4[:-1], Verdict.BAD_TOTAL_LENGTH),
    "cut short6": (TCP6[:-1], Verdict.BAD_TOTAL_LENGTH),
    "total length 19": (resum(patched(TCP4, o3=19)), Verdict.BAD_TOTAL_LENGTH),
    "header checksum": (patched(TCP4, o8=1), Verdict.BAD_CHECKSUM),
    "tcp checksum 4": (patched(TCP4, o43=0), Verdict.BAD_CHECKSUM),
    "tcp checksum 6": (patched(TCP6, o63=0), Verdict.BAD_CHECKSUM),
    "udp checksum 4": (patched(UDP4, o32=0), Verdict.BAD_CHECKSUM),
    "udp checksum 6": (patched(UDP6, o52=0), Verdict.BAD_CHECKSUM),
    "udp6 without": (ip6 / UDP(sport=1, dport=2, chksum=0), Verdict.BAD_CHECKSUM),
    "icmp checksum 4": (ip4 / ICMP(chksum=1) / b"x", Verdict.BAD_CHECKSUM),
    "icmp checksum 6": (patched(ip6 / echo6 / b"x", o48=0), Verdict.BAD_CHECKSUM),
    "tcp header cut4": (ip4 / bytes(19), Verdict.UNKNOWN_PROTOCOL),
    "tcp cut4": (of4(6) / bytes(19), Verdict.BAD_TRANSPORT_HEADER),
    "tcp cut6": (of6(6) / bytes(19), Verdict.BAD_TRANSPORT_HEADER),
    "udp cut": (of4(17) / bytes(7), Verdict.BAD_TRANSPORT_HEADER),
    "icmp cut": (of4(1) / bytes(7), Verdict.BAD_TRANSPORT_HEADER),
    "data offset 16": (ip4 / TCP(dataofs=4), Verdict.BAD_TRANSPORT_HEADER),
    "data offset 24": (ip4 / TCP(dataofs=6), Verdict.BAD_TRANSPORT_HEADER),
    "udp length 7": (ip4 / UDP(sport=1, dport=2, len=7), Verdict.BAD_TRANSPORT_HEADER),
    "udp length 9": (ip4 / UDP(sport=1, dport=2, len=9), Verdict.BAD_TRANSPORT_HEADER),
    "udp length 0": (ip6 / UDP(sport=1, dport=2, len=0), Verdict.BAD_TRANSPORT_HEADER),
    "tcp from port 0": (ip4 / TCP(sport=0, dport=2), Verdict.BAD_PORT),
    "tcp to port 0": (ip6 / TCP(sport=1, dport=0), Verdict.BAD_PORT),
    "udp from port 0": (ip4 / UDP(sport=0, dport=2), Verdict.BAD_PORT),
    "udp to port 0": (ip6 / UDP(sport=1, dport=0), Verdict.BAD_PORT),
    "igmp": (of4(2) / bytes(8), Verdict.UNKNOWN_PROTOCOL),
    "icmp4 in 6": (of6(1) / bytes(8), Verdict.UNKNOWN_PROTOCOL),
    "icmp6 in 4": (of4(58) / bytes(8), Verdict.UNKNOWN_PROTOCOL),
    "no next header": (of6(59), Verdict.UNKNOWN_PROTOCOL),
    "authentication": (of6(51) / bytes(24), Verdict.UNKNOWN_PROTOCOL),
    "hop by hop in 4": (of4(0) / bytes(8), Verdict.UNKNOWN_PROTOCOL),
    "jumbo": (
        IPv6(src=SOURCE6, dst=TARGET6, plen=0, nh=0) / bytes.fromhex("3b00c20400010008"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "extension cut": (
        of6(60) / bytes.fromhex("3b000104000000"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "extension beyond": (
        of6(60) / bytes.fromhex("3b01010400000000"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "option beyond": (
        of6(60) / bytes.fromhex("3b00010500000000"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "option without length": (
        of6(60) / bytes.fromhex("3b00010300000001"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "option not to be skipped": (
        of6(60) / bytes.fromhex("3b00c20400000000"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "routed further": (
        ip6 / IPv6ExtHdrRouting(segleft=1, addresses=["fd00::9"]) / tcp,
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "hop by hop late": (
        ip6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / tcp,
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "fragment header cut": (
        of6(44) / bytes.fromhex("11000000000000"),
        Verdict.BAD_EXTENSION_HEADER,
    ),
    "headers without end": (
        of6(60) / (bytes.fromhex("3c00010400000000") * 500),
        Verdict.BAD_EXTENSION_HEADER,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_reason(impl, name):
    packet, want = REFUSED[name]
    assert verdict(impl, packet) is want


BAD_4 = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.1.2.3",
         "255.255.255.255"]  # fmt: skip
BAD_6 = ["::", "::1", "::ffff:10.0.0.1", "fe80::1", "febf::1", "ff02::1", "ff0e::1"]
FINE_4 = ["10.0.0.1", "128.0.0.1", "126.255.255.255", "223.255.255.255", "240.0.0.1",
          "255.255.255.254", "169.254.169.254"]  # fmt: skip
FINE_6 = ["::2", "::1:0:0:1", "fec0::1", "fd00::1", "2001:db8::1", "64:ff9b::a00:1"]


@pytest.mark.parametrize("address", BAD_4 + BAD_6)
def test_addresses_of_no_single_far_host_are_refused(impl, address):
    network = IPv6 if ":" in address else IP
    other = SOURCE6 if ":" in address else SOURCE
    assert verdict(impl, network(src=address, dst=other) / tcp) is Verdict.BAD_ADDRESS
    assert verdict(impl, network(src=other, dst=address) / tcp) is Verdict.BAD_ADDRESS


@pytest.mark.parametrize("address", FINE_4 + FINE_6)
def test_addresses_of_hosts_are_taken(impl, address):
    network = IPv6 if ":" in address else IP
    other = SOURCE6 if ":" in address else SOURCE
    assert verdict(impl, network(src=address, dst=other) / tcp) is Verdict.DELIVER
    assert verdict(impl, network(src=other, dst=address) / tcp) is Verdict.DELIVER


def test_a_drop_says_where_it_was_and_whose(impl):
    packet = bytes(7) + bytes(ip4 / TCP(sport=0, dport=80)) + bytes(3)
    (record,) = impl.parse_batch(packet[7:], 43, [43], 0)
    key = make_key(6, SOURCE, TARGET, 0, 80)
    assert record == (0, 0, 0, 0, 0, 40, 0, 0, Verdict.BAD_PORT, 0, 0, key, 0)


# Virtio headers


@pytest.mark.parametrize(
    "packet", [TCP4, TCP6, UDP4, UDP6], ids=["tcp4", "tcp6", "udp4", "udp6"]
)
@pytest.mark.parametrize("flags", [NEEDS_CSUM, DATA_VALID, NEEDS_CSUM | DATA_VALID])
def test_a_checksum_that_the_device_answers_for_is_not_looked_at(impl, packet, flags):
    packet = packet[:-1] + b"!"
    assert verdict(impl, virtio(packet, flags=0), VIRTIO) is Verdict.BAD_CHECKSUM
    assert verdict(impl, virtio(packet, flags=flags), VIRTIO) is Verdict.DELIVER


@pytest.mark.parametrize(
    ("packet", "gso"),
    [(TCP4, 1), (TCP6, 4), (UDP4, 5), (UDP6, 5), (TCP4, 0x81), (TCP6, 0x84)],
)
def test_the_size_of_segments_to_cut_is_passed_on(impl, packet, gso):
    record = parse(impl, virtio(packet, gso=gso, size=1400, header=len(packet)), VIRTIO)
    assert (record[7], record[8]) == (1400, Verdict.DELIVER)
    assert record[2] == VIRTIO


def test_a_size_without_cutting_means_nothing(impl):
    assert parse(impl, virtio(TCP4, gso=0, size=1400), VIRTIO)[7] == 0


@pytest.mark.parametrize(
    "slot",
    [
        virtio(TCP4, flags=4),
        virtio(TCP4, start=0),
        virtio(TCP4, start=24),
        virtio(TCP4, start=65535),
        virtio(TCP4, offset=6),
        virtio(TCP4, offset=65535),
        virtio(UDP4, offset=16),
        virtio(TCP4, header=len(TCP4) + 1),
        virtio(TCP4, gso=1),
        virtio(TCP4, gso=4, size=1400),
        virtio(TCP6, gso=1, size=1400),
        virtio(TCP4, gso=5, size=1400),
        virtio(UDP4, gso=1, size=1400),
        virtio(UDP4, gso=3, size=1400),
        virtio(TCP4, gso=0x7F, size=1400),
        virtio(bytes(ip4 / echo4), offset=2),
        virtio(bytes(ip4 / echo4), flags=0, gso=1, size=1400),
    ],
)  # fmt: skip
def test_virtio_headers_that_do_not_fit_are_refused(impl, slot):
    assert verdict(impl, slot, VIRTIO) is Verdict.BAD_VIRTIO_HEADER


@pytest.mark.parametrize("length", range(VIRTIO + 1))
def test_a_slot_without_a_packet_is_truncated(impl, length):
    assert verdict(impl, bytes(length), VIRTIO) is Verdict.TRUNCATED


# Wrong calls


@pytest.mark.parametrize(
    ("size", "stride", "lengths", "vnet"),
    [
        (100, 50, [50, 51], 0),
        (99, 50, [50, 50], 0),
        (100, 50, [0, 0, 1], 0),
        (50, 50, [50], 12),
    ],
    ids=["overlap", "behind", "outside", "virtio"],
)
def test_a_wrong_call_is_a_value_error(impl, size, stride, lengths, vnet):
    with pytest.raises(ValueError):
        impl.parse_batch(bytes(size), stride, lengths, vnet)


# Any octets

BANK = [bytes(p) for p in (*GOOD.values(), *FRAGMENTS.values()) if len(p) < 2000]
BANK += [bytes(packet) for packet, _ in REFUSED.values()]
HEADERS = st.one_of(
    st.just(bytes(VIRTIO)),
    st.binary(min_size=VIRTIO, max_size=VIRTIO),
    st.builds(
        struct.Struct("=BBHHHH").pack,
        st.integers(0, 3),
        st.sampled_from([0, 1, 4, 5, 0x81]),
        st.integers(0, 80),
        st.sampled_from([0, 1, 1400]),
        st.sampled_from([20, 24, 40, 48]),
        st.sampled_from([6, 16]),
    ),
)


@st.composite
def damaged(draw) -> bytes:
    """Draw a packet with some octets changed, cut or padded; checksum right or not."""
    packet = bytearray(draw(st.sampled_from(BANK)))
    edits = st.tuples(st.integers(0, max(len(packet) - 1, 0)), st.integers(0, 255))
    for at, value in draw(st.lists(edits, max_size=6)) if packet else ():
        packet[at] = value
    packet = packet[: draw(st.integers(0, len(packet)))] if draw(st.booleans()) else packet
    packet += draw(st.binary(max_size=12))
    if len(packet) >= 20 and packet[0] >> 4 == 4 and draw(st.booleans()):
        return resum(bytes(packet))
    return bytes(packet)


def equal(kernels, packets: list[bytes], vnet: int) -> None:
    stride = max(map(len, packets)) + 3
    octets = b"".join(packet.ljust(stride, b"\xa5") for packet in packets)
    lengths = [len(packet) for packet in packets]
    # Nothing follows the last packet, so that the sanitizers see who reads on.
    end = len(octets) - stride + lengths[-1]
    arena = memoryview(array("B", octets[:end]))
    found = list(kernels.parse_batch(arena, stride, lengths, vnet))
    assert found == reference.parse_batch(arena, stride, lengths, vnet)


@given(packets=st.lists(damaged(), min_size=1, max_size=8))
def test_the_twins_agree_on_damaged_packets(packets):
    kernels = pytest.importorskip("tunstack._fastpath.kernels", reason="not built")
    equal(kernels, packets, 0)


@given(
    packets=st.lists(st.builds(bytes.__add__, HEADERS, damaged()), min_size=1, max_size=8)
)
def test_the_twins_agree_on_damaged_packets_with_virtio_headers(packets):
    kernels = pytest.importorskip("tunstack._fastpath.kernels", reason="not built")
    equal(kernels, packets, VIRTIO)


@given(packets=st.lists(st.binary(max_size=120), min_size=1, max_size=8))
def test_the_twins_agree_on_any_octets(packets):
    kernels = pytest.importorskip("tunstack._fastpath.kernels", reason="not built")
    equal(kernels, packets, 0)
    equal(kernels, packets, VIRTIO)
