"""What header fields say of a call."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunstack.rpc.http2 import grpc
from tunstack.rpc.http2.status import Outcome, Status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"0n"),
        (0.001, b"1000000n"),
        (0.1, b"100000u"),
        (1, b"1000000u"),
        (20, b"20000000u"),
        (100, b"100000m"),
        (86_400, b"86400000m"),
        (10**6, b"1000000S"),
        (10**12, b"99999999S"),
    ],
)
def test_a_timeout_has_eight_digits_at_most(seconds, text):
    assert grpc.pack_timeout(seconds) == text


@given(st.floats(0, 1e6))
def test_a_timeout_is_never_made_shorter(seconds):
    assert grpc.unpack_timeout(grpc.pack_timeout(seconds)) >= seconds - 1e-8


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"123456789S", b"1.5S", b"-1S", b"1 S"])
def test_a_malformed_timeout_is_none(text):
    assert grpc.unpack_timeout(text) is None


@given(st.text(max_size=50), st.sampled_from(Status))
def test_a_status_and_its_message_arrive(text, status):
    fields = grpc.trailers(Outcome(status, text))
    assert all(octet in range(0x20, 0x7F) for _, value in fields for octet in value)
    surrogates = text.encode(errors="replace").decode()
    if text == surrogates:
        assert grpc.outcome_of_trailers(fields) == Outcome(status, text, [])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], Status.UNKNOWN),
        ([(b"grpc-status", b"x")], Status.UNKNOWN),
        ([(b"grpc-status", b"99")], Status.UNKNOWN),
        ([(b"grpc-status", b"5"), (b"grpc-message", b"100%%zz%")], Status.NOT_FOUND),
    ],
)
def test_trailers_of_any_kind_mean_something(fields, status):
    assert grpc.outcome_of_trailers(fields).status is status


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("name-bin"), st.binary(max_size=20)),
            st.tuples(st.just("name"), st.text(string.printable[:94])),
        )
    )
)
def test_metadata_arrives(metadata):
    assert grpc.unpack_metadata(grpc.pack_metadata(metadata)) == metadata


def test_metadata_in_one_field_is_several_and_noise_is_left_out():
    fields = [(b"a-bin", b"AAE,AgM="), (b"b-bin", b"!"), (b"grpc-x", b"1"), (b":x", b"")]
    assert grpc.unpack_metadata(fields) == [("a-bin", b"\0\1"), ("a-bin", b"\2\3")]


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (b"200", b"application/grpc", None),
        (b"200", b"application/grpc+proto", None),
        (b"200", b"application/grpc-web", Status.UNKNOWN),
        (b"200", b"text/html", Status.UNKNOWN),
        (b"404", b"text/html", Status.UNIMPLEMENTED),
        (b"503", b"application/grpc", Status.UNAVAILABLE),
    ],
)
def test_what_a_proxy_answers_has_a_meaning(status, kind, expected):
    outcome = grpc.outcome_of_http([(b":status", status), (b"content-type", kind)])
    assert (outcome and outcome.status) == expected
