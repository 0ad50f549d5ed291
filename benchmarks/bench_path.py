"""The whole path: application, device, stack, stream, manager, server, and back.

The question: what does an application get by either transport, beside kernel forwarding
through the same namespaces in the same run?
"""

import os
import resource
import shutil
import signal
import socket
import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support import lab as labs
from tests.support.lab import V4, Lab
from tunstack.config import TRANSPORTS

OCTETS = 256 * 1024 * 1024
BLOCK = bytes(1024 * 1024)


@pytest.fixture(scope="module", params=["kernel forwarding", *TRANSPORTS])
def lab(request) -> Iterator[Lab]:
    if reason := labs.missing():
        pytest.skip(reason)
    made = Lab()
    try:
        if request.param in TRANSPORTS:
            made.transport = request.param
            made.manage()
            made.connect()
        else:
            made.forward()
        yield made
    finally:
        made.close()


class Server:
    """A process beside this one that serves connections of one listening socket."""

    def __init__(self, listener: socket.socket, serve) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                while True:
                    near, _ = listener.accept()
                    serve(near)
                    near.close()
            finally:
                os._exit(1)
        self.port = listener.getsockname()[1]

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def take_all(near: socket.socket) -> None:
    buffer = bytearray(1024 * 1024)
    total = 0
    while size := near.recv_into(buffer):
        total += size
    near.sendall(total.to_bytes(8, "big"))


def give_all(near: socket.socket) -> None:
    for _ in range(OCTETS // len(BLOCK)):
        near.sendall(BLOCK)


def echo(near: socket.socket) -> None:
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while text := near.recv(65_536):
        near.sendall(text)


def once(near: socket.socket) -> None:
    near.sendall(near.recv(1))


def served(lab: Lab, serve) -> Server:
    with lab.server.listen(V4) as listener:
        return Server(listener, serve)


def upload(lab: Lab, port: int) -> None:
    with lab.client.connect(V4, V4.server, port) as near:
        for _ in range(OCTETS // len(BLOCK)):
            near.sendall(BLOCK)
        near.shutdown(socket.SHUT_WR)
        assert int.from_bytes(near.recv(8), "big") == OCTETS


def rate(benchmark) -> None:
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["Gbit/s"] = round(OCTETS * 8 / seconds / 1e9, 2)


def bench_upload(benchmark, lab):
    with served(lab, take_all) as server:
        benchmark.pedantic(upload, (lab, server.port), rounds=5, warmup_rounds=1)
    rate(benchmark)


@pytest.mark.parametrize("loss", [0, 1], ids="{} percent lost".format)
def bench_upload_in_single_packets(benchmark, lab, loss):
    """Loss behind the manager. Without offload, as else whole 64 KiB would be lost."""
    if shutil.which("ethtool") is None:
        pytest.skip("needs ethtool")
    lab.gateway.run("ethtool", "-K", "server", "tso", "off", "gso", "off")
    rule = f"meta l4proto tcp numgen random mod 100 < {loss} counter drop"
    try:
        with ExitStack() as undo:
            if loss:
                undo.enter_context(lab.server.firewall(rule))
            server = undo.enter_context(served(lab, take_all))
            benchmark.pedantic(upload, (lab, server.port), rounds=5)
    finally:
        lab.gateway.run("ethtool", "-K", "server", "tso", "on", "gso", "on")
    rate(benchmark)


@pytest.mark.parametrize("lab", TRANSPORTS, indirect=True)
def bench_upload_through_a_queue_of_500(benchmark, lab):
    device = lab.status()["device"]["name"]
    lab.client.ip(f"link set {device} txqueuelen 500")
    with served(lab, take_all) as server:
        benchmark.pedantic(upload, (lab, server.port), rounds=5)
    lab.client.ip(f"link set {device} txqueuelen 4096")
    rate(benchmark)


@pytest.mark.parametrize("lab", TRANSPORTS, indirect=True)
def bench_memory_of_idle_connections(benchmark, lab):
    """Octets that engine and manager grow by for each of 5 000 idle connections."""
    count = 5000
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    engine = lab.status()["engine"]["pid"]
    pids = {"engine": engine, "manager": lab.manager.pid}
    with lab.server.listen(V4) as listener:
        listener.listen(4096)
        port = listener.getsockname()[1]
        before = {name: labs.rss(pid) for name, pid in pids.items()}

        def open_all() -> list[socket.socket]:
            held = []
            for _ in range(count):
                held += (lab.client.connect(V4, V4.server, port), listener.accept()[0])
            return held

        held = benchmark.pedantic(open_all, rounds=1)
    for name, pid in pids.items():
        grown = labs.rss(pid) - before[name]
        benchmark.extra_info[f"octets per connection, {name}"] = grown // count
    for sock in held:
        sock.close()


def bench_download(benchmark, lab):
    buffer = bytearray(1024 * 1024)

    def download(port: int) -> None:
        with lab.client.connect(V4, V4.server, port) as near:
            total = 0
            while size := near.recv_into(buffer):
                total += size
        assert total == OCTETS

    with served(lab, give_all) as server:
        benchmark.pedantic(download, (server.port,), rounds=5, warmup_rounds=1)
    rate(benchmark)


def bench_round_trip(benchmark, lab):
    with served(lab, echo) as server:
        near = lab.client.connect(V4, V4.server, server.port)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask() -> bytes:
            near.sendall(b"x" * 64)
            return near.recv(65_536)

        assert benchmark.pedantic(ask, rounds=5000, warmup_rounds=200) == b"x" * 64
        near.close()


def bench_connect_request_close(benchmark, lab):
    with served(lab, once) as server:

        def exchange() -> bytes:
            with lab.client.connect(V4, V4.server, server.port) as near:
                near.sendall(b"x")
                answer = near.recv(1)
                assert near.recv(1) == b""
                return answer

        assert benchmark.pedantic(exchange, rounds=1000, warmup_rounds=20) == b"x"
