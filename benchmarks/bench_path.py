"""The whole path: application, device, stack, stream, manager, server, and back.

The question: what does an application get, beside kernel forwarding through the same
namespaces in the same run, and beside what a bare stream carries on loopback?

Each round asks the ceiling first and then the tunnel. Application, engine, manager and
server share the machine, so what is said of CPU is said of engine and manager alone.
"""

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from benchmarks.load import Load, cpu_seconds
from tests.support import lab as labs
from tests.support.lab import Lab
from tunstack.config import TRANSPORTS

ROUNDS = 5
OCTETS = 256 << 20
IDLE = 10_000
FORWARDING = "kernel forwarding"


class Ends:
    """A lab, what loads it, and the processes of its tunnel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lab = Lab()
        self.pids: dict[str, int] = {}
        if name == FORWARDING:
            self.lab.forward()
        else:
            self.lab.transport = name
            manager = self.lab.manage()
            self.lab.connect()
            engine = self.lab.status()["engine"]["pid"]
            self.pids = {"engine": engine, "manager": manager.pid}
        self.load = Load(self.lab)

    def cpu(self) -> dict[str, float]:
        """Seconds so far, by process."""
        return {who: cpu_seconds(pid) for who, pid in self.pids.items()}

    def memory(self) -> dict[str, int]:
        """Octets resident, by process."""
        return {who: labs.rss(pid) for who, pid in self.pids.items()}

    def close(self) -> None:
        self.load.close()
        self.lab.close()


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if reason := labs.missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def forwarding() -> Iterator[Ends]:
    with closing(Ends(FORWARDING)) as ends:
        yield ends


@pytest.fixture(scope="module", params=["lean"])
def tunnel(request) -> Iterator[Ends]:
    with closing(Ends(request.param)) as ends:
        yield ends


both = pytest.mark.parametrize("tunnel", TRANSPORTS, indirect=True)


class Results:
    """What tunnel and ceiling answered, and what CPU the tunnel took for it."""

    def __init__(self, benchmark, tunnel: Ends, forwarding: Ends, *words) -> None:
        self.tunnel: list[dict[str, float]] = []
        self.ceiling: list[dict[str, float]] = []
        self.cpu: list[dict[str, float]] = []

        def ask_ceiling() -> None:
            self.ceiling.append(forwarding.load(*words))

        def ask() -> None:
            before = tunnel.cpu()
            self.tunnel.append(tunnel.load(*words))
            after = tunnel.cpu()
            self.cpu.append({who: after[who] - before[who] for who in after})

        forwarding.load(*words)
        tunnel.load(*words)
        benchmark.pedantic(ask, setup=ask_ceiling, rounds=ROUNDS)

    def of(self, which: list[dict[str, float]], value) -> float:
        return statistics.median(map(value, which))


@pytest.mark.parametrize("flows", [1, 8, 64], ids="{} flows".format)
@pytest.mark.parametrize("way", ["up", "down"])
def bench_bulk(benchmark, tunnel, forwarding, transports, say, way, flows):
    results = Results(benchmark, tunnel, forwarding, way, flows, OCTETS)
    row = f"{way}, {flows} flow{'s' * (flows > 1)}, Gbit/s"

    def rate(result):
        return OCTETS * 8 / result["seconds"] / 1e9

    say(row, tunnel.name, results.of(results.tunnel, rate))
    say(row, FORWARDING, results.of(results.ceiling, rate))
    for kind, measured in transports.items():
        say(row, f"{kind} stream", measured["262144 octets, Gbit/s"])
    for who in tunnel.pids:
        seconds = results.of(results.cpu, lambda cpu, who=who: cpu[who])
        say(row, f"{who}, CPU s/GB", seconds / OCTETS * 1e9)


@pytest.mark.parametrize("tunnel", ["stock"], indirect=True)
@pytest.mark.parametrize("way", ["up", "down"])
def bench_bulk_on_stock(benchmark, tunnel, forwarding, say, way):
    results = Results(benchmark, tunnel, forwarding, way, 1, OCTETS)
    seconds = results.of(results.tunnel, lambda result: result["seconds"])
    say(f"{way}, 1 flow, Gbit/s", "stock", OCTETS * 8 / seconds / 1e9)


@pytest.mark.parametrize("flows", [1, 64], ids="{} flows".format)
@both
def bench_round_trip(benchmark, tunnel, forwarding, transports, say, flows):
    count = 2000 if flows == 1 else 20_000
    results = Results(benchmark, tunnel, forwarding, "ask", flows, count)
    name = f"round trip, {flows} flow{'s' * (flows > 1)}"
    for which, ends in ((results.tunnel, tunnel), (results.ceiling, forwarding)):
        for share in ("p50", "p99"):
            value = results.of(which, lambda result, share=share: result[share])
            say(f"{name}, {share}, us", ends.name, value * 1e6)
        rate = results.of(which, lambda result: count / result["seconds"])
        say(f"{name}, per second", ends.name, rate, digits=5)
    if flows == 1:
        for kind, measured in transports.items():
            say(f"{name}, p50, us", f"{kind} stream", measured["round trip, us"])


@pytest.mark.parametrize("flows", [1, 16], ids="{} at once".format)
def bench_connect_request_close(benchmark, tunnel, forwarding, say, flows):
    count = 300 * (1 if flows == 1 else 3)
    results = Results(benchmark, tunnel, forwarding, "connect", flows, count)
    for which, ends in ((results.tunnel, tunnel), (results.ceiling, forwarding)):
        rate = results.of(which, lambda result: count / result["seconds"])
        say(f"connections, {flows} at once, per second", ends.name, rate, digits=5)


@pytest.mark.parametrize("way", ["up", "down"])
def bench_datagrams(benchmark, tunnel, forwarding, say, way):
    """Of 1 200 octets, as fast as they can be sent. Those that arrive count."""
    results = Results(benchmark, tunnel, forwarding, f"datagrams-{way}", 1200, 0.5)
    for which, ends in ((results.tunnel, tunnel), (results.ceiling, forwarding)):
        rate = results.of(which, lambda result: result["arrived"] / result["seconds"])
        assert rate > 0
        say(f"datagrams {way}, per second", ends.name, rate, digits=5)


@pytest.mark.parametrize("loss", [0, 1], ids="{} percent lost".format)
def bench_upload_in_single_packets(benchmark, tunnel, forwarding, say, loss):
    """Loss behind the manager. Without offload, as else whole 64 KiB would be lost."""
    if shutil.which("ethtool") is None:
        pytest.skip("needs ethtool")
    rule = f"meta l4proto tcp numgen random mod 100 < {loss} counter drop"
    with ExitStack() as undo:
        for ends in (tunnel, forwarding):
            gateway = ends.lab.gateway
            gateway.run("ethtool", "-K", "server", "tso", "off", "gso", "off")
            undo.callback(gateway.run, "ethtool", "-K", "server", "tso", "on", "gso", "on")
            if loss:
                undo.enter_context(ends.lab.server.firewall(rule))
        octets = 64 << 20
        results = Results(benchmark, tunnel, forwarding, "up", 1, octets)
    for which, ends in ((results.tunnel, tunnel), (results.ceiling, forwarding)):
        seconds = results.of(which, lambda result: result["seconds"])
        row = f"up in single packets, {loss} % lost, Gbit/s"
        say(row, ends.name, octets * 8 / seconds / 1e9)


def bench_upload_through_a_queue_of_500(benchmark, tunnel, say):
    device = tunnel.lab.status()["device"]["name"]
    tunnel.lab.client.ip(f"link set {device} txqueuelen 500")
    try:
        benchmark.pedantic(tunnel.load, ("up", 1, OCTETS), rounds=ROUNDS, warmup_rounds=1)
    finally:
        tunnel.lab.client.ip(f"link set {device} txqueuelen 4096")
    seconds = statistics.median(benchmark.stats.stats.data)
    say("up through a queue of 500, Gbit/s", tunnel.name, OCTETS * 8 / seconds / 1e9)


def bench_idle_connections(benchmark, say):
    """What one more connection weighs that says nothing, and that all still answer."""
    with closing(Ends("lean")) as ends, ExitStack() as held:
        ends.load("ask", 1, 100)
        before = ends.memory()
        benchmark.pedantic(lambda: held.enter_context(ends.load.hold(IDLE)), rounds=1)
        after = ends.memory()
    for who in before:
        grown = (after[who] - before[who]) / IDLE
        say(f"idle connection of {IDLE}, octets", who, grown, digits=5)


@pytest.mark.parametrize("count", [10, 100, 1000, 10_000], ids="{} open".format)
def bench_cost_of_open_flows(benchmark, tunnel, say, count):
    """The same 10 flows ask, beside ever more that say nothing."""
    asked = 10_000
    with ExitStack() as held:
        if count > 10:
            held.enter_context(tunnel.load.hold(count - 10))
        tunnel.load("ask", 10, asked)
        before = tunnel.cpu()
        benchmark.pedantic(tunnel.load, ("ask", 10, asked), rounds=3)
        after = tunnel.cpu()
    for who in after:
        spent = (after[who] - before[who]) / asked / 3
        say(f"CPU of a round trip, {count} open, us", f"{who}", spent * 1e6)


def bench_first_byte(benchmark, say):
    """From ``connect`` with nothing running here to the first octet back."""
    ready: list[float] = []
    with closing(Lab()) as lab:
        lab.manage()
        load = Load(lab)

        def first_byte() -> None:
            began = time.perf_counter()
            done = lab.connect_once()
            ready.append(time.perf_counter() - began)
            assert done.returncode == 0, done.stderr
            load("ask", 1, 1)

        def leave() -> None:
            if ready:
                lab.quit()

        benchmark.pedantic(first_byte, setup=leave, rounds=ROUNDS)
        lab.quit()
        load.close()
    say("connect is ready, ms", "lean", statistics.median(ready) * 1e3)
    seconds = statistics.median(benchmark.stats.stats.data)
    say("connect to first octet, ms", "lean", seconds * 1e3)
