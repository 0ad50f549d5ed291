"""The address in the device that is this computer's own: a name server at port 53.

What the host sends there does not leave: it is answered here, by the same stack that
carries the rest. Other ports are closed, as on any host; the address answers pings.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunstack.engine.framing import IDLE, MOST_CONNECTIONS, MOST_UNREAD, Questions
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import Connection
from tunstack.upstream.upstream import PORT
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal

if TYPE_CHECKING:
    from tunstack.engine.nameserver import NameServer

CREDIT = 65_536
"""Octets of questions that a connection may send ahead."""


class Local:
    """Serves the host at addresses in the device.

    Args:
        stack: what the host talks TCP/IP to.
        addresses: 16 octets each, as in flow keys.
        flush: called when something is to be written outside of anybody's turn.
    """

    def __init__(
        self, stack: Stack, addresses: frozenset[bytes], flush: Callable[[], None]
    ) -> None:
        self.stack = stack
        self.addresses = addresses
        self.flush = flush
        self.closed: frozenset[bytes] = frozenset()
        """Further addresses, where nothing is."""
        self.server: NameServer | None = None
        """Answers questions; without it port 53 is closed, too."""
        self.connections: set[LocalConnection] = set()

    def takes(self, address: bytes) -> bool:
        """Whether what is sent to an address ends here."""
        return address in self.addresses or address in self.closed

    def datagram(self, key: bytes, payload: bytes, packet: bytes) -> None:
        """Take a datagram; ``packet`` is what it came in, or the beginning of that."""
        closed = flow_key.destination(key) in self.closed
        if closed or self.server is None or flow_key.ports(key)[1] != PORT:
            self.stack.unreachable(packet, Refusal.REFUSED)
        else:
            self.server.receive(payload, _Datagram(self.stack, key), tcp=False)

    def open(self, connection: Connection) -> None:
        """Take a connection, or refuse it."""
        if flow_key.destination(connection.key) in self.closed:
            self.stack.refuse(connection, Refusal.HOST_UNREACHABLE)
            return
        closed = self.server is None or flow_key.ports(connection.key)[1] != PORT
        if closed or len(self.connections) >= MOST_CONNECTIONS:
            self.stack.refuse(connection, Refusal.REFUSED)
            return
        connection.context = LocalConnection(self, connection)
        self.stack.opened(connection, CREDIT)

    def close(self) -> None:
        """Forget every connection."""
        for connection in tuple(self.connections):
            connection.forget()


class _Datagram:
    """Who asked by a datagram."""

    __slots__ = ("_key", "_stack")

    def __init__(self, stack: Stack, key: bytes) -> None:
        self._stack = stack
        self._key = key

    def reply(self, message: bytes) -> None:
        """Send it."""
        self._stack.datagram(self._key, message)


class LocalConnection:
    """A connection that ends here: to the bridge a flow, its link and its mux in one."""

    id = 0

    def __init__(self, local: Local, connection: Connection) -> None:
        self.link = self.mux = self
        self._local = local
        self._connection = connection
        self._questions = Questions(self)
        self._unread = 0
        self._host_finished = False
        self._finished = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(IDLE, self._expire)
        local.connections.add(self)

    # What the host did

    def send(self, source: Any, spans: list[int]) -> None:
        """Take octets that the host sent."""
        view = memoryview(source)
        for at in range(0, len(spans), 4):
            start, end = spans[at + 2], spans[at + 3]
            self._local.stack.grant(self._connection, end - start)
            server = None if self._finished else self._local.server
            if not self._questions.ask(bytes(view[start:end]), server):
                self._abort()
                return
        self._wait()

    def consumed(self, _flow: object, octets: int) -> None:
        """Take note that the host has received so many octets."""
        self._unread -= octets

    def finish(self, _flow: object) -> None:
        """The host asks no more."""
        self._host_finished = True
        if not self._questions.waiting:
            self._finish()

    def reset(self, _flow: object) -> None:
        """The host has given up."""
        self.forget()

    # What is done to the host

    def reply(self, message: bytes) -> None:
        """Answer one question."""
        answer = self._questions.answer(message)
        if self not in self._local.connections:
            return
        self._unread += len(answer)
        if self._unread > MOST_UNREAD:
            self._abort()
            return
        self._local.stack.send(self._connection, memoryview(answer))
        self._wait()
        if self._host_finished and not self._questions.waiting:
            self._finish()

    def forget(self) -> None:
        """Be gone."""
        self._timer.cancel()
        self._local.connections.discard(self)

    def _wait(self) -> None:
        self._timer.cancel()
        if self in self._local.connections:
            self._timer = self._loop.call_later(IDLE, self._expire)

    def _finish(self) -> None:
        """Send the end of file, and wait for the host's if it is not here yet."""
        self._finished = True
        self._local.stack.finish(self._connection)
        if self._host_finished:
            self.forget()
        else:
            self._wait()

    def _expire(self) -> None:
        if self._questions.waiting:
            self._wait()  # who waits for an answer is not idle
            return
        if self._finished:
            self._abort()
        else:
            self._finish()
        self._local.flush()

    def _abort(self) -> None:
        self._local.stack.reset(self._connection, self._loop.time())
        self.forget()
