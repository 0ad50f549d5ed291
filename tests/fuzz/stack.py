"""Anything that a host, a cluster and the clock may do to a stack.

The first octet decides whether packets have virtio headers (1), and whether in the end
there is silence for so long that even keep-alives give up (high half: 1). Then step
follows step: segments of two flows with numbers near those that count, whole packets,
what the cluster says, and time. Whatever happens no step raises, what the stack sends is
valid, and what must be true of it is (:mod:`tests.support.soundness`).
"""

import struct

from tests.fuzz.octets import Octets
from tests.support.host import ACK, FIN, MTU, RST, SYN, make_key, octets
from tests.support.soundness import Soundness
from tunstack._fastpath import reference
from tunstack.config import TcpConfig
from tunstack.stack import seq
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import Connection, State
from tunstack.wire import icmp, tcp
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal

KEYS = (
    make_key(6, "198.18.0.1", 40_000, "10.96.0.1", 80),
    make_key(6, "fd00::1", 40_000, "fd96::1", 80),
)
FLAGS = (SYN, ACK, ACK, ACK, ACK | FIN, RST, RST | ACK, SYN | ACK)
SECONDS = (0.001, 0.05, 0.25, 1.0, 5.0, 16.0, 65.0, 200.0)
MAX_PENDING = 8
CREDITS = (0, 1, 1000, 65_535, 1 << 20)
TURNS = 4000
"""More than timers need while nobody says anything."""

SILENCE = 12_000.0
"""Seconds after which keep-alives have found out that the host is gone."""


def check(data: bytes) -> None:
    """Run one script, and then let the time pass that the stack wants."""
    source = Octets(data)
    mode = source.octet()
    script = Script(source, vnet=10 * (mode & 1))
    while source:
        script.step()
    script.come_to_rest()
    if mode >> 4 == 1:
        script.pass_time(SILENCE)
        script.assert_gone()


