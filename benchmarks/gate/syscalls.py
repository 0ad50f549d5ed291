"""System calls of engine and manager, by strace: what batches are for.

A traced process is slower, and takes more at a time. So bulk is compared within wide
limits; round trips, which wait for each other, within less than one call.
"""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.gate import tools
from benchmarks.gate.verdict import Limit, Row
from benchmarks.load import Load
from tests.support.lab import Lab

PART = "syscalls"

MIB = 64
"""Of each transfer."""
ROUND_TRIPS = 500
CONNECTIONS = 100

BULK = Limit(share=0.5, elsewhere=0.5, slack=1)
CONNECTION = Limit(share=0.25, elsewhere=0.25, slack=0.5)
ROUND_TRIP = Limit(share=0.03, elsewhere=0.03, slack=0.25)


def measure() -> Iterator[Row]:
    """Give a row for each kind of work and each process."""
    lab = Lab()
    try:
        lab.manage()
        lab.connect()
        pids = {"engine": lab.status()["engine"]["pid"], "manager": lab.manager.pid}
        load = Load(lab)
        work = (
            ("upload", "MiB", MIB, BULK, ("up", 1, MIB << 20)),
            ("download", "MiB", MIB, BULK, ("down", 1, MIB << 20)),
            ("round trip", "round trip", ROUND_TRIPS, ROUND_TRIP, ("ask", 1, ROUND_TRIPS)),
            (
                "connection",
                "connection",
                CONNECTIONS,
                CONNECTION,
                ("connect", 1, CONNECTIONS),
            ),
        )
        for name, unit, units, limit, words in work:
            load(*words)
            for who, calls in _count(pids, lambda words=words: load(*words)).items():
                yield Row(
                    part=PART,
                    name=f"{name}, {who}",
                    value=round(calls / units, 2),
                    unit=f"per {unit}",
                    limit=limit,
                )
    finally:
        lab.close()


def _count(pids: dict[str, int], run: Callable[[], object]) -> dict[str, int]:
    """Count the calls of processes while something runs."""
    counts: dict[str, int] = {}
    with _traced(pids, counts):
        run()
    return counts


@contextmanager
def _traced(pids: dict[str, int], counts: dict[str, int]) -> Iterator[None]:
    tracers = {}
    for who, pid in pids.items():
        out = tools.workshop() / f"{who}.strace"
        tracer = subprocess.Popen(
            ["strace", "-c", "-f", "-o", out, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        assert "attached" in attached, attached
        tracers[who] = tracer, out
    yield
    for who, (tracer, out) in tracers.items():
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
        # "% time, seconds, usecs/call, calls, errors if there are any, name".
        (total,) = re.findall(r"^.* total$", out.read_text(), re.MULTILINE)
        counts[who] = int(total.split()[3])
