import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunstack.rpc import envelope
from tunstack.rpc import tunnel_pb2 as pb


def wrapped(body):
    """The message that the two pieces make."""
    return b"".join(envelope.frames(body))


SIZES = [0, 1, 127, 128, 16_383, 16_384, 262_144, 2_097_151, 2_097_152]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("message", [pb.FromClient, pb.FromManager])
def test_what_is_wrapped_is_what_protobuf_encodes(size, message):
    body = b"\xa5" * size
    assert wrapped(body) == message(frames=body).SerializeToString()


@pytest.mark.parametrize("size", SIZES)
def test_what_protobuf_encodes_is_unwrapped(size):
    body = b"\xa5" * size
    assert envelope.unwrap(pb.FromManager(frames=body).SerializeToString()) == body


def test_wrapping_does_not_copy():
    body = bytearray(b"\xa5" * 100_000)
    assert envelope.frames(body)[1] is body


def test_unwrapping_does_not_copy():
    message = bytearray(wrapped(b"abc"))
    view = envelope.unwrap(memoryview(message))
    message[-1] = ord("d")
    assert view == b"abd"


@pytest.mark.parametrize(
    "message",
    [
        pb.FromClient(),
        pb.FromClient(ping=pb.Ping(number=1)),
        pb.FromClient(hello=pb.Hello(product_version="x" * 300)),
    ],
)
def test_other_messages_are_left_to_protobuf(message):
    assert envelope.unwrap(message.SerializeToString()) is None


@given(st.binary(max_size=300))
def test_any_octets_are_unwrapped_as_protobuf_reads_them_or_left_to_it(octets):
    frames = envelope.unwrap(octets)
    if frames is not None:
        assert pb.FromClient.FromString(octets) == pb.FromClient(frames=bytes(frames))


@given(st.binary(max_size=300), st.integers(1, 20))
def test_a_message_cut_short_is_left_to_protobuf(body, missing):
    message = wrapped(body)[:-missing]
    assert envelope.unwrap(message) is None
