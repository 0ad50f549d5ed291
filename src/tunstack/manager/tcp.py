"""Connections to targets: dialled, carried, and ended as either side ends them."""

import errno
import os
import select
import socket
import struct
from collections import deque
from typing import Any

from tunstack.manager.target import Target, Tunnel, address_of, refusal_of
from tunstack.mux.session import Flow
from tunstack.wire.frame import MAX_PAYLOAD, Kind, Refusal

_IN, _OUT, _END = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_READABLE = _IN | _BROKEN
_WRITABLE = _OUT | _BROKEN
_NOTHING = -1
"""Not even watched for errors."""

# To name a member through its class is a call in Python 3.11.
_DATA, _CREDIT, _FIN, _RESET = Kind.DATA, Kind.CREDIT, Kind.FIN, Kind.RESET
_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_TCP = int(socket.IPPROTO_TCP)
_ABORT = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
_LAST_OCTETS = 60_000
"""Milliseconds without progress after which the octets of an ended session are lost."""


class TcpTarget(Target):
    """A connection to the target of a flow.

    Reading stops while the flow has no credit, so a client that does not read holds up
    its target and nobody else. Octets count as consumed when the kernel has taken
    them, so a target that does not read holds up its client likewise.
    """

    __slots__ = (
        "_bulky",
        "_dialling",
        "_ended",
        "_events",
        "_finishing",
        "_held",
        "_queue",
    )

    def __init__(self, tunnel: Tunnel, flow: Flow, sock: socket.socket) -> None:
        super().__init__(tunnel, flow, sock)
        self._dialling = True
        self._queue: deque[memoryview] | None = None
        """Octets that the kernel has not taken yet."""
        self._finishing = False
        """The client has said its last octet."""
        self._ended = False
        """The target has said its last octet."""
        self._bulky = False
        """The last read gave much."""
        self._held = False
        """Nothing is read for now."""
        self._events = _NOTHING
        """What the poller watches."""

    @classmethod
    def open(cls, tunnel: Tunnel, flow: Flow) -> "TcpTarget":
        """Dial. What comes of it is said to the mux.

        Raises:
            OSError: there is no socket to be had.
        """
        family, host = address_of(flow)
        sock = socket.socket(family, _STREAM)
        target = cls(tunnel, flow, sock)
        sock.setsockopt(_TCP, socket.TCP_NODELAY, 1)
        error = sock.connect_ex((host, flow.port))
        if error in (0, errno.EINPROGRESS):
            target._watch(_OUT)
        else:
            target._refuse(refusal_of(error), os.strerror(error))
        return target

    def grown(self) -> None:
        """Take it that nobody answers; or, if one has, ask from now on who is there.

        Called once, when dialling may take no longer.
        """
        if self._dialling:
            self._refuse(Refusal.TIMED_OUT, "the target did not answer")
            self.tunnel.turn_ended()
        else:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    # What the kernel says

    def ready(self, events: int) -> None:
        """Serve the socket."""
        if self._dialling:
            self._dialled(events)
            return
        if self._queue is not None and events & _WRITABLE:
            self._flush()
        if events & _READABLE and self._events > 0 and self._events & _IN:
            # Most servers end a connection right behind their last words.
            if self._read() and events & _END:
                self.tunnel.flush()
                self._read()
        elif events & _BROKEN and self._queue is None and self.descriptor >= 0:
            self.fail(self._error() or errno.ECONNRESET)

    def _dialled(self, events: int) -> None:
        error = self._error() if events & _BROKEN else 0
        if error:
            self._refuse(refusal_of(error), os.strerror(error))
            return
        self._dialling = False
        self.tunnel.mux.opened(self.flow, self.tunnel.config.flow_buffer)
        self._adjust()

    def _refuse(self, refusal: Refusal, text: str) -> None:
        self.tunnel.mux.refuse(self.flow, refusal, text)
        self.close()

    def _error(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _read(self) -> bool:
        """Take what one read gives; it is said in frames when the turn ends.

        Returns whether there was something, and that was all (epoll(7), question 9).

        While the transport leaves what was read before, bulk stays with the kernel:
        here it would be copied into a queue and out of it again.
        """
        tunnel, flow = self.tunnel, self.flow
        if self._bulky and tunnel.mux.pending:
            self._held = True
            tunnel.hold(self)
            self._adjust()
            return False
        poller, credit = tunnel.poller, flow.send_credit
        start = poller.filled
        room = poller.view[start : start + credit]
        try:
            size = self.sock.recv_into(room)
        except BlockingIOError:
            return False
        except OSError as exc:
            self.fail(exc.errno or errno.ECONNRESET)
            return False
        if size == 0:
            self._ended = True
            tunnel.mux.finish(flow)
            if self._finishing and self._queue is None:
                self.close()
            else:
                self._adjust()
            return False
        end = poller.filled = start + size
        self._bulky = size >= MAX_PAYLOAD
        if size <= MAX_PAYLOAD:
            tunnel.spans += (_DATA, flow.id, start, end)
        else:
            for at in range(start, end, MAX_PAYLOAD):
                tunnel.spans += (_DATA, flow.id, at, min(at + MAX_PAYLOAD, end))
        if size == credit:
            tunnel.flush()  # which takes the credit
            self._adjust()
        return size < len(room)

    def release(self) -> None:
        """Read again."""
        self._held = False
        if self.descriptor >= 0:
            self._adjust()

    # What the client says

    def flow_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        """Take what the client said."""
        if kind is _DATA:
            if self._queue is not None:
                self._queue.append(memoryview(bytes(value)))
                return
            sent = self._send(value)
            if sent < len(value):
                self._queue = deque((memoryview(bytes(value[sent:])),))
                self._adjust()
        elif kind is _CREDIT:
            self._adjust()
        elif kind is _FIN:
            self._finishing = True
            if self._queue is None:
                self._finish()
        elif kind is _RESET:
            self._abort()

    def _send(self, octets: memoryview) -> int:
        """Give octets to the kernel; returns how many there is nothing left to do about.

        Those are all, if the connection turns out to be broken.
        """
        try:
            sent = self.sock.send(octets)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self.fail(exc.errno or errno.ECONNRESET)
            return len(octets)
        self.tunnel.mux.consumed(self.flow, sent)
        return sent

    def _flush(self) -> None:
        """Go on with what the kernel has not taken."""
        queue = self._queue
        assert queue is not None
        while queue:
            sent = self._send(queue[0])
            if sent < len(queue[0]):
                queue[0] = queue[0][sent:]
                return
            if self.descriptor < 0:
                return
            queue.popleft()
        self._queue = None
        if self._finishing:
            self._finish()
        else:
            self._adjust()

    def _finish(self) -> None:
        if self._ended:
            self.close()  # which says as much
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self.fail(exc.errno or errno.ECONNRESET)
        else:
            self._adjust()

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
        self._queue = None
        self._events = _NOTHING
        super().close()

    # What to watch

    def _adjust(self) -> None:
        """Watch for what can be acted on.

        A target that has said its last octet is watched for nothing, which still
        reports a reset. One without credit is not watched at all: what it has said
        comes before its reset, as everywhere in TCP.
        """
        reads = self.flow.send_credit > 0 and not (self._ended or self._held)
        events = _IN | _END if reads else 0
        if self._queue is not None:
            events |= _OUT
        self._watch(events if events or self._ended else _NOTHING)

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        self._events = events
        if events == _NOTHING:
            self.tunnel.poller.forget(self.descriptor)
        else:
            self.tunnel.poller.watch(self.descriptor, events, self)
