"""Each kernel against its twin. The question: where, and by how much, does C pay?"""

import random
import struct

import pytest

from tunstack._fastpath import reference
from tunstack._fastpath.record import Verdict

STRIDE = 65_600
VIRTIO = 10
MAPPED = bytes(10) + b"\xff\xff"
KEY = b"\x06" + MAPPED + bytes([198, 18, 0, 1]) + MAPPED + bytes([10, 96, 0, 1])
KEY += struct.pack("!HH", 40_000, 80)


@pytest.fixture(params=["reference", "kernels"])
def impl(request):
    return pytest.importorskip(f"tunstack._fastpath.{request.param}", reason="not built")


def make_segment(payload: bytes, vnet: int) -> bytes:
    total = reference.sum16(payload, 0)
    headers = reference.frame_tcp(
        KEY, 1, 2, 16, 512, b"", len(payload), total, 0, 1400, vnet
    )
    return headers + payload


@pytest.mark.parametrize("size", [40, 1460, 65_000], ids="{}B".format)
def bench_sum16(benchmark, impl, size):
    data = random.Random(size).randbytes(size)
    benchmark.extra_info["octets"] = size

    total = benchmark(impl.sum16, data, 0)

    assert total == reference.sum16(data, 0)


@pytest.mark.parametrize("vnet", [0, VIRTIO], ids=["plain", "offload"])
@pytest.mark.parametrize("count", [1, 8, 64], ids="{}packets".format)
def bench_parse_batch(benchmark, impl, count, vnet):
    packet = make_segment(bytes(1400), vnet)
    arena = bytearray(STRIDE * count)
    for slot in range(count):
        arena[slot * STRIDE : slot * STRIDE + len(packet)] = packet
    lengths = [len(packet)] * count
    benchmark.extra_info["packets"] = count

    records = benchmark(lambda: list(impl.parse_batch(arena, STRIDE, lengths, vnet)))

    assert [record[8] for record in records] == [Verdict.DELIVER] * count


@pytest.mark.parametrize("vnet", [0, VIRTIO], ids=["plain", "offload"])
def bench_frame_tcp(benchmark, impl, vnet):
    arguments = (KEY, 1, 2, 16, 512, b"", 60_000, 0x1234, 0, 1400, vnet)

    headers = benchmark(impl.frame_tcp, *arguments)

    assert headers == reference.frame_tcp(*arguments)


@pytest.mark.parametrize("vnet", [0, VIRTIO], ids=["plain", "offload"])
def bench_frame_udp(benchmark, impl, vnet):
    arguments = (b"\x11" + KEY[1:], 1400, 0x1234, 0, vnet)

    headers = benchmark(impl.frame_udp, *arguments)

    assert headers == reference.frame_udp(*arguments)


MESSAGES = {
    "1x64KiB": (1, 65_536),
    "1x64B": (1, 64),
    "8x1KiB": (8, 1024),
    "64x64B": (64, 64),
}
"""What is coalesced into one message, the last of many small flows."""


@pytest.mark.parametrize(("count", "size"), MESSAGES.values(), ids=MESSAGES)
def bench_pack_frames(benchmark, impl, count, size):
    source = bytes(count * size)
    spans = [
        word
        for at in range(0, count * size, size)
        for word in (4, 1 + 2 * (at // size), at, at + size)
    ]
    out = bytearray(count * (8 + size))

    end = benchmark(impl.pack_frames, out, 0, source, spans)

    assert end == len(out)
    assert len(list(reference.split_frames(out))) == count


@pytest.mark.parametrize(("count", "size"), MESSAGES.values(), ids=MESSAGES)
def bench_split_frames(benchmark, impl, count, size):
    message = (struct.pack("!II", 4 << 24 | size, 1) + bytes(size)) * count

    frames = benchmark(lambda: list(impl.split_frames(message)))

    assert frames == reference.split_frames(message)
