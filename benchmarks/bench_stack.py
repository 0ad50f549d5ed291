"""The stack alone, in memory. The question: what does a segment cost, and a connection?

By size, as the cost should be a segment's and not an octet's; by number of flows, as it
should not depend on those.
"""

import pytest

from benchmarks import workloads

STACK = workloads.of("stack")


@pytest.mark.parametrize("name", STACK)
def bench_stack(benchmark, name):
    workloads.measure(benchmark, STACK[name])
