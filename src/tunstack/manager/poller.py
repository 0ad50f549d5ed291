"""Readiness of many sockets for one callback of the event loop.

The loop watches a single descriptor, an epoll of our own, and each of its wake-ups
serves every flow that is ready. Registering a socket with the loop itself would cost a
handle per flow and a Python call per change of interest; this costs one system call.

What the flows of one turn receive lies side by side in one :attr:`Poller.arena`, and
leaves when the turn ends: in one message of each session and not in one of each flow.
"""

import asyncio
import select
from typing import Protocol

from tunstack.wire.frame import HEADER, MAX_MESSAGE, MAX_PAYLOAD

_PER_TURN = 64
"""Flows served before the loop gets to write. The kernel hands out the rest in turn."""

ARENA = MAX_MESSAGE - (_PER_TURN + MAX_MESSAGE // MAX_PAYLOAD) * HEADER.size
"""Octets that one turn may receive: what one message of the tunnel holds, in frames."""

ROOM = MAX_PAYLOAD
"""Octets of it, at least, that are free for each socket that is served."""


class Session(Protocol):
    """Whom a socket is served for."""

    def turn_ended(self) -> None:
        """Say what sockets led to, and all that they have received into the arena."""


class Watched(Protocol):
    """Whoever serves a socket."""

    @property
    def tunnel(self) -> Session:
        """Told when it, and what else is ready, has been served."""

    def ready(self, events: int) -> None:
        """Take ``select.EPOLL*`` bits."""


class Poller:
    """Sockets and who serves them when they are ready.

    Whoever serves one may forget sockets, others than its own too, but must not watch
    new ones: their number could be that of an event not handed out yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._watched: dict[int, Watched] = {}
        self._served: set[Session] = set()
        self.arena = bytearray(ARENA)
        """Memory that reads of all sockets share during one turn."""
        self.view = memoryview(self.arena)
        self.filled = 0
        """Where in it the next read may begin."""
        loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, descriptor: int, events: int, watched: Watched) -> None:
        """Tell while a socket has one of ``events``, an error or a hang-up."""
        if descriptor in self._watched:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._watched[descriptor] = watched

    def forget(self, descriptor: int) -> None:
        """Stop watching a socket that stays open."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def closing(self, descriptor: int) -> None:
        """Stop watching a socket that is about to be closed.

        The kernel does so by itself: epoll(7), question 6.
        """
        self._watched.pop(descriptor, None)

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        watched = self._watched
        try:
            for descriptor, events in self._poll(0, _PER_TURN):
                target = watched.get(descriptor)
                if target is not None:
                    if self.filled > ARENA - ROOM:
                        self._end_turn()
                    self._served.add(target.tunnel)
                    target.ready(events)
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        """Have everything said that was received, and the arena is free again."""
        served, self._served = self._served, set()
        for session in served:
            session.turn_ended()
        self.filled = 0
