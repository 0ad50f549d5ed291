"""The kernels in use, each beside its Python twin."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

from tunstack import _fastpath
from tunstack._fastpath import reference
from tunstack.bench.probe import Probe, expect, probe, repeat
from tunstack.bench.segments import segment
from tunstack.host.device import VNET

Call = Callable[[], object]

_BATCH = 64
_STRIDE = 2048
_SMALL = 64
_SHARE = 0.2
"""Of the time of other measurements: a call takes microseconds."""


@contextmanager
def kernels(_: frozenset[str]) -> Iterator[list[Probe]]:
    """Give the probes of the group ``kernels``."""
    found = []
    for name, units, make in (
        ("checksum", 65_536 * 8, _checksum),
        ("parse", _BATCH, _parse),
        ("framing", _BATCH, _framing),
    ):
        right = make(reference)()
        for twin, module in ((", twin", reference), ("", _fastpath)):
            ask = partial(_measure, name, make(module), units, right)
            found.append(probe(name + twin, ask))
    yield found


def _measure(name: str, call: Call, units: int, right: object, seconds: float) -> float:
    answer: object = None

    def step() -> int:
        nonlocal answer
        answer = call()
        return units

    rate = repeat(step, seconds * _SHARE)
    expect(answer == right, f"{name} is not what the twin says")
    return rate


def _checksum(of: ModuleType) -> Call:
    data = random.Random(1071).randbytes(65_536)
    return lambda: of.sum16(data, 0)


def _parse(of: ModuleType) -> Call:
    packet = segment(1, 1, bytes(1400))
    arena = packet.ljust(_STRIDE, b"\0") * _BATCH
    lengths = [len(packet)] * _BATCH
    return lambda: list(of.parse_batch(arena, _STRIDE, lengths, VNET))


def _framing(of: ModuleType) -> Call:
    source = random.Random(1071).randbytes(_BATCH * _SMALL)
    spans = [
        word
        for at in range(_BATCH)
        for word in (4, 1 + 2 * at, at * _SMALL, (at + 1) * _SMALL)
    ]
    out = bytearray(_BATCH * (8 + _SMALL))
    return lambda: (of.pack_frames(out, 0, source, spans), out)
