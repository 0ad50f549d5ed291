"""The whole path in one process: packets, engine, a connection, manager, target.

The device is a socket of whole packets, the target a socket on loopback. One step at a
time is on its way, so nothing depends on who is faster, and the loop's clock goes on by
being looked at, so that no timer goes off for slowness. What a step costs here includes
the event loop and the little that host and target do, and leaves out the kernel.

The process leaves its network for one of its own, which takes root: no device carries
packets for 127.0.0.1, so loopback has to have another address.
"""

import asyncio
import ctypes
import os
import socket
import subprocess

import tunstack
from benchmarks.workloads.stack import (
    LARGE,
    MTU,
    OPTIONS,
    SEQUENCE,
    SEQUENCE_AT,
    SYN_OPTIONS,
    VNET,
)
from benchmarks.workloads.workload import Step, Workload
from tests.support.host import ACK, PSH, SYN, make_key, make_segment
from tunstack.manager.config import ManagerConfig
from tunstack.manager.server import Manager

TARGET = "10.96.0.1"

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def leave_network() -> None:
    """Move this thread into a new network namespace, where loopback has the target.

    Raises:
        OSError: that takes root.
    """
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for command in ("link set lo up", f"address add {TARGET} dev lo"):
        subprocess.run(["ip", *command.split()], check=True)


class Loop(asyncio.SelectorEventLoop):
    """One whose time has nothing to do with how fast anything is."""

    _now = 0.0

    def time(self) -> float:
        self._now += 1e-6
        return self._now


class Path:
    """One connection through everything, of a host that acknowledges each packet."""

    def __init__(self) -> None:
        leave_network()
        self.loop = Loop()
        self.loop.run_until_complete(self.begin())

    async def begin(self) -> None:
        manager = Manager(ManagerConfig(port=0))
        host, port = await manager.start()
        listener = socket.create_server((TARGET, 0))
        listener.setblocking(False)
        self.session = tunstack.connect(f"{host}:{port}")
        session = await self.session.__aenter__()
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.host, far = ends
        session.attach(tunstack.Device(far.detach(), name="none", mtu=MTU, vnet=VNET))
        self.key = make_key(6, "198.18.0.1", 40_000, *listener.getsockname())
        self.nxt, self.una = 1000, 0
        self.room = memoryview(bytearray(1 << 20))
        self.send(SYN, options=SYN_OPTIONS)
        self.target, _ = await self.loop.sock_accept(listener)
        self.target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = await self.loop.sock_recv_into(self.host, self.room)
        self.una = self.sequence() + 1
        self.nxt = 1001
        self.send(ACK)
        assert size > VNET
        self.manager, self.listener = manager, listener

    def sequence(self) -> int:
        """SEG.SEQ of the packet in the room."""
        return SEQUENCE.unpack_from(self.room, SEQUENCE_AT)[0]

    def send(self, flags: int, text: bytes = b"", options: bytes = OPTIONS) -> None:
        """Send one segment into the device."""
        self.host.send(
            make_segment(
                self.key, self.nxt, self.una, flags, text, options=options, vnet=VNET
            )
        )
        self.nxt += len(text)

    async def hear(self) -> int:
        """Wait for a packet from the device; gives the octets of its text."""
        size = await self.loop.sock_recv_into(self.host, self.room)
        header = self.room[VNET + 20 + 12] >> 4 << 2
        text = size - VNET - 20 - header
        assert text == 0 or self.sequence() == self.una & 0xFFFFFFFF
        self.una += text
        return text

    async def take(self, octets: int) -> None:
        """Wait until the target has so many octets."""
        while octets:
            octets -= await self.loop.sock_recv_into(self.target, self.room)


def step_of(path: Path, steps) -> Step:
    return lambda: path.loop.run_until_complete(steps(path))


def round_trip() -> Step:
    """64 octets to the target, 64 back, each of them acknowledged."""
    text = bytes(64)

    async def step(path: Path) -> None:
        path.send(ACK | PSH, text)
        await path.take(64)
        path.target.send(text)
        while await path.hear() == 0:
            pass

    return step_of(Path(), step)


def upload() -> Step:
    """One packet of text to the target."""
    text = bytes(LARGE)

    async def step(path: Path) -> None:
        path.send(ACK, text)
        await path.take(LARGE)
        assert await path.hear() == 0

    return step_of(Path(), step)


def download() -> Step:
    """As much from the target."""
    text = bytes(LARGE)

    async def step(path: Path) -> None:
        path.target.send(text)
        left = LARGE
        while left:
            left -= await path.hear()
        path.send(ACK)

    return step_of(Path(), step)


WORKLOADS = tuple(
    Workload(
        name=f"path, {name}",
        unit=unit,
        units=1,
        warm_up=300,
        make=make,
    )
    for name, unit, make in (
        ("round trip", "round trip", round_trip),
        ("upload", "segment", upload),
        ("download", "segment", download),
    )
)
