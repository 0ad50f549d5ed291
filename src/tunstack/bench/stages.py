"""What a path is made of, one stage at a time: loopback, transport, mux, stack."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from tunstack.bench import load, machines
from tunstack.bench.probe import Figures, Probe, probe, spread
from tunstack.bench.rows import PER_CPU
from tunstack.host.namespaces import running
from tunstack.rpc.loop import run


@contextmanager
def stages(wanted: frozenset[str]) -> Iterator[list[Probe]]:
    """Give the probes of the group ``stages``, with servers for those that are wanted."""
    with ExitStack() as undo:
        found = []
        if wanted & {"loopback", "loopback-echo"}:
            address = "127.0.0.1", _serve(undo, "tunstack.bench.load")
            found += [
                probe("loopback", partial(_loopback, address)),
                Probe(frozenset({"loopback-echo"}), partial(_loopback_echo, address)),
            ]
        if wanted & {"transport", PER_CPU, "transport-echo", "grpc"}:
            found += _streams(undo)
        found += [
            probe(name, partial(_at_work, machines.stack(size)))
            for name, size in (("stack", machines.LARGE), ("stack-1460", 1460))
        ]
        found.append(probe("mux", partial(_at_work, machines.mux())))
        yield found


def _at_work(measure: Callable[[float], float], seconds: float) -> float:
    """Measure a machine where it works in a program, with memory kept for messages."""

    async def work() -> float:
        return measure(seconds)

    return run(work())


def _loopback(address: load.Address, seconds: float) -> float:
    octets, took = load.upload(address, 1, seconds)
    return octets * 8 / took


def _loopback_echo(address: load.Address, seconds: float) -> Figures:
    times, _ = load.ask(address, 1, seconds)
    return spread(times, "loopback-echo", "loopback-echo, p99")


def _streams(undo: ExitStack) -> list[Probe]:
    # Here, because the rest does without gRPC.
    from tunstack.bench import streams

    lean, aio = (_serve(undo, "tunstack.bench.streams", kind) for kind in ("lean", "grpc"))

    def bulk(seconds: float) -> Figures:
        rate, per_cpu = run(streams.lean_bulk(lean, seconds))
        return Figures({"transport": rate, PER_CPU: per_cpu})

    def echo(seconds: float) -> Figures:
        times = run(streams.lean_echo(lean, seconds))
        return spread(times, "transport-echo", "transport-echo, p99")

    return [
        Probe(frozenset({"transport", PER_CPU}), bulk),
        probe("grpc", lambda seconds: run(streams.aio_bulk(aio, seconds))),
        Probe(frozenset({"transport-echo"}), echo),
    ]


def _serve(undo: ExitStack, module: str, *words: str) -> int:
    """Start a server of ours; gives its port."""
    command = [sys.executable, "-P", "-m", module, *words]
    _, line = undo.enter_context(running(command, os.environ))
    return int(line.removeprefix("ready "))
