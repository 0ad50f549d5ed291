"""sum16."""

import random

import pytest

from tunstack._fastpath import reference

LONGEST = 2048


def test_sum16_gives_the_worked_example_of_rfc_1071(impl):
    assert impl.sum16(bytes.fromhex("0001f203f4f5f6f7"), 0) == 0xDDF2


@pytest.mark.parametrize("offset", range(8))
def test_sum16_equals_the_reference_at_every_length(impl, offset):
    data = memoryview(random.Random(1071).randbytes(LONGEST + 8))
    for length in range(LONGEST + 1):
        piece = data[offset : offset + length]
        assert impl.sum16(piece, 0x1234) == reference.sum16(piece, 0x1234), length


@pytest.mark.parametrize("length", [65_000, 65_535, 1 << 20])
def test_sum16_carries_every_carry(impl, length):
    assert impl.sum16(b"\xff" * length, 0xFFFF) == (0xFFFF if length % 2 == 0 else 0xFF00)


def test_sum16_of_nothing_is_what_was_there_before(impl):
    assert [impl.sum16(b"", partial) for partial in (0, 1, 0xFFFF)] == [0, 1, 0xFFFF]


def test_sum16_gives_zero_for_zeros_alone(impl):
    assert impl.sum16(bytes(100), 0) == 0
    assert impl.sum16(bytes(100), 0xFFFF) == 0xFFFF
    assert impl.sum16(b"\xff\xff", 0) == 0xFFFF
    assert impl.sum16(b"\xff\xfe\x00\x01", 0) == 0xFFFF


def test_an_odd_tail_counts_as_if_followed_by_a_zero(impl):
    assert impl.sum16(b"\x12\x34\x56", 0) == 0x1234 + 0x5600


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sum16_takes_any_memory(impl, kind):
    assert impl.sum16(kind(b"\x01\x02"), 0) == 0x0102


def test_pieces_of_even_length_add_up(impl):
    data = random.Random(1).randbytes(1501)
    assert impl.sum16(data[1000:], impl.sum16(data[:1000], 0)) == impl.sum16(data, 0)
