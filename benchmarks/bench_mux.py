"""The mux alone, both ends. The question: what does a frame cost, alone and in a batch?"""

import pytest

from benchmarks import workloads

MUX = workloads.of("mux")


@pytest.mark.parametrize("name", MUX)
def bench_mux(benchmark, name):
    workloads.measure(benchmark, MUX[name])
