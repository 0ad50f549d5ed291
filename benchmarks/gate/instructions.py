"""Counted instructions, by callgrind: of each kernel, and of each machine in Python.

Start-up is not counted: the process says where to begin and where to end. The C library
is told to use instructions that every x86-64 has, as its ``memcpy`` would otherwise count
differently on each model.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gate import tools
from benchmarks.gate.verdict import Limit, Row
from benchmarks.gate.worker import REFERENCE, find
from benchmarks.workloads.workload import Workload

PART = "instructions"

CALLS = 100
"""Of each kernel."""
STEPS = 50
"""Of each workload."""

KERNEL = Limit(share=0.02, elsewhere=0.6, slack=2)
MACHINE = Limit(share=0.04, elsewhere=0.2)
PATH = Limit(share=0.05, elsewhere=0.25)
"""An event loop is in it, and the kernel decides how much a wake-up finds."""

_TUNABLES = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM"


def measure(names: Sequence[str]) -> Iterator[Row]:
    """Give a row for each kernel and each of the workloads."""
    yield from kernels()
    workloads = [find(name) for name in (REFERENCE, *names)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(_count, workloads)
        for workload, count in zip(workloads, counts, strict=True):
            yield Row(
                part=PART,
                name=f"Python, {workload.name}",
                value=round(count),
                unit=f"instructions per {workload.unit}",
                limit=PATH if workload.name.startswith("path") else MACHINE,
                reference=f"{PART}: Python, {REFERENCE}",
            )


def kernels() -> Iterator[Row]:
    """Give a row for each kernel, and the loop that stands for the compiler."""
    program = tools.kernels()
    names = subprocess.run(
        [program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    counts = _callgrind("kernels", [str(program), str(CALLS)])
    for name, count in zip(names, counts, strict=True):
        yield Row(
            part=PART,
            name=f"C, {name}",
            value=round(count / CALLS, 1),
            unit="instructions per call",
            limit=KERNEL,
            reference=f"{PART}: C, reference loop",
        )


def _count(workload: Workload) -> float:
    """Instructions per unit of a workload."""
    words = [str(tools.probe()), "instructions", str(STEPS), workload.name]
    command = [sys.executable, "-m", "benchmarks.gate.worker", *words]
    (count,) = _callgrind(re.sub(r"\W+", "-", workload.name), command)
    return count / STEPS / workload.units


def _callgrind(name: str, command: list[str]) -> list[int]:
    """Run a command under callgrind; gives the instructions of each of its dumps."""
    out = tools.workshop() / f"{name}.callgrind"
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]
    done = subprocess.run(
        [*valgrind, f"--callgrind-out-file={out}", *command],
        cwd=tools.CHECKOUT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": f"{tools.CHECKOUT / 'src'}:{tools.CHECKOUT}",
            "GLIBC_TUNABLES": _TUNABLES,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    dumps: list[int] = []
    while (dump := Path(f"{out}.{len(dumps) + 1}")).exists():
        (total,) = re.findall(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE)
        dumps.append(int(total))
    return dumps
