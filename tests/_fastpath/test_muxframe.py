"""pack_frames and split_frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunstack._fastpath import reference
from tunstack.wire.frame import HEADER

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 0xFFFFFFFF), st.binary(max_size=40)),
    max_size=40,
)


def encode(frames: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(
        HEADER.pack(kind << 24 | len(payload), flow) + payload
        for kind, flow, payload in frames
    )


def spans_of(frames: list[tuple[int, int, bytes]]) -> tuple[bytes, list[int]]:
    source, spans = b"", []
    for kind, flow, payload in frames:
        spans += [kind, flow, len(source), len(source) + len(payload)]
        source += payload
    return source, spans


@given(frames=FRAMES, before=st.integers(0, 9), behind=st.integers(0, 9))
def test_packed_frames_are_headers_and_payloads(frames, before, behind):
    source, spans = spans_of(frames)
    want = encode(frames)
    for impl in implementations():
        out = bytearray(before + len(want) + behind)
        assert impl.pack_frames(out, before, source, spans) == before + len(want)
        assert out == bytes(before) + want + bytes(behind)


@given(frames=FRAMES)
def test_a_message_splits_into_the_frames_it_was_made_of(frames):
    message = encode(frames)
    for impl in implementations():
        found = impl.split_frames(message)
        assert [(k, f, message[a:b]) for k, f, a, b in found] == frames


@given(message=st.binary(max_size=200))
def test_any_octets_split_alike(message):
    want = reference.split_frames(message)
    for impl in implementations():
        found = impl.split_frames(message)
        assert (found is None) == (want is None)
        assert found is None or list(found) == want


@given(frames=FRAMES, cut=st.integers(1, 47), more=st.binary(min_size=1, max_size=7))
def test_a_message_that_ends_inside_a_frame_is_refused(frames, cut, more):
    frames = [*frames, (4, 1, bytes(40))]
    for impl in implementations():
        assert impl.split_frames(encode(frames)[:-cut]) is None
        assert impl.split_frames(encode(frames) + more) is None


def implementations():
    """Give both: hypothesis and a parametrized fixture do not go together."""
    yield reference
    try:
        from tunstack._fastpath import kernels
    except ImportError:
        return
    yield kernels


def test_many_small_frames_split_too(impl):
    frames = [(4, flow, b"") for flow in range(10_000)]
    assert list(impl.split_frames(encode(frames)))[-1] == (4, 9999, 80_000, 80_000)


def test_an_empty_message_has_no_frames(impl):
    assert list(impl.split_frames(b"")) == []


def test_payloads_may_overlap_in_the_source(impl):
    out = bytearray(8 + 3 + 8 + 2)
    impl.pack_frames(out, 0, memoryview(b"abc"), [4, 1, 0, 3, 4, 2, 1, 3])
    assert out == encode([(4, 1, b"abc"), (4, 2, b"bc")])


@pytest.mark.parametrize(
    ("spans", "offset"),
    [
        ([4, 1, 0, 11], 0),
        ([4, 1, 3, 2], 0),
        ([4, 1, 11, 11], 0),
        ([256, 1, 0, 1], 0),
        ([4, 1, 0], 0),
        ([4, 1, 0, 10], 3),
        ([4, 1, 0, 1], 21),
    ],
    ids=["behind", "reversed", "outside", "kind", "three", "no room", "offset"],
)
def test_a_wrong_call_is_a_value_error(impl, spans, offset):
    with pytest.raises(ValueError):
        impl.pack_frames(bytearray(20), offset, bytes(10), spans)


def test_a_payload_longer_than_24_bits_can_say_is_a_value_error(impl):
    source = bytes(1 << 24)
    with pytest.raises(ValueError):
        impl.pack_frames(bytearray(len(source) + 8), 0, source, [4, 1, 0, len(source)])
