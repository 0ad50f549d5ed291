"""Connections to targets: dialled, carried, and ended as either side ends them."""

import asyncio
import errno
import os
import select
import socket
import struct
from collections import deque
from typing import Any

from tunstack.manager.poller import ARENA
from tunstack.manager.target import Target, Tunnel, address_of, refusal_of
from tunstack.mux.session import Flow
from tunstack.wire.frame import MAX_PAYLOAD, Kind, Refusal

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_ABORT = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
_LAST_OCTETS = 60_000
"""Milliseconds without progress after which the octets of an ended session are lost."""


class TcpTarget(Target):
    """A connection to the target of a flow.

    Reading stops while the flow has no credit, so a client that does not read holds up
    its target and nobody else. Octets count as consumed when the kernel has taken
    them, so a target that does not read holds up its client likewise.
    """

    __slots__ = ("_dialling", "_ended", "_events", "_finishing", "_queue")

    def __init__(self, tunnel: Tunnel, flow: Flow, sock: socket.socket) -> None:
        super().__init__(tunnel, flow, sock)
        self._dialling: asyncio.TimerHandle | None = None
        self._queue: deque[memoryview] | None = None
        """Octets that the kernel has not taken yet."""
        self._finishing = False
        """The client has said its last octet."""
        self._ended = False
        """The target has said its last octet."""
        self._events = -1
        """What the poller watches; -1 for nothing."""

    @classmethod
    def open(cls, tunnel: Tunnel, flow: Flow) -> "TcpTarget":
        """Dial. What comes of it is said to the mux.

        Raises:
            OSError: there is no socket to be had.
        """
        family, host = address_of(flow)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        target = cls(tunnel, flow, sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        error = sock.connect_ex((host, flow.port))
        if error in (0, errno.EINPROGRESS):
            target._dialling = tunnel.loop.call_later(
                tunnel.config.dial, target._dial_timed_out
            )
            target._watch(_OUT)
        else:
            target._refuse(refusal_of(error), os.strerror(error))
        return target

    # What the kernel says

    def ready(self, events: int) -> None:
        """Serve the socket."""
        if self._dialling is not None:
            self._dialled()
        else:
            if self._queue and events & (_OUT | _BROKEN):
                self._flush()
            if self._readable:
                if events & (_IN | _BROKEN):
                    self._read()
            elif events & _BROKEN and not self._queue:
                self.fail(self._error() or errno.ECONNRESET)
            self._adjust()
        self.tunnel.wake()

    def _dialled(self) -> None:
        error = self._error()
        if error:
            self._refuse(refusal_of(error), os.strerror(error))
            return
        self._dialling_over()
        self.tunnel.mux.opened(self.flow, self.tunnel.config.flow_buffer)
        self._adjust()

    def _dial_timed_out(self) -> None:
        self._refuse(Refusal.TIMED_OUT, "the target did not answer")
        self.tunnel.wake()

    def _dialling_over(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None

    def _refuse(self, refusal: Refusal, text: str) -> None:
        self.tunnel.mux.refuse(self.flow, refusal, text)
        self.close()

    def _error(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    @property
    def _readable(self) -> bool:
        return not self._ended and self.flow.send_credit > 0 and not self._closed

    @property
    def _closed(self) -> bool:
        return self.sock.fileno() < 0

    def _read(self) -> None:
        """Take what one read gives, and say it in frames."""
        poller = self.tunnel.poller
        try:
            size = self.sock.recv_into(poller.arena, min(self.flow.send_credit, ARENA))
        except BlockingIOError:
            return
        except OSError as exc:
            self.fail(exc.errno or errno.ECONNRESET)
            return
        if size == 0:
            self._ended = True
            self.tunnel.mux.finish(self.flow)
            self._close_if_over()
            return
        spans: list[int] = []
        for start in range(0, size, MAX_PAYLOAD):
            spans += (Kind.DATA, self.flow.id, start, min(start + MAX_PAYLOAD, size))
        self.tunnel.mux.send(poller.arena, spans)

    # What the client says

    def flow_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        """Take what the client said."""
        if self._closed:
            return
        if kind is Kind.DATA:
            self._write(value)
        elif kind is Kind.FIN:
            self._finishing = True
            if not self._queue:
                self._finish()
        elif kind is Kind.RESET:
            self._abort()
        self._adjust()

    def _write(self, octets: memoryview) -> None:
        if self._queue:
            self._queue.append(memoryview(bytes(octets)))
            return
        sent = self._send(octets)
        if sent < len(octets) and not self._closed:
            self._queue = deque((memoryview(bytes(octets[sent:])),))

    def _send(self, octets: memoryview) -> int:
        try:
            sent = self.sock.send(octets)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self.fail(exc.errno or errno.ECONNRESET)
            return 0
        self.tunnel.mux.consumed(self.flow, sent)
        return sent

    def _flush(self) -> None:
        queue = self._queue
        assert queue is not None
        while queue:
            sent = self._send(queue[0])
            if sent < len(queue[0]):
                queue[0] = queue[0][sent:]
                return
            queue.popleft()
        self._queue = None
        if self._finishing:
            self._finish()

    def _finish(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self.fail(exc.errno or errno.ECONNRESET)
        else:
            self._close_if_over()

    def _close_if_over(self) -> None:
        if self._ended and self._finishing and not self._queue:
            self.close()

    def _abort(self) -> None:
        """Close so that the target sees a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()

    def abandon(self) -> None:
        """The session is over: end what is not over."""
        if self._ended and self._finishing:
            # Both ends are content: the last octets may go on their way, as they do
            # when a process exits, for as long as the target takes any.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _LAST_OCTETS)
        else:
            self._abort()

    def close(self) -> None:
        """Close the socket; harmless to repeat."""
        self._dialling_over()
        self._queue = None
        super().close()

    # What to watch

    def _adjust(self) -> None:
        """Watch for what can be acted on.

        A target that has said its last octet is watched for nothing, which still
        reports a reset. One without credit is not watched at all: what it has said
        comes before its reset, as everywhere in TCP.
        """
        if self._closed or self._dialling is not None:
            return
        events = (_IN if self._readable else 0) | (_OUT if self._queue else 0)
        self._watch(events if events or self._ended else -1)

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        self._events = events
        if events < 0:
            self.tunnel.poller.forget(self.sock.fileno())
        else:
            self.tunnel.poller.watch(self.sock.fileno(), events, self.ready)
