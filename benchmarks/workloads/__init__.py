"""The machines of tunstack at work in memory: for benchmarks, and for the gate."""

import statistics
from importlib import import_module
from typing import Any

from benchmarks.workloads.workload import Workload

ROOMS = ("stack", "mux", "http2", "path")


def of(room: str) -> dict[str, Workload]:
    """Give the workloads of one room by name; nothing of the others is loaded."""
    module = import_module(f"{__name__}.{room}")
    return {workload.name: workload for workload in module.WORKLOADS}


def find(name: str) -> Workload:
    """Give a workload by name, which begins with its room."""
    return of(name.partition(",")[0])[name]


def measure(benchmark: Any, workload: Workload) -> None:
    """Have pytest-benchmark time a workload, which checks its own answers."""
    benchmark.pedantic(
        workload.make(), rounds=100, iterations=10, warmup_rounds=workload.warm_up
    )
    per_unit = statistics.median(benchmark.stats.stats.data) / workload.units
    benchmark.extra_info[f"us per {workload.unit}"] = round(per_unit * 1e6, 2)
