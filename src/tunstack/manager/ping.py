"""ICMP echo: a reply means that the target is alive, and its time is the real time.

An unprivileged ping socket where ``net.ipv4.ping_group_range`` lets us, else a raw
socket where we are privileged enough, else nothing. On a ping socket the kernel chooses
the identifier and hands out only what belongs to the socket; on a raw socket both are
ours to do.
"""

import socket
import struct

from tunstack import _fastpath
from tunstack.manager.datagram import DatagramTarget
from tunstack.manager.target import Tunnel, address_of
from tunstack.mux.session import Flow
from tunstack.wire.frame import SEQUENCE, Kind

_ECHO = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number: RFC 792, RFC 4443 section 4.1."""

_SEQUENCE = _ECHO.size - SEQUENCE.size
"""Where the payload of an ECHO frame begins in an ICMP message."""

_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
PROTOCOLS = {
    socket.AF_INET: socket.IPPROTO_ICMP,
    socket.AF_INET6: socket.IPPROTO_ICMPV6,
}
"""Which ICMP a family speaks."""

# linux/icmp.h and linux/icmpv6.h: a bit that is set keeps that type away.
_SOL_RAW = 255
_ICMP_FILTER = 1
_ONLY_REPLY = struct.pack("=I", ~(1 << 0) & 0xFFFF_FFFF)
_ICMPV6_FILTER = 1
_ONLY_REPLY6 = (~(1 << 129) & (1 << 256) - 1).to_bytes(32, "little")


def kind_of_socket(family: socket.AddressFamily) -> socket.SocketKind | None:
    """Find out how echoes can be sent: ``SOCK_DGRAM``, ``SOCK_RAW`` or not at all."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind, PROTOCOLS[family]).close()
        except OSError:
            continue
        return kind
    return None


class EchoTarget(DatagramTarget):
    """The target of a flow of echoes; many may be in flight."""

    __slots__ = ("_identifier", "_raw")

    kind = Kind.ECHO

    def __init__(
        self,
        tunnel: Tunnel,
        flow: Flow,
        sock: socket.socket,
        host: str,
        identifier: int,
    ) -> None:
        self._identifier = identifier
        self._raw = sock.type == socket.SOCK_RAW
        if self._raw and sock.family == socket.AF_INET:
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, _ONLY_REPLY)
        elif self._raw:
            sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, _ONLY_REPLY6)
        super().__init__(tunnel, flow, sock, (host, 0))

    @classmethod
    def open(
        cls, tunnel: Tunnel, flow: Flow, kind: socket.SocketKind, identifier: int
    ) -> "EchoTarget":
        """Make the socket; nothing is sent yet.

        Args:
            tunnel: the session.
            flow: of protocol ICMP or ICMPv6.
            kind: what :func:`kind_of_socket` found.
            identifier: in our requests, where it is ours to choose; no other flow's.

        Raises:
            OSError: there is no socket to be had, or no way to the target.
        """
        family, host = address_of(flow)
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, PROTOCOLS[family])
        return cls(tunnel, flow, sock, host, identifier)

    def _received(self, packet: memoryview) -> int:
        start = 0
        if self._raw and self.sock.family == socket.AF_INET:
            start = (packet[0] & 15) * 4  # the IPv4 header: raw(7)
        message = packet[start:]
        if message[:1] != _REPLY[self.sock.family].to_bytes() or not self._is_ours(message):
            return -1
        return start + _SEQUENCE

    def _concerns(self, packet: bytes) -> bool:
        return self._is_ours(packet)

    def _is_ours(self, message: bytes | memoryview) -> bool:
        if len(message) < _ECHO.size:
            return False
        return not self._raw or _ECHO.unpack_from(message)[3] == self._identifier

    def _send(self, payload: memoryview) -> None:
        family = self.sock.family
        (sequence,) = SEQUENCE.unpack_from(payload)
        data = payload[SEQUENCE.size :]
        header = _ECHO.pack(_REQUEST[family], 0, 0, self._identifier, sequence)
        if self._raw and family == socket.AF_INET:  # the kernel does the others
            total = _fastpath.sum16(data, _fastpath.sum16(header, 0))
            header = _ECHO.pack(
                _REQUEST[family], 0, total ^ 0xFFFF, self._identifier, sequence
            )
        self.sock.sendmsg((header, data))
