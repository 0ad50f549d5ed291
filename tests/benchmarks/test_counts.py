"""What the gate counts is countable: the same work costs the same, more work more."""

import shutil

import pytest

from benchmarks import workloads
from benchmarks.gate import allocations, instructions

NAMES = [name for room in ("stack", "mux", "http2") for name in workloads.of(room)]


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_goes_on_and_checks_its_answers(name):
    workload = workloads.find(name)
    step = workload.make()

    for _ in range(workload.warm_up + 3):
        step()


def test_the_same_work_makes_the_same_allocations_and_keeps_none():
    first, second = (
        {row.name: row for row in allocations.measure(["mux, 64 octets, alone"])}
        for _ in range(2)
    )

    made, kept = "made, mux, 64 octets, alone", "kept, mux, 64 octets, alone"
    assert first[made].value > 1
    assert second[made].value == pytest.approx(first[made].value, abs=0.1)
    assert abs(first[kept].value) < first[kept].limit.slack


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_instructions_of_kernels_are_counted_by_the_call_and_not_by_the_run():
    counted = {row.name: row.value for row in instructions.kernels()}

    assert counted["C, sum16, 65000 octets"] > 20 * counted["C, sum16, 1460 octets"]
    again = {row.name: row.value for row in instructions.kernels()}
    assert again == pytest.approx(counted, rel=0.001)
