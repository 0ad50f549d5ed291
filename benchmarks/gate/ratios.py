"""Times as ratios within one run: kernels to twins, transports and paths to ceilings.

Time is noisy, so what is compared alternates, the best of several rounds counts (what
else runs on the machine only ever adds, and adds more to the path, which has more
processes), and the limits are wide: they find what has become slower by a large factor,
and what costs the kernel and not us.
"""

import json
import random
import struct
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.gate import tools
from benchmarks.gate.verdict import Limit, Row
from benchmarks.load import Load
from tests.support.host import ACK, make_key, make_segment
from tests.support.lab import Lab
from tunstack._fastpath import kernels, reference

PART = "ratios"

ROUNDS = 6
CALLS = 30
TURNS = 4

TWIN = Limit(share=1.0, elsewhere=1.5)
CHANNEL = Limit(share=1.5, elsewhere=2.5)
PATH = Limit(share=1.5, elsewhere=2.5)

_WORK = (
    ("upload, 1 flow", "up", 1, 128 << 20),
    ("upload, 8 flows", "up", 8, 128 << 20),
    ("download, 1 flow", "down", 1, 128 << 20),
    ("download, 8 flows", "down", 8, 128 << 20),
    ("round trip", "ask", 1, 500),
    ("round trips of 64 flows", "ask", 64, 5000),
    ("connect, request, close", "connect", 1, 200),
)


def measure(*, path: bool) -> Iterator[Row]:
    """Give a row for each pair; for the whole path only if there can be one."""
    for name, ratio in _twins():
        yield _row(f"C to Python, {name}", ratio, TWIN)
    for name, ratio in _channels():
        yield _row(f"lean transport to a socket, {name}", ratio, CHANNEL)
    for name, ratio in _paths() if path else ():
        yield _row(f"whole path to kernel forwarding, {name}", ratio, PATH)


def _row(name: str, ratio: float, limit: Limit) -> Row:
    return Row(part=PART, name=name, value=round(ratio, 4), unit="x the time", limit=limit)


def _twins() -> Iterator[tuple[str, float]]:
    for name, call in _calls().items():
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for impl, found in zip((kernels, reference), times, strict=True):
                found += timeit.repeat(partial(call, impl), number=CALLS)
        yield name, min(times[0]) / min(times[1])


def _calls() -> dict[str, Callable]:
    """What kernel and twin are both asked."""
    data = random.Random(1071).randbytes(65_000)
    key = make_key(6, "198.18.0.1", 40_000, "10.96.0.1", 80)
    packet = make_segment(key, 1, 2, ACK, bytes(1400), vnet=10)
    arena, lengths = packet * 64, [len(packet)] * 64
    header = (key, 1, 2, 16, 512, b"", 60_000, 0x1234, 0, 1400, 10)
    frames = (struct.pack("!II", 4 << 24 | 64, 1) + bytes(64)) * 64
    spans = [word for at in range(64) for word in (4, 1, at * 64, at * 64 + 64)]
    out = bytearray(len(frames))
    return {
        "sum16, 1460 octets": lambda impl: impl.sum16(data[:1460], 0),
        "sum16, 65000 octets": lambda impl: impl.sum16(data, 0),
        "parse_batch, 64 packets": lambda impl: list(
            impl.parse_batch(arena, len(packet), lengths, 10)
        ),
        "frame_tcp": lambda impl: impl.frame_tcp(*header),
        "pack_frames, 64 of 64 octets": lambda impl: impl.pack_frames(out, 0, data, spans),
        "split_frames, 64 of 64 octets": lambda impl: list(impl.split_frames(frames)),
    }


def _channels() -> Iterator[tuple[str, float]]:
    """Ask both in turns, each time in new processes."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(TURNS):
        for kind in ("lean", "tcp"):
            command = [sys.executable, tools.CHECKOUT / "benchmarks/bench_channel.py"]
            said = subprocess.run(
                [*command, "measure", kind], capture_output=True, check=True
            ).stdout
            for name, value in json.loads(said).items():
                seconds = value if name.endswith("us") else 1 / value
                found.setdefault(name.partition(", ")[0], {}).setdefault(kind, []).append(
                    seconds
                )
    for name, times in found.items():
        yield name, min(times["lean"]) / min(times["tcp"])


def _paths() -> Iterator[tuple[str, float]]:
    tunnel, forwarding = Lab(), Lab()
    try:
        tunnel.manage()
        tunnel.connect()
        forwarding.forward()
        loads = [Load(tunnel), Load(forwarding)]
        for name, *words in _WORK:
            times: list[list[float]] = [[], []]
            for turn in range(ROUNDS + 1):
                for load, found in zip(loads, times, strict=True):
                    seconds = load(*words)["seconds"]
                    if turn:  # the first warms up
                        found.append(seconds)
            yield name, min(times[0]) / min(times[1])
    finally:
        tunnel.close()
        forwarding.close()
