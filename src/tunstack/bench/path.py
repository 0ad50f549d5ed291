"""The whole path: application, device, engine, manager, server, in networks of our own.

::

    client --------------- gateway ------------------ server
    engine    192.0.2/30   manager   198.51.100/30    10.96.0.80 through the tunnel
                                                      10.97.0.80 forwarded by the kernel

One server behind both ways, one client before them, and both ways asked in turns. As
root the networks are ours alone by themselves; without root they belong to a user
namespace (user_namespaces(7)), if the kernel lets users make one and open a TUN there.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunstack.bench import load
from tunstack.bench.probe import Figures, Probe, Unavailable, probe, spread
from tunstack.bench.rows import forwarded
from tunstack.errors import HostError, PrivilegeError
from tunstack.host import namespaces, paths
from tunstack.host.device import open_tun

_MANAGER = "192.0.2.2:7777"
_SUBNET = "10.96.0.0/16"
_TUNNELLED, _FORWARDED = "10.96.0.80", "10.97.0.80"

_FEW, _MANY = 8, 64
"""Connections at once: of transfers, of round trips."""

_PYTHON = (sys.executable, "-P")
_TUNSTACK = (*_PYTHON, "-m", "tunstack.cli.main")
_INTERPRETER = (*_PYTHON, "-c", "import asyncio; print('ready')")
_CONNECT = (*_TUNSTACK, "connect", "--foreground", "--insecure", "--no-dns")


@dataclass(frozen=True, slots=True)
class _Lab:
    """Networks, with a manager between client and server."""

    client: int
    server: int
    environment: Mapping[str, str]
    manager: int
    """Its process."""


@contextmanager
def start(_: frozenset[str]) -> Iterator[list[Probe]]:
    """Give the probes of the group ``start``."""
    if os.geteuid() != 0:
        raise Unavailable("needs root: `connect` starts a helper that is root")
    name = f"bench-{os.getpid()}"
    connect = (*_CONNECT, "--manager", _MANAGER, "--name", name)
    with _made() as lab:

        def begin(command: tuple[str, ...], _: float) -> float:
            began = time.perf_counter()
            with namespaces.running(command, lab.environment, lab.client):
                return time.perf_counter() - began

        yield [
            probe("interpreter", partial(begin, _INTERPRETER)),
            probe("connect", partial(begin, connect)),
        ]
    log = paths.log_file(name)  # of use only when it went wrong
    for file in (log, log.with_suffix(".log.1")):
        file.unlink(missing_ok=True)


@contextmanager
def path(_: frozenset[str]) -> Iterator[list[Probe]]:
    """Give the probes of the group ``path``."""
    module = (*_PYTHON, "-m")
    with _made() as lab, ExitStack() as undo:

        def run(namespace: int, *command: str) -> tuple[int, str]:
            process, line = undo.enter_context(
                namespaces.running(command, lab.environment, namespace)
            )
            return process.pid, line

        server, line = run(lab.server, *module, "tunstack.bench.load")
        engine, _ready = run(
            lab.client, *module, "tunstack.bench.engine", _MANAGER, _SUBNET
        )
        port = int(line.removeprefix("ready "))
        by_kernel, by_tunnel = (_FORWARDED, port), (_TUNNELLED, port)
        found = []
        for name, ask in _RATES.items():
            found.append(probe(forwarded(name), partial(ask, by_kernel)))
            found.append(probe(name, partial(ask, by_tunnel)))
        trips = ("round-trip", "round-trip-p99")
        for address, names in ((by_kernel, [*map(forwarded, trips)]), (by_tunnel, trips)):
            found.append(Probe(frozenset(names), partial(_round_trip, address, *names)))
        applications = {"cpu-applications": (os.getpid(), server)}
        ends = {"cpu-engine": (engine,), "cpu-manager": (lab.manager,)}
        for address, of in ((by_kernel, applications), (by_tunnel, ends)):
            found.append(Probe(frozenset(of), partial(_cpu, address, of)))
        yield found


def _bulk(
    transfer: Callable[[load.Address, int, float], tuple[int, float]],
    flows: int,
    address: load.Address,
    seconds: float,
) -> float:
    octets, took = transfer(address, flows, seconds)
    return octets * 8 / took


def _exchanges(address: load.Address, seconds: float) -> float:
    times, took = load.ask(address, _MANY, seconds)
    return len(times) / took


def _connections(address: load.Address, seconds: float) -> float:
    count, took = load.connect(address, seconds)
    return count / took


_RATES: dict[str, Callable[[load.Address, float], float]] = {
    "up-1": partial(_bulk, load.upload, 1),
    "up-8": partial(_bulk, load.upload, _FEW),
    "down-1": partial(_bulk, load.download, 1),
    "down-8": partial(_bulk, load.download, _FEW),
    "rate-64": _exchanges,
    "connections": _connections,
}
"""What is asked by either way."""


def _round_trip(address: load.Address, p50: str, p99: str, seconds: float) -> Figures:
    times, _ = load.ask(address, 1, seconds)
    return spread(times, p50, p99)


def _cpu(
    address: load.Address, of: Mapping[str, tuple[int, ...]], seconds: float
) -> Figures:
    """Measure the CPU seconds that processes take for each gigabyte of an upload."""
    before = {name: sum(map(_cpu_seconds, pids)) for name, pids in of.items()}
    octets, _ = load.upload(address, 1, seconds)
    return Figures(
        {
            name: (sum(map(_cpu_seconds, pids)) - before[name]) / octets * 1e9
            for name, pids in of.items()
        }
    )


def _cpu_seconds(pid: int) -> float:
    """CPU that a process has used, all its threads: clock_getcpuclockid(3).

    Python has no name for it. This is ``make_process_cpuclock`` of the kernel's
    ``posix-timers.h``, with ``CPUCLOCK_SCHED``.
    """
    return time.clock_gettime(~pid << 3 | 2)


@contextmanager
def _made() -> Iterator[_Lab]:
    """Make the networks, and a manager in them; this process goes to the client's."""
    with tempfile.TemporaryDirectory() as directory:
        client, gateway, server = _networks()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TUNSTACK_") or name == "TUNSTACK_FASTPATH"
        }
        # The caller's own sessions and settings have nothing to do with this.
        environment = kept | dict.fromkeys(
            ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"), directory
        )
        manager = [*_TUNSTACK, "manager", "--insecure", "--listen", _MANAGER]
        manager += ["--subnet", _SUBNET, "--drain", "0"]
        with namespaces.running(manager, environment, gateway) as (process, _):
            namespaces.enter(client)
            yield _Lab(client, server, environment, process.pid)


