"""The world of the sans-IO stack: time passes when nothing else can happen."""

from collections import deque
from typing import Any

from tests.support.host import make_key
from tests.support.packetdrill.notation import Call, Script, Tcp
from tests.support.packetdrill.play import play
from tests.support.packetdrill.wire import Wire, text
from tunstack.config import TcpConfig
from tunstack.manager.config import ManagerConfig
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.wire.frame import Refusal

MTU = {4: 1500, 6: 1520}

_ADDRESSES = {4: ("198.18.0.1", "10.96.0.1"), 6: ("fd00::1", "fd96::1")}
_PORTS = 40_000, 80
_ISS_TICK = 4e-6
"""Seconds: RFC 6528's M."""


def run(script: Script, version: int) -> None:
    """Play a script in virtual time.

    Raises:
        Mismatch: see :func:`tests.support.packetdrill.play.play`.
    """
    world = Virtual(script, version)
    play(script, world, world.key(6))


class _Flow:
    """A connection with the target."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.unread = bytearray()
        self.arrived = 0
        self.written = 0
        self.finished = False
        self.error = ""
        self.closed = False
        self.lingers = True


class Virtual:
    """A stack, and the target behind it."""

    early = late = 0.004
    ticks = 4
    settle = 0.0

    def __init__(self, script: Script, version: int) -> None:
        self._version = version
        mtu = int(script.options.get("mtu", MTU[version]))
        self._stack = Stack(
            mtu=mtu, vnet=0, config=TcpConfig(), secret=bytes(16), local=frozenset()
        )
        self._now = 1000.0
        self._out: deque[tuple[float, bytes]] = deque()
        self._sockets: dict[str, Any] = {}
        target = script.directives.get("target", "refused")
        self._answers = target != "slow"
        """Whether a SYN is answered when it comes, not when the script says so."""
        self._refusal = Refusal.REFUSED
        if self._answers:
            self._refusal = Refusal[target.upper().replace(" ", "_")]
        self._listening = False
        self._credit = ManagerConfig().flow_buffer
        self._granting = False
        self._pending: list[Any] = []
        self._flows: dict[Any, _Flow] = {}
        self._backlog: deque[_Flow] = deque()
        self._datagrams: deque[bytes] = deque()
        self._bound = False
        if iss := script.directives.get("iss"):
            self._begin_at(int(iss))

    def key(self, protocol: int) -> bytes:
        """Give the flow key of the peer's packets."""
        source, target = _ADDRESSES[self._version]
        return make_key(protocol, source, _PORTS[0], target, _PORTS[1])

    def _begin_at(self, iss: int) -> None:
        """Begin when the clock of RFC 6528 gives this initial sequence number."""
        other = Stack(mtu=1500, vnet=0, config=TcpConfig(), secret=bytes(16))
        syn = Wire(self.key(6)).pack(Tcp(flags="S", seq=0, length=0))
        other.receive(syn, len(syn), [len(syn)], self._now)
        ((_, connection),) = other.take_events()
        other.opened(connection, 65_535)
        ((syn_ack, *_),) = other.output(self._now)
        at = 24 if self._version == 4 else 44
        given = int.from_bytes(syn_ack[at : at + 4], "big")
        self._now += ((iss - given) & 0xFFFFFFFF) * _ISS_TICK

    # The world

    def now(self) -> float:
        return self._now

    def take(self, until: float) -> tuple[float, bytes] | None:
        stack = self._stack
        while not self._out:
            at = stack.deadline()
            if at is None or at > until:
                self._now = max(self._now, until)
                return None
            self._now = max(self._now, at)
            stack.expire(self._now)
            self._end_turn()
        return self._out.popleft()

    def send(self, packet: bytes) -> None:
        self._stack.receive(packet, len(packet), [len(packet)], self._now)
        self._end_turn()

    def call(self, call: Call) -> int | str:
        result: int | str = getattr(self, f"_call_{call.name}")(*call.arguments)
        self._end_turn()
        return result

    # One turn

    def _end_turn(self) -> None:
        for event in self._stack.take_events():
            self._handle(event)
        for packet in self._stack.output(self._now):
            self._out.append((self._now, b"".join(packet)))

    def _handle(self, event: Any) -> None:
        what, subject = event[0], event[1]
        if what is What.OPEN:
            self._pending.append(subject)
            if self._answers:
                self._answer()
        elif what is What.DATAGRAM:
            self._take_datagram(event[2], *event[3:])
        elif what is What.ECHO:
            raise AssertionError("scripts have no echo")
        elif subject in self._flows:
            self._handle_flow(what, self._flows[subject], event)

    def _handle_flow(self, what: What, flow: _Flow, event: Any) -> None:
        if what is What.DATA:
            came = bytes(event[2][event[3] : event[4]])
            assert came == text(flow.arrived, len(came)), "text is not what was sent"
            flow.arrived += len(came)
            flow.unread += came
            if flow.closed:
                self._stack.reset(flow.connection, self._now)
        elif what is What.FIN:
            flow.finished = True
        elif what is What.RESET:
            flow.error = "ECONNRESET"

    def _answer(self) -> None:
        """Say what becomes of the SYNs that have come."""
        for connection in self._pending:
            if self._listening:
                self._stack.opened(connection, self._credit)
                flow = self._flows[connection] = _Flow(connection)
                self._backlog.append(flow)
            else:
                self._stack.refuse(connection, self._refusal)
        self._pending.clear()

    def _take_datagram(self, memory: Any, start: int, end: int, ip: int) -> None:
        payload = bytes(memory[start:end])
        assert payload == text(0, len(payload)), "a datagram is not what was sent"
        if self._bound:
            self._datagrams.append(payload)
        else:
            self._stack.unreachable(bytes(memory[ip:end]), self._refusal)

    # System calls

    def _call_true(self) -> int:
        return 0

    def _call_socket(self, *_: str) -> int:
        return 3

    def _call_bind(self, *_: str) -> int:
        self._bound = True
        return 0

    def _call_listen(self, *_: str) -> int:
        self._listening = True
        self._answer()
        return 0

    def _call_setsockopt(self, fd: str, _level: str, name: str, *values: str) -> int:
        if name == "SO_RCVBUF":
            self._credit = int(values[0].strip("[]"))
            self._granting = True
        elif name == "SO_LINGER":
            self._sockets[fd].lingers = False
        return 0

    def _call_accept(self, *_: str) -> int | str:
        if not self._backlog:
            return "EAGAIN"
        number = 4 + len(self._sockets)
        self._sockets[str(number)] = self._backlog.popleft()
        return number

    def _call_write(self, fd: str, _buffer: str, octets: str) -> int | str:
        flow = self._sockets[fd]
        if flow.error:
            return str(flow.error)
        length = int(octets)
        piece = memoryview(text(flow.written, length))
        self._stack.send(flow.connection, piece)
        flow.written += length
        return length

    def _call_read(self, fd: str, _buffer: str, octets: str) -> int | str:
        flow = self._sockets[fd]
        length = min(int(octets), len(flow.unread))
        if length:
            del flow.unread[:length]
            if self._granting:
                self._stack.grant(flow.connection, length)
            return length
        if flow.error:
            return str(flow.error)
        return 0 if flow.finished else "EAGAIN"

    def _call_shutdown(self, fd: str, _how: str) -> int:
        self._stack.finish(self._sockets[fd].connection)
        return 0

    def _call_close(self, fd: str) -> int:
        if fd not in self._sockets:
            self._listening = False
            self._answer()
            return 0
        flow = self._sockets[fd]
        flow.closed = True
        if flow.unread or not flow.lingers:
            self._stack.reset(flow.connection, self._now)
        else:
            self._stack.finish(flow.connection)
        return 0

    def _call_sendto(self, _fd: str, _buffer: str, octets: str, *_: str) -> int:
        payload = text(0, int(octets))
        self._stack.datagram(self.key(17), payload)
        return len(payload)

    def _call_recvfrom(self, _fd: str, _buffer: str, octets: str, *_: str) -> int | str:
        if not self._datagrams:
            return "EAGAIN"
        return len(self._datagrams.popleft()[: int(octets)])
