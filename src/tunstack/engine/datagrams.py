"""UDP flows as sockets, for programs that use the library without a device."""

import asyncio
import errno
import os
from collections import deque
from types import TracebackType
from typing import Any, Self

from tunstack.engine.links import Links
from tunstack.engine.refused import as_error
from tunstack.engine.streams import Address, packed, peer_name
from tunstack.mux.session import Flow
from tunstack.wire.frame import Kind, Refusal

UDP = 17

MOST = 65_507
"""Octets in one datagram: what IPv4 leaves (RFC 768, RFC 791)."""


class DatagramSocket:
    """A UDP socket in the cluster, connected to one target.

    Datagrams may get lost, as everywhere. An ICMP error that the cluster's side met is
    raised by the next call, once. Works as an asynchronous context manager.

    Made by :meth:`Session.open_datagram`, and closed at the latest with the session. No
    two tasks may receive at once.

    Args:
        links: the sessions.
        address: of the target.
        port: of the target.
        queue: octets that may wait to be received. More are dropped.
    """

    def __init__(self, links: Links, address: Address, port: int, *, queue: int) -> None:
        self._links = links
        self._address = address
        self._port = port
        self._peer = peer_name(address, port)
        self._queue = queue
        self._received: deque[bytes] = deque()
        self._received_octets = 0
        self._error: OSError | None = None
        self._receiver: asyncio.Future[None] | None = None
        self._flow: Flow | None = None
        self._closed = False
        self.dropped = 0
        """Datagrams that found the queue full."""

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram; an empty one is one too.

        Raises:
            OSError: of an earlier datagram; or this one is longer than 65 507 octets;
                or the socket is closed.
        """
        self._raise_error()
        if len(data) > MOST:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        if self._flow is None:
            # The first, or the first since the manager gave up the idle flow.
            flow = self._links.open(UDP, packed(self._address), self._port, 0)
            flow.owner = self
            self._flow = flow
        self._flow.link.mux.send(data, [Kind.DATAGRAM, self._flow.id, 0, len(data)])
        self._links.wake()

    async def recv(self) -> bytes:
        """Wait for the next datagram.

        Raises:
            OSError: of a datagram that was sent; or the socket is closed.
        """
        while not self._received:
            self._raise_error()
            self._receiver = asyncio.get_running_loop().create_future()
            await self._receiver
        data = self._received.popleft()
        self._received_octets -= len(data)
        return data

    def close(self) -> None:
        """End it; whoever waits in :meth:`recv` gets an ``OSError``."""
        if self._closed:
            return
        self._closed = True
        if self._flow is not None:
            self._flow.link.mux.reset(self._flow)
            self._links.wake()
        self._wake_receiver()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _raise_error(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, f"{self._peer}: the socket is closed")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _wake_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def flow_event(self, kind: Kind, _flow: Flow, value: Any) -> None:
        """Take an event of the flow."""
        if kind is Kind.DATAGRAM:
            if self._received_octets + len(value) > self._queue:
                self.dropped += 1
                return
            self._received.append(bytes(value))
            self._received_octets += len(value)
        elif kind is Kind.UNREACHABLE:
            self._error = as_error(value, self._peer)
        elif kind is Kind.REFUSED:
            self._flow = None
            self._error = as_error(value[0], self._peer, value[1])
        else:
            self._flow = None
            if value is not Refusal.TIMED_OUT:
                self._error = as_error(value, self._peer)
        self._wake_receiver()
