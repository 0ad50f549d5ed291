"""The stack: packets of the host in, events and packets for the host out.

It takes any destination (the device's routes decide what comes here) and any source (a
container's packets that the host forwards are as good as its own). Connections have
state; UDP and echo have none here, as whoever serves them knows when to forget.

One turn is: :meth:`Stack.receive` a batch, handle :meth:`Stack.take_events`, say what
the cluster said, and write what :meth:`Stack.output` gives. All times are monotonic
seconds.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, cast

from tunstack import _fastpath
from tunstack.config import TcpConfig
from tunstack.stack import seq
from tunstack.stack.events import Event, What
from tunstack.stack.reassembly import Reassembly
from tunstack.stack.tcp import ACK, FIN, RST, SYN, Connection, State
from tunstack.stack.timers import Timers
from tunstack.wire import icmp, ip, tcp
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal
from tunstack.wire.record import Record, Verdict

TCP, UDP = 6, 17

_IP_HEADER = {4: 20, 6: 40}
_TCP_HEADER = 20
_UDP_HEADER = 8

Packet = list[Any]
"""Pieces of memory, for one ``writev``: headers, a virtio header first if there is one,
and text."""


class Stack:
    """What the host talks TCP/IP to.

    Args:
        mtu: of the device, in octets.
        vnet: octets of virtio header before each packet: 10 or 0.
        config: settings of connections.
        secret: 16 octets or more, random: makes sequence numbers unpredictable.
        local: addresses of the device, 16 octets each: what goes there meets no other
            link.
    """

    def __init__(
        self,
        *,
        mtu: int,
        vnet: int,
        config: TcpConfig,
        secret: bytes,
        local: frozenset[bytes] = frozenset(),
    ) -> None:
        self.connections: dict[bytes, Connection] = {}
        self.drops: Counter[str] = Counter()
        """Packets that were refused, by reason."""
        self._mtu = mtu
        self._vnet = vnet
        self._config = config
        self._secret = secret
        self._local = local
        self._events: list[Event] = []
        self._packets: list[Packet] = []
        self._due: dict[Connection, None] = {}
        self._timers = Timers()
        self._reassembly = Reassembly()
        self._pending = 0
        self._ident = 0
        self._vnet_header = bytes(vnet)

    # From the host

    def receive(
        self,
        arena: bytearray | bytes,
        stride: int,
        lengths: Sequence[int],
        now: float,
    ) -> None:
        """Take a batch of packets, one in each slot of ``arena``.

        Args:
            arena: memory of all slots; must stay as it is until the events are handled.
            stride: octets from one slot to the next.
            lengths: octets used in each slot.
            now: the time.
        """
        connections, due = self.connections, self._due
        for record in _fastpath.parse_batch(arena, stride, lengths, self._vnet):
            key = record[11]
            if record[8] == 0 and key[0] == TCP:
                connection = connections.get(key)
                if connection is not None and not record[9] & SYN:
                    connection.receive(record, arena, now)
                    due[connection] = None
                    continue
            self._receive_other(record, arena, now)

    def _receive_other(self, record: Record, arena: bytearray | bytes, now: float) -> None:
        verdict, key = record[8], record[11]
        if verdict == Verdict.FRAGMENT:
            self._receive_fragment(record, arena, now)
        elif verdict != Verdict.DELIVER:
            self.drops[Verdict(verdict).reason] += 1
            if verdict == Verdict.UNKNOWN_PROTOCOL:
                packet = bytes(memoryview(arena)[record[2] : record[5]])
                self._send_icmp(icmp.unreachable(Refusal.PROTOCOL_UNREACHABLE, packet))
        elif key[0] == TCP:
            self._receive_segment(record, arena, now)
        elif key[0] == UDP:
            self._receive_datagram(record, arena)
        elif record[9] == icmp.ECHO_REQUEST[key[0]]:
            event = (What.ECHO, key, record[0], arena, record[4], record[5])
            self._events.append(event)
        else:
            self.drops["icmp-not-echo"] += 1

    def _receive_fragment(
        self, record: Record, arena: bytearray | bytes, now: float
    ) -> None:
        start, payload, end = record[2], record[4], record[5]
        try:
            packet = self._reassembly.add(
                memoryview(arena)[start:end], payload - start, now
            )
        except ValueError:
            self.drops[Verdict.BAD_FRAGMENT.reason] += 1
            return
        if packet is None:
            return
        for whole in _fastpath.parse_batch(packet, len(packet), [len(packet)], 0):
            self._receive_other(whole, packet, now)

    def _receive_datagram(self, record: Record, arena: bytearray | bytes) -> None:
        """One datagram, or several that the kernel left in one piece (USO)."""
        start, end, gso, key = record[4], record[5], record[7], record[11]
        events = self._events
        if not gso or end - start <= gso:
            events.append((What.DATAGRAM, key, arena, start, end))
            return
        for at in range(start, end, gso):
            events.append((What.DATAGRAM, key, arena, at, min(at + gso, end)))

    def _receive_segment(
        self, record: Record, arena: bytearray | bytes, now: float
    ) -> None:
        """A SYN, or a segment that belongs to no connection (RFC 9293, 3.10.7.1)."""
        seg_seq, seg_ack, flags, key = record[0], record[1], record[9], record[11]
        options, start, end = record[3], record[4], record[5]
        connection = self.connections.get(key)
        if (
            connection is not None
            and flags & (SYN | ACK | RST) == SYN
            and self._is_newer_life(connection, seg_seq)
        ):
            self._remove(connection)
            connection = None
        if connection is not None:
            connection.receive(record, arena, now)
            self._due[connection] = None
        elif flags & RST:
            return
        elif flags & (SYN | ACK) == SYN:
            parsed = tcp.parse_options(memoryview(arena)[options:start])
            self._open(key, seg_seq, parsed, record[6], now)
        elif flags & ACK:
            self._send_reset(key, seg_ack, 0, RST)
        else:
            length = end - start + (flags & FIN) + (flags & SYN) // SYN
            self._send_reset(key, 0, seq.add(seg_seq, length), RST | ACK)

    def _is_newer_life(self, connection: Connection, seg_seq: int) -> bool:
        """The host uses the ports again: what is here is over.

        In TIME-WAIT by a SYN beyond RCV.NXT (RFC 6191, section 2); in PENDING by any
        other SYN, as the host gave up the first without a word.
        """
        if connection.state is State.TIME_WAIT:
            return seq.lt(connection.rcv.nxt, seg_seq)
        if connection.state is State.PENDING and seg_seq != connection.rcv.irs:
            self._events.append((What.RESET, connection))
            return True
        return False

    def _open(
        self, key: bytes, irs: int, options: tcp.Options, window: int, now: float
    ) -> None:
        config = self._config
        if len(self.connections) >= config.max_connections:
            self.drops["too-many-connections"] += 1
            return
        if self._pending >= config.max_pending:
            self.drops["too-many-pending"] += 1
            return
        connection = Connection(
            key,
            irs=irs,
            options=options,
            window=window,
            iss=self._initial_sequence(key, now),
            mss=self._mtu - _IP_HEADER[flow_key.version(key)] - _TCP_HEADER,
            vnet=self._vnet,
            receive_buffer=config.receive_buffer,
            time_wait=config.time_wait,
            events=self._events,
        )
        self.connections[key] = connection
        self._pending += 1
        self._events.append((What.OPEN, connection))

    def _initial_sequence(self, key: bytes, now: float) -> int:
        """RFC 6528, section 3: M + F(ports, addresses, secret); M ticks every 4 us."""
        digest = blake2b(key, digest_size=4, key=self._secret).digest()
        return seq.add(int(now * 250_000), int.from_bytes(digest, "big"))

    def take_events(self) -> list[Event]:
        """Give what has happened since the last call, in order."""
        events = self._events
        taken = events[:]
        events.clear()
        return taken

    # From the cluster

    def opened(self, connection: Connection, credit: int) -> None:
        """The target took the connection, and the manager ``credit`` octets."""
        if connection.state is State.PENDING:
            self._pending -= 1
            connection.opened(credit)
            self._due[connection] = None

    def refuse(self, connection: Connection, refusal: Refusal) -> None:
        """The target did not take it: the host sees what the manager's kernel saw."""
        if connection.state is not State.PENDING:
            return
        self._remove(connection)
        key, irs = connection.key, connection.rcv.irs
        if refusal in (Refusal.REFUSED, Refusal.RESET, Refusal.LOST):
            self._send_reset(key, 0, seq.add(irs, 1), RST | ACK)
        elif refusal is not Refusal.TIMED_OUT:
            # Silence after a time-out: the host's own patience decides.
            syn = _fastpath.frame_tcp(
                flow_key.reverse(key), irs, 0, SYN, 0, b"", 0, 0, 0, 0, 0
            )
            self._send_icmp(icmp.unreachable(_reportable(refusal), syn))

    def send(self, connection: Connection, view: memoryview) -> None:
        """Text for the host; its memory must stay as it is until it is ACKED."""
        connection.send(view)
        self._due[connection] = None

    def grant(self, connection: Connection, octets: int) -> None:
        """The manager takes so many octets more."""
        connection.grant(octets)
        self._due[connection] = None

    def finish(self, connection: Connection) -> None:
        """The cluster sends no more."""
        connection.finish()
        self._due[connection] = None

    def reset(self, connection: Connection, now: float) -> None:
        """The connection is over: RST to the host; to a SYN, refusal."""
        if connection.state is State.PENDING:
            self.refuse(connection, Refusal.RESET)
        elif connection.state is not State.CLOSED:
            connection.abort(self._packets, now)
            self._remove(connection)

    def datagram(self, key: bytes, payload: bytes | memoryview) -> None:
        """A datagram that answers those of ``key``."""
        length = len(payload)
        size = length + _IP_HEADER[flow_key.version(key)] + _UDP_HEADER
        ident, most = self._next_ident(), self._uncut(key)
        if size <= most:
            total = 0 if self._vnet else _fastpath.sum16(payload, 0)
            header = _fastpath.frame_udp(key, length, total, ident, self._vnet)
            self._packets.append([header, payload])
            return
        total = _fastpath.sum16(payload, 0)
        header = _fastpath.frame_udp(key, length, total, ident, 0)
        self._send_fragments(header + bytes(payload), most, ident)

    def echo_reply(self, key: bytes, sequence: int, data: bytes | memoryview) -> None:
        """The target answered the echo request ``sequence`` of ``key``."""
        ident, most = self._next_ident(), self._uncut(key)
        packet = icmp.echo_reply(key, sequence, bytes(data), ident)
        if len(packet) <= most:
            self._packets.append([self._vnet_header, packet])
        else:
            self._send_fragments(packet, most, ident)

    def unreachable(self, key: bytes, refusal: Refusal) -> None:
        """A datagram or an echo request of ``key`` did not reach its target."""
        if key[0] == UDP:
            offender = _fastpath.frame_udp(flow_key.reverse(key), 0, 0, 0, 0)
        else:
            offender = icmp.echo_request(key, 0, b"")
        self._send_icmp(icmp.unreachable(_reportable(refusal), offender))

    # To the host

    def output(self, now: float) -> list[Packet]:
        """Give the packets that are due; their memory stays as it is until written."""
        due, self._due = self._due, {}
        packets, self._packets = self._packets, []
        for connection in due:
            connection.output(packets, now)
            if connection.state is State.CLOSED:
                self._remove(connection)
            elif connection.deadline is not None:
                self._timers.arm(connection)
        return packets

    def deadline(self) -> float | None:
        """Give the time by which :meth:`expire` wants to be called."""
        return self._timers.deadline()

    def expire(self, now: float) -> None:
        """Let the timers that are due go off; events and output follow."""
        for timed in self._timers.due(now):
            connection = cast(Connection, timed)
            connection.expire(now)
            self._due[connection] = None

    def _remove(self, connection: Connection) -> None:
        if self.connections.get(connection.key) is connection:
            del self.connections[connection.key]
        if connection.state is State.PENDING:
            self._pending -= 1
        connection.discard()

    def _send_reset(self, key: bytes, at: int, ack: int, flags: int) -> None:
        header = _fastpath.frame_tcp(key, at, ack, flags, 0, b"", 0, 0, 0, 0, self._vnet)
        self._packets.append([header])

    def _send_icmp(self, packet: bytes | None) -> None:
        if packet is not None:
            self._packets.append([self._vnet_header, packet])

    def _next_ident(self) -> int:
        self._ident = self._ident % 0xFFFF + 1
        return self._ident

    def _uncut(self, key: bytes) -> int:
        """Give the octets that a packet to the flow's source may have.

        Routers cut IPv4 packets where a link is narrower, and no IPv6 packets: what
        this host forwards goes out as every IPv6 link takes it (RFC 8200, section 5).
        """
        if flow_key.version(key) == 4 or key[1:17] in self._local:
            return self._mtu
        return min(self._mtu, ip.MINIMUM_MTU_6)

    def _send_fragments(self, packet: bytes, most: int, ident: int) -> None:
        for fragment in ip.fragment(packet, most, ident):
            self._packets.append([self._vnet_header, fragment])


def _reportable(refusal: Refusal) -> Refusal:
    """What ICMP can say; limits and the like are our prohibition."""
    if refusal in (
        Refusal.REFUSED,
        Refusal.NETWORK_UNREACHABLE,
        Refusal.HOST_UNREACHABLE,
        Refusal.PROTOCOL_UNREACHABLE,
    ):
        return refusal
    return Refusal.PROHIBITED