class Script:
    """A stack, and whoever it has to do with.

    Args:
        source: decides what happens.
        vnet: octets of virtio header.
    """

    def __init__(self, source: Octets, *, vnet: int) -> None:
        self.now = 100.0
        self.stack = Stack(
            mtu=MTU,
            vnet=vnet,
            config=TcpConfig(
                receive_buffer=64 * 1024, max_connections=16, max_pending=MAX_PENDING
            ),
            secret=bytes(16),
            local=frozenset({octets("fd00::1")}),
        )
        self._source = source
        self._vnet = vnet
        self._soundness = Soundness(self.stack)
        self._slots: list[bytes] = []
        self._served: list[Connection] = []
        """Connections that the cluster may say something on."""
        self._asked: list[tuple[bytes, bytes]] = []
        """Keys of datagrams and echo requests, and what an error quotes of each."""
        self._unread: dict[Connection, int] = {}
        self._finished: set[Connection] = set()
        self._steps = (
            self._segment,
            self._segment,
            self._segment,
            self._packet,
            self._wait,
            self._answer,
            self._send,
            self._grant,
            self._finish,
            self._reset,
            self._reply,
        )

    def step(self) -> None:
        """Let one thing happen; a high bit keeps packets for a batch."""
        step = self._source.octet()
        self._steps[(step & 0x7F) % len(self._steps)]()
        if not step & 0x80:
            self._turn()

    def pass_time(self, seconds: float) -> None:
        """Let timers go off."""
        end = self.now + seconds
        for _ in range(TURNS):
            deadline = self.stack.deadline()
            if deadline is None or deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.stack.expire(self.now)
            self._turn()
        raise AssertionError("timers without end")

    def come_to_rest(self) -> None:
        """Let time pass until no connection waits for anything but the two ends."""
        self._turn()
        for _ in range(TURNS):
            connections = self.stack.connections.values()
            if all(connection.deadline is None for connection in connections):
                return
            deadline = self.stack.deadline()
            assert deadline is not None
            self.now = max(self.now, deadline)
            self.stack.expire(self.now)
            self._turn()
        raise AssertionError("timers without end")

    def assert_gone(self) -> None:
        """Nothing is left but what the cluster has not answered, and room for more."""
        waiting = list(self.stack.connections.values())
        assert all(connection.state is State.PENDING for connection in waiting)
        for connection in waiting:
            self.stack.reset(connection, self.now)
        for port in range(MAX_PENDING):
            key = make_key(6, "198.18.0.9", 1 + port, "10.96.0.1", 80)
            header = reference.frame_tcp(
                flow_key.reverse(key), 0, 0, SYN, 1000, b"", 0, 0, 0, 0, 0
            )
            self._slots.append(bytes(self._vnet) + header)
        self._turn()
        assert len(self.stack.connections) == MAX_PENDING

    def _turn(self) -> None:
        slots, self._slots = self._slots, []
        if slots:
            stride = max(map(len, slots))
            arena = bytearray().join(slot.ljust(stride, b"\xaa") for slot in slots)
            self.stack.receive(arena, stride, list(map(len, slots)), self.now)
        for event in self.stack.take_events():
            self._soundness.see(event)
            self._take(event)
        for pieces in self.stack.output(self.now):
            self._read(b"".join(pieces))
        self._soundness.check()

    def _take(self, event: tuple) -> None:
        kind, subject = event[:2]
        if kind in (What.DATAGRAM, What.ECHO):
            memory, start, end, packet = event[-4:]
            assert len(subject) == 37
            assert packet < start <= end
            quote = bytes(memoryview(memory)[packet:end])[: icmp.MAX_QUOTE]
            self._asked.append((subject, quote))
        elif kind is What.OPEN:
            self._served.append(subject)
        elif kind is What.DATA:
            self._unread[subject] = self._unread.get(subject, 0) + event[4] - event[3]
        elif kind is What.RESET:
            self._served.remove(subject)

    def _read(self, packet: bytes) -> None:
        """What the stack sends is valid, and fits the device."""
        (record,) = reference.parse_batch(packet, len(packet), [len(packet)], self._vnet)
        assert record[8] <= 1, f"the stack made a packet that is {record[8]!r}"
        assert len(packet) - self._vnet <= MTU or record[7]

    # From the host

    def _segment(self) -> None:
        source = self._source
        choice, places = source.octet(), source.octet()
        key = KEYS[choice & 1]
        connection = self.stack.connections.get(key)
        flags = FLAGS[choice >> 1 & 7] if choice & 0x10 else source.octet()
        at, ack = 1000, 0
        if connection is not None:
            rcv, snd = connection.rcv, connection.snd
            at = (rcv.nxt, rcv.edge, rcv.irs, snd.nxt)[places & 3]
            ack = (snd.nxt, snd.una, snd.iss, rcv.nxt)[places >> 2 & 3]
        if places & 0x10:
            at += self._distance()
        if places & 0x20:
            ack += self._distance()
        text = bytes(source.octet() % 100 * 17)
        options = self._options(connection)
        header = reference.frame_tcp(
            flow_key.reverse(key),
            at & seq.MASK,
            ack & seq.MASK,
            flags,
            source.number(2),
            options,
            len(text),
            0,
            0,
            0,
            0,
        )
        self._slots.append(bytes(self._vnet) + header + text)

    def _distance(self) -> int:
        """A short way, or half of the way round, where before and behind are the same."""
        distance = self._source.signed()
        return distance if abs(distance) < 125 else distance - 125 + (1 << 31)

    def _options(self, connection: Connection | None) -> bytes:
        source = self._source
        choice = source.octet()
        options = b""
        if choice & 1:
            options += tcp.syn_options(source.number(2), choice >> 4, bool(choice & 2))[:12]
        if choice & 4:
            stamp = int(self.now * 1000) + source.signed()
            options += struct.pack("!BBBBII", 1, 1, 8, 10, stamp & seq.MASK, 0)
        if choice & 8 and connection is not None:
            una = connection.snd.una
            left = una + source.number(2)
            right = left + source.signed() * 16
            options += tcp.sack_option(((left & seq.MASK, right & seq.MASK),))
        if choice & 0x80:
            options += source.text(source.octet() & 31)
        options = options[:40]
        return options + bytes(-len(options) % 4)

    def _packet(self) -> None:
        source = self._source
        slot = source.text(source.number(2) & 0x7FF)
        if slot:
            self._slots.append(slot)

    # From the cluster

    def _connection(self) -> Connection | None:
        if not self._served:
            return None
        return self._served[self._source.octet() % len(self._served)]

    def _answer(self) -> None:
        connection, choice = self._connection(), self._source.octet()
        if connection is None or connection.state is not State.PENDING:
            return
        if choice & 1:
            credit = CREDITS[choice >> 1 & 3]
            self._soundness.granted(connection, credit)
            self.stack.opened(connection, credit)
        else:
            refusal = list(Refusal)[(choice >> 1) % len(Refusal)]
            self._served.remove(connection)
            self.stack.refuse(connection, refusal)

    def _send(self) -> None:
        connection, size = self._connection(), self._source.number(2)
        if self._is_open(connection) and connection not in self._finished and size:
            self.stack.send(connection, memoryview(bytes(size)))

    def _grant(self) -> None:
        connection = self._connection()
        if self._is_open(connection):
            credit = self._unread.pop(connection, 0)
            self._soundness.granted(connection, credit)
            self.stack.grant(connection, credit)

    def _finish(self) -> None:
        connection = self._connection()
        if self._is_open(connection):
            self._finished.add(connection)
            self.stack.finish(connection)

    def _reset(self) -> None:
        connection = self._connection()
        if connection is not None:
            self._served.remove(connection)
            self.stack.reset(connection, self.now)

    @staticmethod
    def _is_open(connection: Connection | None) -> bool:
        return connection is not None and connection.state is not State.PENDING

    def _wait(self) -> None:
        self.pass_time(SECONDS[self._source.octet() & 7])

    def _reply(self) -> None:
        """Answer a datagram or an echo request, or say that nobody can."""
        source = self._source
        choice, size = source.octet(), source.number(2)
        if not self._asked:
            return
        key, quote = self._asked[choice % len(self._asked)]
        if choice & 0x80:
            self.stack.unreachable(quote, list(Refusal)[size % len(Refusal)])
        elif key[0] == 17:
            self.stack.datagram(key, bytes(min(size, 65_500)))
        else:
            self.stack.echo_reply(key, size, bytes(min(size, 65_400)))
