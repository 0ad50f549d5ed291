"""What the targets of datagrams and of echoes have in common."""

import asyncio
import errno
import select
import socket
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from tunstack.manager.poller import ARENA, ROOM
from tunstack.manager.target import (
    Target,
    Tunnel,
    queued_errors,
    refusal_of,
    want_errors,
)
from tunstack.mux.session import Flow
from tunstack.wire.frame import Kind, Refusal

_IN, _ERR = select.EPOLLIN, select.EPOLLERR


class Idle:
    """Calls back after ``patience`` seconds in which nothing stirred.

    The timer of the loop is set once per period and not once per datagram.
    """

    __slots__ = ("_expired", "_last", "_loop", "_patience", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        expired: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._patience = patience
        self._expired = expired
        self._last = loop.time()
        self._timer = loop.call_later(patience, self._look)

    def stir(self) -> None:
        """Something happened."""
        self._last = self._loop.time()

    def stop(self) -> None:
        """Never call back; harmless to repeat."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._last + self._patience - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._expired()


class DatagramTarget(Target):
    """A connected socket without connection, so that errors find their flow.

    It ends when the client says so, or when nothing came or went for long. Errors that
    arrive are said to the client, and the flow lives on.

    Raises:
        OSError: there is no way to the target.
    """

    __slots__ = ("_idle",)

    kind: Kind
    """Of the frames that carry what is sent and received."""

    def __init__(
        self, tunnel: Tunnel, flow: Flow, sock: socket.socket, address: tuple[str, int]
    ) -> None:
        try:
            want_errors(sock)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        super().__init__(tunnel, flow, sock)
        self._idle = Idle(tunnel.loop, tunnel.config.idle, self._expire)
        tunnel.poller.watch(self.descriptor, select.EPOLLIN, self)

    @abstractmethod
    def _received(self, packet: memoryview) -> int:
        """Say where in a received packet the payload of the frame begins.

        -1 when the packet is not for the flow.
        """

    @abstractmethod
    def _send(self, payload: memoryview) -> None:
        """Hand a packet for the payload of a frame to the kernel.

        Raises:
            OSError: it does not take it, or says what has become of an earlier one.
        """

    def _concerns(self, packet: bytes) -> bool:
        """Whether an error about ``packet`` is about something this flow sent."""
        return True

    def ready(self, events: int) -> None:
        """Serve the socket."""
        if events & _ERR:
            for refusal, packet in queued_errors(self.sock):
                if self._concerns(packet):
                    self.tunnel.mux.unreachable(self.flow, refusal)
        if events & _IN:
            self._read()

    def _read(self) -> None:
        """Take packets while another of any size fits the arena."""
        poller, spans = self.tunnel.poller, self.tunnel.spans
        before = start = poller.filled
        while start <= ARENA - ROOM:  # no packet of IP is larger
            try:
                end = start + self.sock.recv_into(poller.view[start:])
            except BlockingIOError:
                break
            except OSError as exc:
                self.tunnel.mux.unreachable(self.flow, refusal_of(exc.errno or 0))
                break
            payload = self._received(poller.view[start:end])
            if payload >= 0:
                spans += (self.kind, self.flow.id, start + payload, end)
                start = end
        if start != before:
            poller.filled = start
            self._idle.stir()

    def flow_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        """Take what the client said."""
        if kind is self.kind:
            self._idle.stir()
            self._try(value)
        elif kind is Kind.RESET:
            self.close()

    def _try(self, payload: memoryview) -> None:
        # An error may be that of an earlier packet, and then this one was not tried.
        for _ in range(2):
            try:
                self._send(payload)
            except BlockingIOError:
                return  # a full queue drops, as a network does
            except OSError as exc:
                self.tunnel.mux.unreachable(self.flow, refusal_of(exc.errno or 0))
                if exc.errno == errno.EMSGSIZE:
                    return
            else:
                return

    def _expire(self) -> None:
        self.tunnel.mux.reset(self.flow, Refusal.TIMED_OUT)
        self.close()
        self.tunnel.turn_ended()

    def close(self) -> None:
        """Close the socket; harmless to repeat."""
        self._idle.stop()
        super().close()
