"""Any octets into the kernels: a record for each slot, and both say the same."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._fastpath.packets import FRAGMENTS, GOOD, virtio
from tests.fuzz import parse as script
from tunstack._fastpath import reference
from tunstack._fastpath.record import Verdict

PACKETS = [bytes(p) for p in (*GOOD.values(), *FRAGMENTS.values()) if len(bytes(p)) < 2000]
V4 = [packet for packet in PACKETS if packet[0] >> 4 == 4]

FEW = settings(max_examples=settings.default.max_examples * 2 // 5)

addresses = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda octets: bytes(10) + b"\xff\xff" + octets),
    st.binary(min_size=16, max_size=16),
)
ports = st.integers(1, 0xFFFF)


def implementations():
    """Give both: hypothesis and a parametrized fixture do not go together."""
    yield reference
    if script.kernels is not None:
        yield script.kernels


@st.composite
def damaged(draw):
    """A packet that was valid, with a few octets changed, cut or added."""
    packet = draw(st.sampled_from(PACKETS))
    if draw(st.booleans()):
        packet = (
            draw(
                st.builds(
                    struct.Struct("=BBHHHH").pack,
                    st.sampled_from([0, 1, 1, 2, 3, 4]),
                    st.sampled_from([0, 0, 1, 4, 5, 0x81, 3]),
                    st.sampled_from([0, 40, 60, 2000, 65_535]),
                    st.sampled_from([0, 1, 1400, 65_535]),
                    st.sampled_from([0, 20, 40, 65_535]),
                    st.sampled_from([0, 6, 16, 65_535]),
                )
            )
            + packet
        )
    octets = bytearray(packet)
    for at, value in draw(
        st.lists(
            st.tuples(st.integers(0, len(packet) - 1), st.integers(0, 255)), max_size=4
        )
    ):
        octets[at] = value
    cut = draw(st.one_of(st.just(len(octets)), st.integers(0, len(octets))))
    return bytes(octets[:cut]) + draw(st.binary(max_size=3))


@given(
    mode=st.integers(0, 3),
    gap=st.sampled_from([0, 1, 200]),
    slots=st.lists(st.one_of(damaged(), st.binary(max_size=120)), max_size=6),
)
@settings(FEW, deadline=None)
def test_any_slots_are_parsed_alike_and_inside_their_slots(mode, gap, slots):
    script.check(
        bytes((mode, gap)) + b"".join(len(slot).to_bytes(2) + slot for slot in slots)
    )


@pytest.mark.parametrize("packet", PACKETS, ids=range(len(PACKETS)))
def test_each_octet_of_each_header_may_be_anything(packet):
    """Lengths are what is dangerous, so small numbers and those around the right one."""
    vouched = bytes((2,)) + bytes(9)
    changed = [vouched + packet]
    for at, octet in enumerate(packet[:110]):
        changed.extend(
            vouched + packet[:at] + bytes((value,)) + packet[at + 1 :]
            for value in sorted({0, 1, 4, 7, 8, 0x7F, 0xFF, octet ^ 1, (octet + 1) & 0xFF})
        )
    script.check(
        bytes((script.VNET | script.MENDED, 0))
        + b"".join(len(slot).to_bytes(2) + slot for slot in changed)
    )


@given(st.binary(max_size=400))
def test_any_octets_at_all_are_parsed_alike(octets):
    script.check(octets)


@given(
    packet=st.sampled_from(PACKETS),
    kind=st.sampled_from([1, 4, 5, 0x81]),
    size=st.integers(0, 0xFFFF),
)
@settings(FEW)
def test_what_the_kernel_may_cut_is_named_with_its_size_or_refused(packet, kind, size):
    slot = virtio(packet, gso=kind, size=size)
    for impl in implementations():
        (record,) = impl.parse_batch(slot, len(slot), [len(slot)], 10)
        if record[8] == Verdict.DELIVER:
            assert record[7] == size > 0


@given(
    source=addresses, target=addresses, sport=ports, dport=ports,
    numbers=st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 2), flags=st.integers(0, 255),
    window=st.integers(0, 0xFFFF), options=st.integers(0, 10), text=st.binary(max_size=99),
    ident=st.integers(0, 0xFFFF), vnet=st.sampled_from([0, 10]), gso=st.integers(0, 100),
)  # fmt: skip
@settings(FEW)
def test_a_segment_that_was_framed_is_parsed_as_that_segment(
    source, target, sport, dport, numbers, flags, window, options, text, ident, vnet, gso
):
    if reference._is_v4(bytes(1) + source + target) != (source[:12] == target[:12]):
        target = source[:12] + target[12:]
    key = bytes((6,)) + source + target + struct.pack("!HH", sport, dport)
    data = bytes((1,)) * 4 * options
    total = 0 if vnet else reference.sum16(text, 0)
    headers = {
        impl.frame_tcp(
            key, *numbers, flags, window, data, len(text), total, ident, gso, vnet
        )
        for impl in implementations()
    }
    (header,) = headers
    packet = header + text
    (record,) = reference.parse_batch(packet, len(packet), [len(packet)], vnet)
    if record[8] == Verdict.BAD_ADDRESS:
        return
    assert record[8] == Verdict.DELIVER
    assert (*record[:2], record[6], record[9]) == (*numbers, window, flags)
    assert packet[record[3] : record[4]] == data
    assert packet[record[4] : record[5]] == text
    assert record[7] == (gso if vnet and len(text) > gso else 0)
    assert record[11] == key[:1] + target + source + struct.pack("!HH", dport, sport)


@given(
    source=addresses, target=addresses, sport=ports, dport=ports,
    text=st.binary(max_size=99), ident=st.integers(0, 0xFFFF),
    vnet=st.sampled_from([0, 10]),
)  # fmt: skip
@settings(FEW)
def test_a_datagram_that_was_framed_is_parsed_as_that_datagram(
    source, target, sport, dport, text, ident, vnet
):
    target = source[:12] + target[12:]
    key = bytes((17,)) + source + target + struct.pack("!HH", sport, dport)
    total = 0 if vnet else reference.sum16(text, 0)
    (header,) = {
        impl.frame_udp(key, len(text), total, ident, vnet) for impl in implementations()
    }
    packet = header + text
    (record,) = reference.parse_batch(packet, len(packet), [len(packet)], vnet)
    if record[8] == Verdict.BAD_ADDRESS:
        return
    assert record[8] == Verdict.DELIVER
    assert packet[record[4] : record[5]] == text
    assert record[11] == key[:1] + target + source + struct.pack("!HH", dport, sport)


@given(st.binary(max_size=600))
@settings(FEW)
def test_frames_that_are_found_lie_one_behind_the_other(message):
    for impl in implementations():
        found = impl.split_frames(message)
        at = 0
        for kind, flow, start, end in found or ():
            assert 0 <= kind <= 255
            assert 0 <= flow <= 0xFFFFFFFF
            assert start == at + 8
            assert start <= end <= len(message)
            at = end
        assert found is None or at == len(message)
