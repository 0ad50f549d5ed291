"""Readiness of many sockets for one callback of the event loop.

The loop watches a single descriptor, an epoll of our own, and each of its wake-ups
serves every flow that is ready. Registering a socket with the loop itself would cost a
handle per flow and a Python call per change of interest; this costs one system call.
"""

import asyncio
import select
from collections.abc import Callable

ARENA = 256 * 1024
"""Octets that one read may take: what one message of the tunnel holds."""

_PER_TURN = 64
"""Flows served before the loop gets to write. The kernel hands out the rest in turn."""

Ready = Callable[[int], None]
"""Called with ``select.EPOLL*`` bits."""


class Poller:
    """Sockets and who is called when they are ready.

    A callback may forget sockets, others than its own too, but must not watch new
    ones: their number could be that of an event not handed out yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self.arena = bytearray(ARENA)
        """Memory that reads of all sockets share; what lies there is used up at once."""
        self.view = memoryview(self.arena)
        loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, descriptor: int, events: int, ready: Ready) -> None:
        """Call ``ready`` while a socket has one of ``events``, an error or a hang-up."""
        if descriptor in self._ready:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._ready[descriptor] = ready

    def forget(self, descriptor: int) -> None:
        """Stop watching; needed before a socket is closed."""
        if self._ready.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        for descriptor, events in self._epoll.poll(0, _PER_TURN):
            ready = self._ready.get(descriptor)
            if ready is not None:
                ready(events)
