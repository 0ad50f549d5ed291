"""DNS over a stream, however it is cut."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunstack.engine.framing import Framing

MESSAGES = st.lists(st.binary(max_size=600), max_size=8)


def cut(stream, at):
    """Cut a stream at offsets."""
    at = [0, *sorted(place % (len(stream) + 1) for place in at), len(stream)]
    return [stream[start:end] for start, end in pairwise(at)]


@given(messages=MESSAGES, at=st.lists(st.integers(0, 10_000), max_size=12))
@example(messages=[b"", b"x", b"y" * 65_535], at=[1])
def test_the_messages_are_the_same_however_the_stream_is_cut(messages, at):
    stream = b"".join(map(Framing.frame, messages))
    framing = Framing()
    taken = [message for piece in cut(stream, at) for message in framing.take(piece)]
    assert taken == messages


@given(messages=MESSAGES.filter(bool), missing=st.integers(1, 602))
def test_a_message_is_given_with_its_last_octet_and_not_before(messages, missing):
    stream = b"".join(map(Framing.frame, messages))
    missing = min(missing, len(messages[-1]) + 2)
    framing = Framing()
    assert framing.take(stream[:-missing]) == messages[:-1]
    assert framing.take(stream[-missing:]) == messages[-1:]


@given(pieces=st.lists(st.binary(max_size=3000), max_size=20))
def test_no_more_than_the_message_that_is_not_whole_is_kept(pieces):
    framing = Framing()
    for piece in pieces:
        framing.take(piece)
        kept = framing._received
        assert len(kept) < 2 or len(kept) < 2 + int.from_bytes(kept[:2])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535])
def test_the_length_is_in_front_in_network_order(size):
    assert Framing.frame(bytes(size)) == bytes([size >> 8, size & 0xFF]) + bytes(size)


def test_what_no_length_can_say_is_not_framed():
    with pytest.raises(OverflowError):
        Framing.frame(bytes(65_536))
