"""Associations: a UDP socket for each flow."""

import socket

from tunstack.manager.datagram import DatagramTarget
from tunstack.manager.target import Tunnel, address_of
from tunstack.mux.session import Flow
from tunstack.wire.frame import Kind


class UdpTarget(DatagramTarget):
    """The target of a UDP flow."""

    __slots__ = ()

    kind = Kind.DATAGRAM

    @classmethod
    def open(cls, tunnel: Tunnel, flow: Flow) -> "UdpTarget":
        """Make the socket; nothing is sent yet.

        Raises:
            OSError: there is no socket to be had, or no way to the target.
        """
        family, host = address_of(flow)
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        return cls(tunnel, flow, sock, (host, flow.port))

    def _received(self, packet: memoryview) -> int:
        return 0

    def _send(self, payload: memoryview) -> None:
        self.sock.send(payload)
