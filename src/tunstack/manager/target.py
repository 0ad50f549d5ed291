"""What all targets of flows have in common: a socket, its errors, its end."""

import asyncio
import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any, Protocol

from tunstack.manager.config import ManagerConfig
from tunstack.manager.poller import Poller
from tunstack.mux.session import Flow, Mux
from tunstack.wire.frame import Kind, Refusal

_MAPPED = bytes(10) + b"\xff\xff"

REFUSALS = {
    errno.ECONNREFUSED: Refusal.REFUSED,
    errno.ENETUNREACH: Refusal.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Refusal.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Refusal.HOST_UNREACHABLE,
    errno.EACCES: Refusal.PROHIBITED,
    errno.EPERM: Refusal.PROHIBITED,
    errno.ETIMEDOUT: Refusal.TIMED_OUT,
    errno.ENOPROTOOPT: Refusal.PROTOCOL_UNREACHABLE,
    errno.EPROTONOSUPPORT: Refusal.PROTOCOL_UNREACHABLE,
    errno.EMSGSIZE: Refusal.TOO_BIG,
    errno.EMFILE: Refusal.LIMIT,
    errno.ENFILE: Refusal.LIMIT,
    errno.ENOBUFS: Refusal.LIMIT,
    errno.ENOMEM: Refusal.LIMIT,
    errno.EADDRNOTAVAIL: Refusal.LIMIT,  # no local port is left
    errno.EAFNOSUPPORT: Refusal.NETWORK_UNREACHABLE,
    errno.ECONNRESET: Refusal.RESET,
    errno.EPIPE: Refusal.RESET,
}
"""What the kernel said of a target, in the words of the protocol."""


def refusal_of(error: int) -> Refusal:
    """Translate an ``errno``."""
    return REFUSALS.get(error, Refusal.UNSPECIFIED)


def address_of(flow: Flow) -> tuple[socket.AddressFamily, str]:
    """Give the family and the text of a flow's target."""
    if flow.address.startswith(_MAPPED):
        return socket.AF_INET, socket.inet_ntop(socket.AF_INET, flow.address[12:])
    return socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, flow.address)


class Tunnel(Protocol):
    """What a target needs of the session it belongs to."""

    mux: Mux
    poller: Poller
    config: ManagerConfig
    loop: asyncio.AbstractEventLoop
    spans: list[int]
    """What sockets have received into the poller's arena in this turn, for ``Mux.send``."""

    def flush(self) -> None:
        """Send what was received so far: it counts, and what comes next is behind it."""

    def turn_ended(self) -> None:
        """Say what was received, and all else that the mux may have to send."""

    def hold(self, target: "Target") -> None:
        """Have a target released when the mux has sent something."""

    def acquired(self, target: "Target") -> None:
        """Take note of a target."""

    def released(self, target: "Target") -> None:
        """Take note that a target has closed its socket."""


class Target:
    """One flow's socket. Subclasses serve its events.

    It owns the flow, and hears of it, as long as the socket is open.
    """

    __slots__ = ("descriptor", "flow", "sock", "tunnel")

    def __init__(self, tunnel: Tunnel, flow: Flow, sock: socket.socket) -> None:
        self.tunnel = tunnel
        self.flow = flow
        self.sock = sock
        self.descriptor = sock.fileno()
        """Of the socket; negative once it is closed."""
        flow.owner = self
        tunnel.acquired(self)

    def ready(self, events: int) -> None:
        """Serve the socket; the poller has ``ROOM`` and ends the turn behind it."""
        raise NotImplementedError

    def flow_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        """Take what the client said."""
        raise NotImplementedError

    def release(self) -> None:
        """Go on, having been held."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The session is over: end what is not over."""
        self.close()

    def close(self) -> None:
        """Close the socket; harmless to repeat."""
        if self.descriptor >= 0:
            self.tunnel.poller.closing(self.descriptor)
            self.descriptor = -1
            self.flow.owner = None
            self.sock.close()
            self.tunnel.released(self)

    def fail(self, error: int) -> None:
        """End the flow for what the kernel said, towards both ends."""
        self.tunnel.mux.reset(self.flow, refusal_of(error))
        self.close()


# struct sock_extended_err of linux/errqueue.h: errno, origin, type, code.
_EXTENDED_ERROR = struct.Struct("=IBBB")
_FROM_ICMP = frozenset((2, 3))  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
_IP_RECVERR = 11
_IPV6_RECVERR = 25


def want_errors(sock: socket.socket) -> None:
    """Have the kernel queue the ICMP errors that a connectionless socket meets."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def queued_errors(sock: socket.socket) -> Iterator[tuple[Refusal, bytes]]:
    """Take the ICMP errors that have arrived: what each means, and for which octets.

    Source: ip(7), IP_RECVERR. A packet that was too big for the path is not among
    them: the kernel has learnt from it and cuts the next one.
    """
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(64, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            break
        for _, _, value in ancillary:
            error, origin, _, _ = _EXTENDED_ERROR.unpack_from(value)
            if origin in _FROM_ICMP and error != errno.EMSGSIZE:
                yield refusal_of(error), data
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
