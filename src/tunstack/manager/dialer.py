"""From the OPEN of a flow to its target, within the limits of this manager."""

import asyncio
import logging
import random
import socket

from tunstack.manager import ping
from tunstack.manager.overdue import Overdue
from tunstack.manager.ping import EchoTarget
from tunstack.manager.target import Target, Tunnel, address_of, refusal_of
from tunstack.manager.tcp import TcpTarget
from tunstack.manager.udp import UdpTarget
from tunstack.mux.session import Flow
from tunstack.wire.frame import Refusal

_log = logging.getLogger(__name__)

_TCP, _UDP = int(socket.IPPROTO_TCP), int(socket.IPPROTO_UDP)


class Dialer:
    """Makes the targets of all sessions.

    Args:
        limit: targets at once.
        patience: seconds that a target has to take a connection.
    """

    def __init__(self, limit: int, patience: float) -> None:
        self._limit = limit
        loop = asyncio.get_running_loop()
        self._young = Overdue(loop, patience, TcpTarget.grown)
        self._echo = {family: ping.kind_of_socket(family) for family in ping.PROTOCOLS}
        self._identifier = random.randrange(1 << 16)
        self._connections = 0
        self.targets = 0
        """Sockets that are open."""
        self.opened = 0
        """Sockets that have been since the start."""
        self.quiet = asyncio.Event()
        """No connection is open."""
        self.quiet.set()

    @property
    def icmp(self) -> bool:
        """Echoes can be sent."""
        return any(self._echo.values())

    def open(self, tunnel: Tunnel, flow: Flow) -> None:
        """Open the target of a flow, or refuse the flow with the reason."""
        if self.targets >= self._limit:
            text = f"this manager serves {self._limit} flows and no more"
            tunnel.mux.refuse(flow, Refusal.LIMIT, text)
            return
        try:
            self._open(tunnel, flow)
        except OSError as exc:
            refusal = refusal_of(exc.errno or 0)
            if refusal is Refusal.LIMIT:
                _log.warning("a flow is refused: %s", exc)
            tunnel.mux.refuse(flow, refusal, exc.strerror or "")

    def acquired(self, target: Target) -> None:
        """Count a target."""
        self.targets += 1
        self.opened += 1
        if isinstance(target, TcpTarget):
            self._young.add(target)
            self._connections += 1
            self.quiet.clear()

    def released(self, target: Target) -> None:
        """Count a target that has closed its socket."""
        self.targets -= 1
        if isinstance(target, TcpTarget):
            self._young.discard(target)
            self._connections -= 1
            if not self._connections:
                self.quiet.set()

    def _open(self, tunnel: Tunnel, flow: Flow) -> None:
        if flow.protocol == _TCP:
            TcpTarget.open(tunnel, flow)
            return
        if flow.protocol == _UDP:
            UdpTarget.open(tunnel, flow)
            return
        family, _ = address_of(flow)
        if flow.protocol != ping.PROTOCOLS[family]:
            text = f"protocol {flow.protocol} is not carried to such an address"
            tunnel.mux.refuse(flow, Refusal.PROTOCOL_UNREACHABLE, text)
        elif (kind := self._echo[family]) is None:
            text = "the manager may not send ICMP"
            tunnel.mux.refuse(flow, Refusal.UNAVAILABLE, text)
        else:
            self._identifier = (self._identifier + 1) & 0xFFFF
            EchoTarget.open(tunnel, flow, kind, self._identifier)
