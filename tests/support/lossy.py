"""A device that loses, repeats, delays and reorders packets, both ways.

The engine is a process of its own that the command starts, so it gets the device through
Python's ``sitecustomize``: :attr:`Weather.environment` is what to start the command with.
How bad it is lies in a file that the engine maps, so it may change while the session
stands.
"""

import asyncio
import mmap
import os
import select
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from tunstack.host import device

_VARIABLE = "LOSSY_WEATHER"
_FIELDS = struct.Struct("=4d")
_COUNT = struct.Struct("=Q")

_SITE = """
import sys
sys.path.insert(0, {checkout!r})
from tests.support import lossy
lossy.install()
del sys.path[0]
"""


class Weather:
    """What happens to packets, the same in each direction; good at first.

    Args:
        directory: where to keep it; the engine may look into it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "weather"
        self._directory = directory
        self._path.write_bytes(bytes(_FIELDS.size + _COUNT.size))
        self._path.chmod(0o666)  # the engine counts, and is nobody
        checkout = str(Path(__file__).parents[2])
        (directory / "sitecustomize.py").write_text(_SITE.format(checkout=checkout))

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a command's device lossy."""
        path = [str(self._directory), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        return {"PYTHONPATH": os.pathsep.join(path), _VARIABLE: str(self._path)}

    def set(
        self,
        *,
        loss: float = 0,
        duplicate: float = 0,
        reorder: float = 0,
        delay: float = 0,
    ) -> None:
        """Change it.

        Args:
            loss, duplicate, reorder: probabilities.
            delay: seconds that each packet takes, one that is reordered up to twice that
                and 2 ms.
        """
        with self._path.open("r+b") as file:
            file.write(_FIELDS.pack(loss, duplicate, reorder, delay))

    @property
    def lost(self) -> int:
        """Packets that were lost so far."""
        (lost,) = _COUNT.unpack_from(self._path.read_bytes(), _FIELDS.size)
        return int(lost)


def install() -> None:
    """Make the devices of this process lossy; to be called before others import them."""
    device.Device = LossyDevice  # type: ignore[misc]


class LossyDevice(device.Device):
    """Its descriptor is readable too when a packet that was held is due."""

    def __init__(self, fd: int, *, name: str, mtu: int, vnet: int) -> None:
        super().__init__(fd, name=name, mtu=mtu, vnet=vnet)
        with open(os.environ[_VARIABLE], "r+b") as file:
            self._weather = mmap.mmap(file.fileno(), 0)
        self._lost = 0
        self._random = Random(1)
        self._due: list[bytes] = []
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._either = select.epoll()
        self._either.register(fd, select.EPOLLIN)
        self._either.register(self._woken, select.EPOLLIN)
        self._survivors = bytearray()

    def fileno(self) -> int:
        return self._either.fileno()

    def close(self) -> None:
        if not self.closed:
            self._either.close()
            os.close(self._woken)
        super().close()

    def _arrivals(self) -> list[float]:
        """Draw after how many seconds a packet arrives: never, once or twice."""
        loss, duplicate, reorder, delay = _FIELDS.unpack_from(self._weather)
        chance = self._random.random
        if chance() < loss:
            self._lost += 1
            _COUNT.pack_into(self._weather, _FIELDS.size, self._lost)
            return []
        if chance() < reorder:
            delay += chance() * (delay + 0.002)
        return [delay, delay] if chance() < duplicate else [delay]

    def read_batch(self) -> tuple[bytearray, list[int]]:
        arena, lengths = super().read_batch()
        arrived, self._due = self._due, []
        if arrived:
            os.eventfd_read(self._woken)
        for slot, length in enumerate(lengths):
            start = slot * device.STRIDE
            packet = bytes(memoryview(arena)[start : start + length])
            for delay in self._arrivals():
                if delay:
                    asyncio.get_running_loop().call_later(delay, self._arrive, packet)
                else:
                    arrived.append(packet)
        return self._batch(arrived)

    def _arrive(self, packet: bytes) -> None:
        if not self.closed:
            self._due.append(packet)
            os.eventfd_write(self._woken, 1)

    def _batch(self, packets: list[bytes]) -> tuple[bytearray, list[int]]:
        if len(self._survivors) < len(packets) * device.STRIDE:
            self._survivors = bytearray(len(packets) * device.STRIDE)
        for slot, packet in enumerate(packets):
            start = slot * device.STRIDE
            self._survivors[start : start + len(packet)] = packet
        return self._survivors, [len(packet) for packet in packets]

    def write_batch(
        self, packets: Iterable[Sequence[bytes | bytearray | memoryview]]
    ) -> None:
        at_once: list[Sequence[bytes | bytearray | memoryview]] = []
        for pieces in packets:
            for delay in self._arrivals():
                if delay:
                    packet = b"".join(pieces)
                    asyncio.get_running_loop().call_later(delay, self._leave, packet)
                else:
                    at_once.append(pieces)
        super().write_batch(at_once)

    def _leave(self, packet: bytes) -> None:
        if not self.closed:
            super().write_batch([[packet]])
