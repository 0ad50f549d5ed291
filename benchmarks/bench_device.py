"""A real TUN, in a namespace. The question: what does a packet cost in a batch of 1, of 64?

Small packets and the largest, with offload as sessions have it. Needs root.
"""

import os
import socket
import statistics
from contextlib import closing

import pytest

from tests.support import lab as labs
from tests.support.host import make_key
from tests.support.lab import Namespace
from tunstack import _fastpath
from tunstack.host.device import VNET, Device, open_tun

MTU = 65_520
ROUNDS = 300
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
OURS, THEIRS = "198.18.0.1", "10.96.0.1"

both_sizes = pytest.mark.parametrize("size", [1200, 60_000], ids="{} octets".format)
batches = pytest.mark.parametrize("count", [1, 64], ids="{} packets".format)


class Tun:
    """A device that leads everywhere, and a socket of the host that owns it."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace:
            fd, vnet = open_tun("bench0", offload=True)
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert vnet == VNET
        self.device = Device(fd, name="bench0", mtu=MTU, vnet=vnet)
        for command in (
            "link set bench0 mtu 65520 up",
            f"address add {OURS}/30 dev bench0",
            "route add default dev bench0",
        ):
            namespace.ip(command)
        for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
            self.sock.setsockopt(socket.SOL_SOCKET, option, 1 << 26)
        self.sock.bind((OURS, 0))
        self.sock.setblocking(False)

    def drain(self) -> None:
        """Read what the host says by itself, like router solicitations."""
        while self.device.read_batch()[1]:
            pass


@pytest.fixture
def tun(tmp_path):
    if reason := labs.missing():
        pytest.skip(reason)
    with closing(Namespace(f"ts-{os.getpid()}-tun", tmp_path)) as namespace:
        tun = Tun(namespace)
        yield tun
        tun.device.close()
        tun.sock.close()


def say(benchmark, count: int) -> None:
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["us per packet"] = round(seconds / count * 1e6, 2)


@batches
@both_sizes
def bench_read(benchmark, tun, size, count):
    def fill() -> None:
        tun.drain()
        for _ in range(count):
            tun.sock.sendto(bytes(size), (THEIRS, 9))

    _, lengths = benchmark.pedantic(tun.device.read_batch, setup=fill, rounds=ROUNDS)

    assert lengths == [VNET + 20 + 8 + size] * count
    say(benchmark, count)


@batches
@both_sizes
def bench_write(benchmark, tun, size, count):
    # An answer to a datagram that the socket might have sent.
    key = make_key(17, *tun.sock.getsockname(), THEIRS, 9)
    packet = [_fastpath.frame_udp(key, size, 0, 1, VNET), bytes(size)]

    def empty() -> tuple:
        while True:
            try:
                tun.sock.recv(MTU)
            except BlockingIOError:
                return ([packet] * count,), {}

    benchmark.pedantic(tun.device.write_batch, setup=empty, rounds=ROUNDS)

    assert [len(tun.sock.recv(MTU)) for _ in range(count)] == [size] * count
    assert tun.device.write_drops == 0
    say(benchmark, count)
