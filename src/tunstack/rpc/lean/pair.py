"""Any pair of a reader and a writer like asyncio's, as an asyncio transport.

For connections that no event loop knows: inside a WebSocket, behind a proxy, in memory.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tunstack.rpc.http2.message import Octets

_READ = 64 * 1024


class PairTransport(asyncio.Transport):
    """Carries a :class:`asyncio.BufferedProtocol` over a reader and a writer.

    Args:
        protocol: told what arrives.
        reader: has ``await read(n)``, which gives no octets at the end.
        writer: has ``writelines``, ``await drain()`` and ``close()``.
        peer: who is at the other end, for people.
    """

    def __init__(
        self, protocol: asyncio.BufferedProtocol, reader: Any, writer: Any, peer: str
    ) -> None:
        super().__init__({"peername": peer})
        self._protocol = protocol
        self._reader = reader
        self._writer = writer
        self._pending: list[Octets] = []
        self._woken = asyncio.Event()
        self._paused = False
        self._closing = False
        self._lost = False
        protocol.connection_made(self)
        self._tasks = [
            asyncio.create_task(self._guard(self._read)),
            asyncio.create_task(self._guard(self._write)),
        ]

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Let everything wait that the writer has not taken, as long as it is little."""

    def get_write_buffer_size(self) -> int:
        """Octets that wait for the writer."""
        return sum(len(octets) for octets in self._pending)

    def write(self, data: Any) -> None:
        """Send octets."""
        self.writelines([data])

    def writelines(self, data: Any) -> None:
        """Send octets, and have the protocol pause until the writer has taken them."""
        self._pending += data
        self._woken.set()
        if not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Whether one half can be closed: not everything that carries us knows halves."""
        return False

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._closing

    def close(self) -> None:
        """Send what waits, then close."""
        self._closing = True
        self._woken.set()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        self._lose(None)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        error: Exception | None = None
        try:
            await work()
        except asyncio.CancelledError:
            return
        except Exception as exc:  # noqa: BLE001 - what carries us has errors of its own
            error = exc
        self._lose(error)

    async def _read(self) -> None:
        while octets := await self._reader.read(_READ):
            view = memoryview(octets)
            while view and not self._lost:
                room = memoryview(self._protocol.get_buffer(-1))
                count = min(len(room), len(view))
                room[:count] = view[:count]
                self._protocol.buffer_updated(count)
                view = view[count:]
        if not self._protocol.eof_received():
            self.close()

    async def _write(self) -> None:
        while self._pending or not self._closing:
            await self._woken.wait()
            self._woken.clear()
            while self._pending:
                pending, self._pending = self._pending, []
                self._writer.writelines(pending)
                await self._writer.drain()
                if not self._pending and self._paused:
                    self._paused = False
                    self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._writer.close()
        self._protocol.connection_lost(error)
