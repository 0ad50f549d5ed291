"""TCP options, with scapy as the oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from tunstack.wire import tcp
from tunstack.wire.tcp import Options


def by_scapy(*options: tuple) -> bytes:
    return bytes(TCP(options=list(options)))[20:]


def read_by_scapy(options: bytes) -> list[tuple]:
    header = bytes(TCP(dataofs=5 + len(options) // 4)) + options
    return [option for option in TCP(header).options if option[0] != "NOP"]


def test_the_options_of_a_linux_syn_are_read():
    options = by_scapy(
        ("MSS", 65480),
        ("SAckOK", b""),
        ("Timestamp", (1, 2)),
        ("NOP", None),
        ("WScale", 10),
    )
    assert tcp.parse_options(options) == Options(65480, 10, True, (), (1, 2))


@pytest.mark.parametrize("count", range(1, 5))
def test_sack_blocks_are_read_in_their_order(count):
    edges = tuple(range(1000, 1000 + 2 * count))
    options = by_scapy(("NOP", None), ("NOP", None), ("SAck", edges))
    want = tuple(zip(edges[::2], edges[1::2], strict=True))
    assert tcp.parse_options(memoryview(options)).sack == want


def test_a_window_scale_beyond_14_counts_as_14():
    assert tcp.parse_options(by_scapy(("WScale", 200))).window_scale == 14


def test_nothing_is_read_behind_the_end_of_the_list():
    assert tcp.parse_options(b"\x00\x02\x04\x05\xb4") == Options()


@pytest.mark.parametrize(
    "broken",
    [b"\x02", b"\x02\x00\x05\xb4", b"\x02\x01\x05\xb4", b"\x02\x05\x05\xb4", b"\x08\xff"],
    ids=["no length", "length 0", "length 1", "beyond", "far beyond"],
)
def test_a_broken_option_ends_the_reading_and_spoils_nothing_before(broken):
    assert tcp.parse_options(b"\x01\x03\x03\x07" + broken) == Options(window_scale=7)


@pytest.mark.parametrize(
    "odd",
    [b"\x02\x03\x05", b"\x03\x04\x07\x07", b"\x04\x03\x00", b"\x05\x09" + bytes(7)],
    ids=["mss", "window scale", "sack permitted", "sack"],
)
def test_an_option_of_a_wrong_length_is_passed_over(odd):
    assert tcp.parse_options(odd + b"\x02\x04\x05\xb4") == Options(mss=1460)


@given(st.binary(max_size=40))
def test_any_octets_can_be_read(options):
    found = tcp.parse_options(options)
    assert found.window_scale is None or found.window_scale <= 14
    assert len(found.sack) <= 4


@pytest.mark.parametrize("scale", [None, 0, 14])
@pytest.mark.parametrize("sack", [False, True])
def test_scapy_reads_the_options_of_a_syn(scale, sack):
    options = tcp.syn_options(1460, scale, sack)
    assert len(options) % 4 == 0
    found = dict(read_by_scapy(options))
    assert found == {
        "MSS": 1460,
        **({"WScale": scale} if scale is not None else {}),
        **({"SAckOK": b""} if sack else {}),
    }
    assert tcp.parse_options(options) == Options(1460, scale, sack)


def test_the_largest_mss_fits():
    assert tcp.parse_options(tcp.syn_options(1 << 20, None, False)).mss == 65_535


@pytest.mark.parametrize("count", range(1, 5))
def test_scapy_reads_a_sack_option(count):
    blocks = tuple((2**32 - 1 - i, i) for i in range(count))
    options = tcp.sack_option(blocks)
    assert len(options) % 4 == 0
    edges = tuple(edge for block in blocks for edge in block)
    assert read_by_scapy(options) == [("SAck", edges)]


def test_no_blocks_make_no_option():
    assert tcp.sack_option(()) == b""
