"""What runs in the measured process: one workload, between the marks of the probe.

``python -m benchmarks.gate.worker PROBE (instructions | allocations) STEPS NAME``
"""

import ctypes
import gc
import json
import struct
import sys

from benchmarks import workloads
from benchmarks.workloads.workload import Step, Workload

REFERENCE = "reference loop"
"""Python that never changes: calls, slots, a dictionary, bytes."""


class _Counter:
    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> None:
        self.total += number


def _reference() -> Step:
    header = struct.Struct("!II")
    counters = {number.to_bytes(4, "big"): _Counter() for number in range(64)}
    keys = list(counters)

    def step() -> None:
        for number in range(64):
            octets = header.pack(number, number + 1)
            counter = counters[keys[number]]
            counter.add(header.unpack(octets)[1])

    return step


def find(name: str) -> Workload:
    """Give the workload of that name, the reference included."""
    if name == REFERENCE:
        return Workload(name=name, unit="turn", units=1, warm_up=20, make=_reference)
    return workloads.find(name)


def run(step: Step, count: int) -> None:
    for _ in range(count):
        step()


def main(library: str, what: str, steps: str, name: str) -> None:
    probe = ctypes.CDLL(library)
    probe.probe_made.restype = probe.probe_freed.restype = ctypes.c_longlong
    workload, count = find(name), int(steps)
    if what == "allocations":
        # Before anything that is freed later is made.
        ctypes.PyDLL(library).probe_count_allocations()
    step = workload.make()
    run(step, workload.warm_up)
    # Every run begins with the same garbage: none, and nothing old to look through.
    gc.collect()
    gc.freeze()
    if what == "instructions":
        probe.probe_start()
        run(step, count)
        probe.probe_stop()
        return
    made, freed = probe.probe_made(), probe.probe_freed()
    run(step, count)
    gc.collect()
    made, freed = probe.probe_made() - made, probe.probe_freed() - freed
    units = count * workload.units
    print(json.dumps({"made": made / units, "kept": (made - freed) / units}))


if __name__ == "__main__":
    main(*sys.argv[1:])
