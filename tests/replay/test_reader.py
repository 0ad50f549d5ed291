"""Capture files, whole, cut off and forged."""

import gzip
import random
import struct
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest

from tunstack.capture.reader import CaptureError, Frame, frames

CAPTURES = Path(__file__).parent / "captures"

PCAP = struct.Struct("<IHHiIII")
RECORD = struct.Struct("<IIII")
BLOCK = struct.Struct("<II")

ENHANCED, SIMPLE, INTERFACE = 6, 3, 1
RAW = 101


def read(path: Path):
    """Give the frames of a file, and the error that ends it, if one does."""
    found: list[Frame] = []
    try:
        found.extend(frames(path))
    except CaptureError as error:
        return found, error
    return found, None


def borders(octets: bytes) -> list[int]:
    """Give the offsets at which a record, or the file, begins or ends."""
    found = [0]
    if octets[:4] == b"\n\r\r\n":
        while found[-1] < len(octets):
            found.append(found[-1] + BLOCK.unpack_from(octets, found[-1])[1])
    else:
        found.append(PCAP.size)
        while found[-1] < len(octets):
            length = RECORD.unpack_from(octets, found[-1])[2]
            found.append(found[-1] + RECORD.size + length)
    return found


def pcap(*packets: bytes, link: int = RAW, magic: int = 0xA1B2C3D4) -> bytes:
    head = PCAP.pack(magic, 2, 4, 0, 0, 65_535, link)
    records = (RECORD.pack(7, 500, len(each), len(each)) + each for each in packets)
    return head + b"".join(records)


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    return BLOCK.pack(kind, size) + body + size.to_bytes(4, "little")


def interface(link: int = RAW, options: bytes = b"") -> bytes:
    return block(INTERFACE, struct.pack("<HHI", link, 0, 65_535) + options)


def enhanced(packet: bytes, *, at: int = 7_000_500, number: int = 0, claim=None) -> bytes:
    captured = len(packet) if claim is None else claim
    fields = (number, at >> 32, at & 0xFFFFFFFF, captured, captured)
    return block(ENHANCED, struct.pack("<5I", *fields) + packet)


def pcapng(*blocks: bytes) -> bytes:
    return block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + b"".join(blocks)


@pytest.fixture
def write(tmp_path):
    def write(octets: bytes) -> Path:
        path = tmp_path / "capture"
        path.write_bytes(octets)
        return path

    return write


@pytest.mark.parametrize(("name", "link"), [("cooked.pcapng", 276), ("tagged.pcap", 1)])
def test_frames_come_in_order_with_their_time_and_link(name, link):
    found, error = read(CAPTURES / name)
    assert error is None
    assert {frame.link for frame in found} == {link}
    assert found[0].time == 1_700_000_000
    steps = [later.time - earlier.time for earlier, later in pairwise(found)]
    assert steps == pytest.approx([0.01] * (len(found) - 1), abs=1e-5)


@pytest.mark.parametrize("name", ["cooked.pcapng", "tagged.pcap"])
def test_a_file_cut_anywhere_gives_what_is_whole_and_where_it_breaks(write, name):
    octets = (CAPTURES / name).read_bytes()
    whole, _ = read(CAPTURES / name)
    known = borders(octets)
    cuts = {random.Random(at).randrange(1, len(octets)) for at in range(200)}
    for cut in sorted(cuts.union(range(1, 200), known[1:-1])):
        path = write(octets[:cut])
        found, error = read(path)
        assert found == whole[: len(found)]
        if cut in known[1:]:
            assert error is None, cut
        else:
            start = max(at for at in known if at < cut)
            assert (error.offset, cut) == (start, cut)
            assert f"offset {start} " in str(error)
            assert str(path) in str(error)


PACKET = bytes(40)

