"""TCP flows as asyncio transports, for programs that use the library without a device.

Back-pressure goes all the way, as through a socket: a program that does not read holds
up the other end once the flow's credit is used up, and one that writes more than the
other end takes is paused by asyncio's own means.
"""

import asyncio
from collections import deque
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tunstack.engine.links import Links
from tunstack.engine.refused import as_error
from tunstack.mux.session import TCP, Flow
from tunstack.wire.frame import MAX_PAYLOAD, Kind, Refusal
from tunstack.wire.key import MAPPED

Address = IPv4Address | IPv6Address

HIGH_WATER = 64 * 1024
"""Octets that wait for credit when asyncio pauses the writer, unless it sets another."""

LINGER = 60.0
"""Seconds that the other end has to end a flow that we closed: as in Linux."""


def packed(address: Address) -> bytes:
    """Give the 16 octets that stand for an address in the mux."""
    return address.packed if address.version == 6 else MAPPED + address.packed


def peer_name(address: Address, port: int) -> str:
    """Write address and port for people."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


async def open_stream(
    links: Links, address: Address, port: int, *, credit: int, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection from the cluster.

    Args:
        links: the sessions.
        address: of the target.
        port: of the target.
        credit: octets that the other end may send before they are read.
        limit: octets in the reader's own buffer; see :class:`asyncio.StreamReader`.

    Raises:
        OSError: what the manager's kernel said of the target, as a socket says it.
    """
    if links.state == "disconnected":
        raise as_error(Refusal.LOST, peer_name(address, port))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    flow = links.open(TCP, packed(address), port, credit)
    transport = FlowTransport(loop, links, flow, protocol, address, port)
    links.wake()
    try:
        await transport.opened
    except asyncio.CancelledError:
        transport.abort()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class FlowTransport(asyncio.Transport):
    """One TCP flow, and the protocol that is told of it.

    Args:
        loop: the running loop.
        links: the sessions.
        flow: just begun; belongs to the transport from here on.
        protocol: told once the flow is open.
        address: of the target.
        port: of the target.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        links: Links,
        flow: Flow,
        protocol: asyncio.BaseProtocol,
        address: Address,
        port: int,
    ) -> None:
        super().__init__({"peername": (str(address), port)})
        self._loop = loop
        self._links = links
        self._flow = flow
        self._protocol: Any = protocol  # asyncio allows for three kinds
        self._peer = peer_name(address, port)
        flow.owner = self
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done when the target took the connection; fails with an ``OSError``."""
        self._held: deque[bytes] = deque()
        """Received while reading was paused."""
        self._paused = False
        self._ended = False
        """The other end has said its last octet; the protocol may not know yet."""
        self._waiting: deque[memoryview] = deque()
        """Written while there was no credit."""
        self._waiting_octets = 0
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._writer_paused = False
        self._finishing = False
        self._closing = False
        self._lost = False
        self._linger: asyncio.TimerHandle | None = None

    # What the mux says

    def flow_event(self, kind: Kind, _flow: Flow, value: Any) -> None:
        """Take an event of the flow."""
        if kind is Kind.DATA:
            self._take_data(bytes(value))
        elif kind is Kind.CREDIT:
            self._flush()
        elif kind is Kind.OPENED:
            self._take_opened()
        elif kind is Kind.FIN:
            self._ended = True
            self._stop_lingering()
            if not self._held:
                self._deliver_end()
        elif kind is Kind.REFUSED:
            self._fail(as_error(value[0], self._peer, value[1]))
        else:
            self._fail(as_error(value, self._peer))

    def _take_opened(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
            self._protocol.connection_made(self)

    def _take_data(self, octets: bytes) -> None:
        if self._closing:
            # Nobody will read it: the other end learns that as from a closed socket.
            self.abort()
        elif self._paused or self._held:
            self._held.append(octets)
        else:
            self._deliver(octets)

    def _deliver(self, octets: bytes) -> None:
        self._flow.link.mux.consumed(self._flow, len(octets))
        self._protocol.data_received(octets)

    def _deliver_held(self) -> None:
        while self._held and not (self._paused or self._closing):
            self._deliver(self._held.popleft())
        if self._ended and not (self._held or self._closing):
            self._deliver_end()
        self._links.wake()

    def _deliver_end(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def _fail(self, error: OSError) -> None:
        """The flow is gone."""
        if not self.opened.done():
            self.opened.set_exception(error)
        self._lose(error)

    def _lose(self, error: OSError | None) -> None:
        """Let go of the flow and tell the protocol, if it was ever told of it."""
        self._stop_lingering()
        self._closing = True
        self._held.clear()
        self._waiting.clear()
        self._waiting_octets = 0
        told = self.opened.done() and not self.opened.cancelled()
        if not self._lost and told and self.opened.exception() is None:
            self._loop.call_soon(self._protocol.connection_lost, error)
        self._lost = True

    def _stop_lingering(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    # What asyncio says: reading

    def is_reading(self) -> bool:
        """Whether the protocol gets what arrives."""
        return not (self._paused or self._closing)

    def pause_reading(self) -> None:
        """Hold what arrives, at most the flow's credit."""
        self._paused = True

    def resume_reading(self) -> None:
        """Give the protocol what was held, and go on."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver_held)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another protocol from here on."""
        self._protocol = protocol

    # What asyncio says: writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets, or keep a copy until there is credit."""
        if self._finishing:
            raise RuntimeError("nothing can be written behind the end of file")
        if self._closing or not data:
            return
        view = memoryview(data).cast("B")
        sent = 0 if self._waiting else self._send(view)
        if sent < len(view):
            self._waiting.append(memoryview(bytes(view[sent:])))
            self._waiting_octets += len(view) - sent
            if not self._writer_paused and self._waiting_octets > self._high:
                self._writer_paused = True
                self._protocol.pause_writing()
        self._links.wake()

    def _send(self, view: memoryview) -> int:
        """Send as many octets as there is credit for; returns how many."""
        flow = self._flow
        size = min(len(view), flow.send_credit)
        spans: list[int] = []
        for start in range(0, size, MAX_PAYLOAD):
            spans += (Kind.DATA, flow.id, start, min(start + MAX_PAYLOAD, size))
        self._flow.link.mux.send(view, spans)
        return size

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting and (sent := self._send(waiting[0])):
            self._waiting_octets -= sent
            if sent == len(waiting[0]):
                waiting.popleft()
            else:
                waiting[0] = waiting[0][sent:]
        if self._writer_paused and self._waiting_octets <= self._low:
            self._writer_paused = False
            self._protocol.resume_writing()
        if not waiting:
            self._finish_if_due()

    def write_eof(self) -> None:
        """Send the end of file behind what was written; reading goes on."""
        self._finishing = True
        if not self._waiting:
            self._finish_if_due()
            self._links.wake()

    def can_write_eof(self) -> bool:
        """TCP can."""
        return True

    def get_write_buffer_size(self) -> int:
        """Count the octets that wait for credit."""
        return self._waiting_octets

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give the low and the high mark."""
        return self._low, self._high

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the marks; see :meth:`asyncio.WriteTransport.set_write_buffer_limits`."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"want 0 <= low <= high, got {low} and {high}")
        self._low, self._high = low, high

    # What asyncio says: the end

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._closing

    def close(self) -> None:
        """Send what was written and the end of file; read nothing any more."""
        if self._closing:
            return
        self._closing = True
        if self._held:
            # Unread octets make it a reset, as closing a socket does.
            self.abort()
        elif not self._waiting:
            self._finish_if_due()
            self._links.wake()

    def abort(self) -> None:
        """Reset the flow: what was written may not arrive."""
        self._flow.link.mux.reset(self._flow)
        self._links.wake()
        self._lose(None)

    def _finish_if_due(self) -> None:
        """Everything is sent: end our direction when asked to, and all when closed."""
        if self._finishing or self._closing:
            self._flow.link.mux.finish(self._flow)
        if self._closing and not self._lost:
            self._lose(None)
            if not self._flow.gone:
                self._linger = self._loop.call_later(LINGER, self.abort)
