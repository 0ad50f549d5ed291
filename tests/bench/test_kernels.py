import pytest

from tunstack import _fastpath
from tunstack.bench.kernels import kernels
from tunstack.bench.probe import WrongAnswer

NAMES = ["checksum", "parse", "framing"]


def ask(name: str) -> float:
    with kernels(frozenset()) as probes:
        (found,) = [probe for probe in probes if name in probe.gives]
        return found.ask(0.01).values[name]


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}, twin" for name in NAMES)])
def test_every_kernel_and_every_twin_has_a_figure(name):
    assert ask(name) > 0


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("checksum", "sum16", lambda *_: 1),
        ("parse", "parse_batch", lambda *_: []),
        ("framing", "pack_frames", lambda *_: 64 * 72),  # the right length, and no frames
    ],
)
def test_a_kernel_that_errs_has_no_figure(monkeypatch, name, function, wrong):
    monkeypatch.setattr(_fastpath, function, wrong)
    with pytest.raises(WrongAnswer, match=name):
        ask(name)