FORGED = {
    "pcap, 4 GiB": (pcap() + RECORD.pack(0, 0, 2**32 - 1, 60) + PACKET, 24),
    "pcap, more than a frame": (pcap(PACKET, bytes(300_000)), 80),
    "block, 4 GiB": (pcapng(interface(), BLOCK.pack(ENHANCED, 2**32 - 4)), 48),
    "block, too small": (pcapng(interface(), BLOCK.pack(ENHANCED, 8) + bytes(40)), 48),
    "block, other length behind": (pcapng(interface(), enhanced(PACKET)[:-4] + PACKET), 48),
    "packet beyond its block": (pcapng(interface(), enhanced(PACKET, claim=41 + 8)), 48),
    "no such interface": (pcapng(interface(), enhanced(PACKET, number=1)), 48),
    "simple, no interface": (pcapng(block(SIMPLE, bytes(44))), 28),
    "block without its fields": (pcapng(interface(), block(ENHANCED, bytes(8))), 48),
    "section of another version": (
        pcapng(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 9, 0, -1))), 28,
    ),
    "link type": (pcap(PACKET, link=147), 0),
    "link type of an interface": (pcapng(interface(147), enhanced(PACKET)), 48),
    "another file": (b"#!/bin/sh\n" + bytes(40), 0),
    "gzip": (gzip.compress(pcap(PACKET)), 0),
    "empty": (b"", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_an_error_with_its_offset_and_little_memory(write, name):
    octets, offset = FORGED[name]
    path = write(octets)
    read(CAPTURES / "cooked.pcapng")  # scapy is loaded
    tracemalloc.start()
    try:
        _, error = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error is not None
    assert (error.offset, error.exit_code) == (offset, 3)
    assert str(path) in str(error)
    assert f"offset {offset} " in str(error)
    assert peak < 2 * 1024 * 1024


def test_what_comes_before_a_forged_record_is_read(write):
    octets = pcapng(interface(), enhanced(b"first"), enhanced(PACKET, claim=2**31))
    found, error = read(write(octets))
    assert [frame.octets for frame in found] == [b"first"]
    assert error.offset == 48 + 40


def test_a_frame_that_was_cut_while_capturing_is_no_fault_of_the_file(write):
    octets = pcap() + RECORD.pack(0, 0, len(PACKET), 262_144) + PACKET
    found, error = read(write(octets))
    assert error is None
    assert [frame.octets for frame in found] == [PACKET]


def test_a_frame_may_be_larger_than_a_packet(write):
    large = bytes(200_000)
    for octets in (pcap(large), pcapng(interface(), enhanced(large))):
        found, error = read(write(octets))
        assert error is None
        assert [frame.octets for frame in found] == [large]


NANO = struct.pack("<HHB3x", 9, 1, 9)


@pytest.mark.parametrize(
    ("octets", "time"),
    [
        (pcap(PACKET), 7.0005),
        (pcap(PACKET, magic=0xA1B23C4D), 7.0000005),
        (pcapng(interface(), enhanced(PACKET)), 7.0005),
        (pcapng(interface(options=NANO), enhanced(PACKET, at=7_000_000_500)), 7.0000005),
        (pcapng(interface(), block(SIMPLE, bytes((40, 0, 0, 0)) + PACKET)), None),
    ],
    ids=["pcap", "pcap, ns", "pcapng", "pcapng, ns", "simple packet block"],
)
def test_time_is_in_the_unit_of_the_file(write, octets, time):
    ((frame,), error) = read(write(octets))
    assert error is None
    assert frame.octets == PACKET
    assert frame.time == (time if time is None else pytest.approx(time, abs=1e-8))


def test_the_bits_beside_a_link_type_are_not_its(write):
    ((frame,), error) = read(write(pcap(PACKET, link=0x3000_0000 | RAW)))
    assert error is None
    assert frame.link == RAW


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_opened_says_why(tmp_path, name):
    _, error = read(tmp_path / name)
    assert error.exit_code == 3
    assert str(tmp_path) in str(error)
    assert "cannot be read" in str(error)