def _networks() -> tuple[int, int, int]:
    """Make the networks of client, gateway and server.

    Raises:
        Unavailable: the kernel does not let this user, or has no TUN for it.
    """
    try:
        if os.geteuid() != 0:
            namespaces.become_root()
        client, gateway, server = (namespaces.new() for _ in range(3))
        tun, _ = open_tun("probe", offload=True)
        os.close(tun)
        namespaces.cable(client, "gateway", gateway, "client")
        namespaces.cable(gateway, "server", server, "gateway")
        namespaces.configure(
            client,
            {"lo": [], "gateway": ["192.0.2.1/30"]},
            [(f"{_FORWARDED}/32", "192.0.2.2")],
        )
        namespaces.configure(
            server,
            {
                "lo": [f"{_TUNNELLED}/32", f"{_FORWARDED}/32"],
                "gateway": ["198.51.100.2/30"],
            },
            [("0.0.0.0/0", "198.51.100.1")],
        )
        namespaces.configure(
            gateway,
            {"lo": [], "client": ["192.0.2.2/30"], "server": ["198.51.100.1/30"]},
            [(f"{address}/32", "198.51.100.2") for address in (_TUNNELLED, _FORWARDED)],
        )
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    except (HostError, PrivilegeError) as exc:
        raise Unavailable(f"needs root or user namespaces with a TUN: {exc}") from exc
    except OSError as exc:
        raise Unavailable(f"needs kernel forwarding: {exc}") from exc
    return client, gateway, server
