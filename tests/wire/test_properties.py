"""Any octets into any reader are values; what was built is read as it was meant."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tunstack._fastpath import reference
from tunstack._fastpath.record import Verdict
from tunstack.stack.reassembly import MAX_OCTETS, MAX_PACKETS, Reassembly
from tunstack.wire import extension, icmp, ip, tcp
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal

ADDRESSES = {
    4: (flow_key.MAPPED + bytes((198, 18, 0, 1)), flow_key.MAPPED + bytes((10, 96, 0, 1))),
    6: (bytes.fromhex("fd00" + 28 * "0"), bytes.fromhex("fd96" + 28 * "0")),
}
FEW = settings(max_examples=settings.default.max_examples * 2 // 5)

versions = st.sampled_from([4, 6])
ports = st.integers(1, 0xFFFF)


def parse(packet: bytes) -> tuple:
    (record,) = reference.parse_batch(packet, len(packet), [len(packet)], 0)
    return record


@given(st.binary(max_size=60))
def test_any_options_are_read(data):
    options = tcp.parse_options(data)
    assert options.mss is None or 0 <= options.mss <= 0xFFFF
    assert options.window_scale is None or 0 <= options.window_scale <= 14
    assert len(options.sack) <= len(data) // 8
    assert all(0 <= edge <= 0xFFFFFFFF for block in options.sack for edge in block)


@given(
    mss=st.integers(0, 0xFFFF),
    scale=st.one_of(st.none(), st.integers(0, 14)),
    sack=st.booleans(),
    stamps=st.one_of(st.none(), st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 2)),
    junk=st.binary(max_size=20),
)
def test_options_of_a_syn_are_read_as_they_were_written_and_nothing_behind_their_end(
    mss, scale, sack, stamps, junk
):
    data = tcp.syn_options(mss, scale, sack, stamps)
    assert len(data) % 4 == 0
    assert len(data) <= 40
    options = tcp.parse_options(data + b"\0" + junk)
    assert options == tcp.Options(mss, scale, sack, (), stamps)


@given(st.lists(st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 2), max_size=4))
def test_sack_blocks_are_read_as_they_were_written(blocks):
    assert tcp.parse_options(tcp.sack_option(tuple(blocks))).sack == tuple(blocks)


@given(version=versions, sequence=st.integers(0, 0xFFFF), data=st.binary(max_size=200),
       ident=st.integers(0, 0xFFFF), identifier=st.integers(0, 0xFFFF))  # fmt: skip
def test_an_echo_that_was_built_is_parsed_as_that_echo(
    version, sequence, data, ident, identifier
):
    source, target = ADDRESSES[version]
    protocol = {4: icmp.ICMP, 6: icmp.ICMP6}[version]
    key = bytes((protocol,)) + source + target + struct.pack("!HH", identifier, 0)
    packet = icmp.echo_reply(key, sequence, data, ident)
    record = parse(packet)
    assert record[8] == Verdict.DELIVER
    assert (record[0], record[9]) == (sequence, icmp.ECHO_REPLY[protocol])
    assert record[11] == key[:1] + target + source + key[33:]
    assert packet[record[4] : record[5]] == data


@given(version=versions, protocol=st.integers(0, 255), text=st.binary(max_size=1500),
       refusal=st.sampled_from([Refusal.REFUSED, Refusal.HOST_UNREACHABLE,
                                Refusal.PROHIBITED]))  # fmt: skip
def test_an_error_about_any_packet_is_valid_or_is_not_sent(
    version, protocol, text, refusal
):
    source, target = ADDRESSES[version]
    offender = ip.header(protocol, source, target, len(text)) + text
    for packet in (
        icmp.unreachable(refusal, offender),
        icmp.time_exceeded(offender),
        icmp.not_understood(offender),
    ):
        if packet is None:
            continue
        assert len(packet) <= {4: 576, 6: 1280}[version]
        record = parse(packet)
        assert record[8] == Verdict.DELIVER
        assert record[11][1:33] == target + source
        quoted = packet[record[4] : record[5]]
        assert quoted == offender[: len(quoted)]


@given(version=versions, start=st.sampled_from([b"", b"E", b"`"]), data=st.binary())
def test_what_any_router_says_of_a_link_is_read_or_nothing(version, start, data):
    protocol = {4: icmp.ICMP, 6: icmp.ICMP6}[version]
    said = icmp.too_big(protocol, bytes(8) + start + data)
    if said is not None:
        assert len(said.key) == 37
        assert said.key[0] == 6
        assert said.mtu >= {4: 552, 6: 1280}[version]


@given(
    st.lists(st.sampled_from([0, 43, 44, 60, 59, 6, 17, 58, 99]), max_size=6), st.binary()
)
def test_any_chain_of_extension_headers_has_a_pointer_inside_it_or_none(chain, data):
    source, target = ADDRESSES[6]
    text = b"".join(bytes((following, 0)) + bytes(6) for following in chain[1:]) + data
    packet = ip.header(chain[0] if chain else 0, source, target, len(text)) + text
    problem = extension.problem(packet)
    if problem is not None:
        code, pointer = problem
        assert code in (0, 1, 2)
        assert pointer < len(packet)
    protocol, at = extension.upper(packet)
    assert 40 <= at
    assert 0 <= protocol <= 255


# Fragments


@given(version=versions, size=st.integers(1, 9000), mtu=st.integers(1280, 1500),
       ident=st.integers(1, 0xFFFF), order=st.randoms(use_true_random=False),
       repeated=st.integers(0, 3))  # fmt: skip
def test_a_packet_that_was_cut_becomes_whole_in_any_order(
    version, size, mtu, ident, order, repeated
):
    source, target = ADDRESSES[version]
    key = bytes((17,)) + target + source + struct.pack("!HH", 53, 5000)
    text = order.randbytes(size)
    head = reference.frame_udp(key, size, reference.sum16(text, 0), ident, 0)
    fragments = ip.fragment(head + text, mtu, ident)
    assert all(len(fragment) <= mtu for fragment in fragments)
    if len(fragments) == 1:
        return
    reassembly = Reassembly()
    heard = fragments[:-1] + order.choices(fragments[:-1], k=repeated)
    order.shuffle(heard)
    whole = [
        reassembly.add(memoryview(fragment), record[4], 0.0)
        for fragment in [*heard, fragments[-1]]
        if (record := parse(fragment))[8] == Verdict.FRAGMENT
    ]
    assert len(whole) == len(heard) + 1
    assert whole[:-1] == [None] * len(heard)
    record = parse(whole[-1])
    assert record[8] == Verdict.DELIVER
    assert whole[-1][record[4] : record[5]] == text


def pattern(version: int, ident: int, offset: int, size: int) -> bytes:
    """What lies there in a packet: no two places look the same."""
    return b"".join(
        struct.pack("!BBH", version, ident, at & 0xFFFF)
        for at in range(offset, offset + size + 4, 4)
    )[:size]


@st.composite
def pieces(draw, version: int):
    """A fragment with any numbers in it."""
    source, target = ADDRESSES[version]
    size = draw(st.sampled_from([8, 8, 16, 16, 24, 5, 0, 1480, 65_000]))
    offset = draw(st.one_of(st.integers(0, 3), st.integers(0, 8191))) * 8
    more, ident = draw(st.booleans()), draw(st.integers(0, 1))
    text = pattern(version, ident, offset, size)
    if version == 6:
        protocol = draw(st.sampled_from([17, 44, 0, 58]))
        extension = struct.pack("!BxHI", protocol, offset | more, ident)
        return ip.header(44, source, target, 8 + size) + extension + text
    options = bytes((1,)) * draw(st.sampled_from([0, 0, 4, 20, 40]))
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBxx4s4s", 0x40 | length // 4, 0, min(length + size, 0xFFFF), ident,
        more << 13 | offset >> 3, 64, 17, source[12:], target[12:],
    )  # fmt: skip
    total = 0xFFFF - reference.sum16(head + options, 0)
    return head[:10] + total.to_bytes(2) + head[12:] + options + text


def check_whole(whole: bytes, fragment: bytes) -> None:
    """Each octet lies where its sender had it."""
    version = fragment[0] >> 4
    at = (whole[0] & 15) * 4 if version == 4 else 40
    ident = fragment[5] if version == 4 else fragment[47]
    assert len(whole) <= (65_535 if version == 4 else 65_535 + 40)
    assert whole[at:] == pattern(version, ident, 0, len(whole) - at)


@given(
    heard=st.lists(
        st.tuples(versions.flatmap(pieces), st.sampled_from([0.0, 1.0, 40.0])), max_size=30
    )
)
@settings(FEW)
def test_any_fragments_are_a_packet_or_refused_and_memory_is_bounded(heard):
    reassembly, now = Reassembly(), 0.0
    for fragment, later in heard:
        now += later
        record = parse(fragment)
        if record[8] != Verdict.FRAGMENT:
            continue
        view = memoryview(fragment)[: record[5]]
        reassembly.expire(now)
        try:
            whole = reassembly.add(view, record[4], now)
        except ValueError:
            continue
        if whole is not None:
            check_whole(whole, fragment)
        held = [assembly.octets for assembly in reassembly._assemblies.values()]
        assert sum(held) == reassembly._octets <= MAX_OCTETS
        assert len(held) <= MAX_PACKETS
