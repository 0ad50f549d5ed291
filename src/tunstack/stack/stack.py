"""The stack: packets of the host in, events and packets for the host out.

It takes any destination (the device's routes decide what comes here) and any source (a
container's packets that the host forwards are as good as its own). Connections have
state; UDP and echo have none here, as whoever serves them knows when to forget.

One turn is: :meth:`Stack.receive` a batch, handle :meth:`Stack.take_events`, say what
the cluster said, and write what :meth:`Stack.output` gives. All times are monotonic
seconds.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from tunstack import _fastpath
from tunstack.config import TcpConfig
from tunstack.stack import seq
from tunstack.stack.bucket import TokenBucket
from tunstack.stack.common import Common
from tunstack.stack.events import Event, What
from tunstack.stack.reassembly import Reassembly
from tunstack.stack.tcp import ACK, FIN, RST, SYN, Connection, State, reset_header
from tunstack.stack.timers import Alarm, Timers
from tunstack.wire import icmp, ip, tcp
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal
from tunstack.wire.record import TIMESTAMPS, Record, Verdict

TCP, UDP = 6, 17

_CLOSED = State.CLOSED

_IP_HEADER = {4: 20, 6: 40}
_TCP_HEADER = 20
_UDP_HEADER = 8

MAX_TIME_WAIT = 4096
"""Connections in TIME-WAIT at once; for one more the oldest goes."""

ICMP_BURST, ICMP_RATE = 50, 100.0
"""ICMP errors at once and a second. Linux sends 50 at once and 1000 a second to all."""

SWEEP = 15.0
"""Seconds between two looks at who has been silent for long."""

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
        self._common = Common(self._acknowledge, self._remove)
        self.drops = self._common.drops
        """Packets that were refused, by reason."""
        self._mtu = mtu
        self._vnet = vnet
        self._config = config
        self._secret = secret
        self._local = local
        self._events = self._common.events
        self._packets: list[Packet] = []
        self._due: dict[Connection, None] = {}
        self._timers = Timers()
        self._sweep = Alarm(self._check_alive)
        self._reassembly = Reassembly()
        self._fragments = Alarm(self._expire_fragments)
        self._errors: list[bytes] = []
        self._error_limit = TokenBucket(ICMP_BURST, ICMP_RATE)
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
            if verdict in _PROBLEMS:
                packet = bytes(memoryview(arena)[record[2] : record[5]])
                self._send_error(icmp.not_understood(packet))
        elif key[0] == TCP:
            self._receive_segment(record, arena, now)
        elif key[0] == UDP:
            self._receive_datagram(record, arena)
        elif record[9] == icmp.ECHO_REQUEST[key[0]]:
            where = (record[4], record[5], record[2])
            self._events.append((What.ECHO, key, record[0], arena, *where))
        elif (record[9], record[10]) in icmp.TOO_BIG[key[0]]:
            self._receive_too_big(record, arena)
        else:
            self.drops["icmp-not-echo"] += 1

    def _receive_too_big(self, record: Record, arena: bytearray | bytes) -> None:
        """A router on the way to the host's end could not pass on a segment."""
        message = bytes(memoryview(arena)[record[3] : record[5]])
        found = icmp.too_big(record[11][0], message)
        connection = None if found is None else self.connections.get(found.key)
        if found is None or connection is None:
            self.drops["icmp-not-ours"] += 1
            return
        room = found.mtu - _IP_HEADER[flow_key.version(found.key)] - _TCP_HEADER
        if connection.shrink(room, found.seq):
            self._due[connection] = None

    def _receive_fragment(
        self, record: Record, arena: bytearray | bytes, now: float
    ) -> None:
        start, payload, end = record[2], record[4], record[5]
        packet = None
        self._expire_fragments(now)
        try:
            packet = self._reassembly.add(
                memoryview(arena)[start:end], payload - start, now
            )
        except ValueError:
            self.drops[Verdict.BAD_FRAGMENT.reason] += 1
        self._watch_fragments()
        evicted = self._reassembly.take_evicted()
        if evicted:
            self.drops["too-many-fragments"] += evicted
        if packet is None:
            return
        for whole in _fastpath.parse_batch(packet, len(packet), [len(packet)], 0):
            if whole[8] == Verdict.FRAGMENT:
                # Fragments in fragments, which nobody sends, could nest without end.
                self.drops[Verdict.BAD_FRAGMENT.reason] += 1
            else:
                self._receive_other(whole, packet, now)

    def _expire_fragments(self, now: float) -> None:
        """Forget packets that did not become whole, and say so: RFC 1122, 3.3.2."""
        for first in self._reassembly.expire(now):
            self.drops["fragments-timed-out"] += 1
            if first is not None:
                self._send_error(icmp.time_exceeded(first))
        self._watch_fragments()

    def _watch_fragments(self) -> None:
        self._fragments.deadline = self._reassembly.deadline()
        if self._fragments.deadline is not None:
            self._timers.arm(self._fragments)

    def _receive_datagram(self, record: Record, arena: bytearray | bytes) -> None:
        """One datagram, or several that the kernel left in one piece (USO)."""
        ip, start, end = record[2], record[4], record[5]
        gso, key = record[7], record[11]
        events = self._events
        if not gso or end - start <= gso:
            events.append((What.DATAGRAM, key, arena, start, end, ip))
            return
        for at in range(start, end, gso):
            events.append((What.DATAGRAM, key, arena, at, min(at + gso, end), ip))

    def _receive_segment(
        self, record: Record, arena: bytearray | bytes, now: float
    ) -> None:
        """A SYN, or a segment that belongs to no connection (RFC 9293, 3.10.7.1)."""
        seg_seq, seg_ack, flags, key = record[0], record[1], record[9], record[11]
        start, end = record[4], record[5]
        connection = self.connections.get(key)
        if flags & (SYN | ACK | RST | FIN) == SYN:
            options = tcp.parse_options(memoryview(arena)[record[3] : start])
            if connection is None or self._is_newer_life(connection, seg_seq, options):
                self._open(record, options, arena, now)
                return
        if connection is not None:
            connection.receive(record, arena, now)
            self._due[connection] = None
        elif flags & RST:
            self.drops["reset-of-nothing"] += 1
        elif flags & (SYN | ACK | FIN) == SYN | FIN:
            # What opens and closes at once is no client's; Linux says nothing, too.
            self.drops["syn-with-fin"] += 1
        elif flags & ACK:
            self._send_reset(key, seg_ack, 0, RST)
        else:
            length = end - start + (flags & FIN)
            self._send_reset(key, 0, seq.add(seg_seq, length), RST | ACK)

    def _is_newer_life(
        self, connection: Connection, seg_seq: int, options: tcp.Options
    ) -> bool:
        """The host uses the ports again: what is here is over.

        In TIME-WAIT by a SYN beyond RCV.NXT, or with a later timestamp (RFC 6191,
        section 2); in PENDING by any other SYN, as the host gave up the first without a
        word.
        """
        rcv = connection.rcv
        if connection.state is State.CLOSED:
            return True
        if connection.state is State.TIME_WAIT:
            if options.timestamps is not None and connection.form == TIMESTAMPS:
                tsval = options.timestamps[0]
                if tsval != rcv.ts_recent:
                    return seq.lt(rcv.ts_recent, tsval)
            return seq.lt(rcv.nxt, seg_seq)
        if connection.state is State.PENDING and seg_seq != rcv.irs:
            self._events.append((What.RESET, connection))
            return True
        return False

    def _open(
        self, record: Record, options: tcp.Options, arena: bytearray | bytes, now: float
    ) -> None:
        config, common, key = self._config, self._common, record[11]
        iss, ts_offset = self._initial_numbers(key, now)
        former = self.connections.get(key)
        if former is not None:
            if not seq.lt(former.snd.nxt, iss):
                # Nothing of the former life may look like one of this.
                iss = seq.add(former.snd.nxt, 1 << 16)
            self._remove(former)
        if len(self.connections) >= config.max_connections and common.time_wait.members:
            self._remove(next(iter(common.time_wait.members)))
        if len(self.connections) >= config.max_connections:
            self.drops["too-many-connections"] += 1
            return
        if common.half_open >= config.max_pending:
            self.drops["too-many-pending"] += 1
            return
        connection = Connection(
            key,
            irs=record[0],
            options=options,
            window=record[6],
            iss=iss,
            ts_offset=ts_offset,
            mss=self._mtu - _IP_HEADER[flow_key.version(key)] - _TCP_HEADER,
            vnet=self._vnet,
            receive_buffer=config.receive_buffer,
            time_wait=config.time_wait,
            now=now,
            common=common,
        )
        quote = min(record[5], record[2] + icmp.MAX_QUOTE)
        packet = bytes(memoryview(arena)[record[2] : quote])
        connection.syn = packet, record[5] - record[4]
        self.connections[key] = connection
        common.half_open += 1
        self._events.append((What.OPEN, connection))
        if self._sweep.deadline is None:
            self._sweep_later(now)

    def _initial_numbers(self, key: bytes, now: float) -> tuple[int, int]:
        """Give the initial sequence number, and the offset of timestamps.

        RFC 6528, section 3: M + F(ports, addresses, secret); M ticks every 4 us.
        """
        digest = blake2b(key, digest_size=8, key=self._secret).digest()
        iss = seq.add(int(now * 250_000), int.from_bytes(digest[:4], "big"))
        return iss, int.from_bytes(digest[4:], "big")

    def take_events(self) -> list[Event]:
        """Give what has happened since the last call, in order."""
        events = self._events
        taken = events[:]
        events.clear()
        return taken

    # From the cluster

    def opened(self, connection: Connection, credit: int) -> None:
        """The target took the connection, and the manager ``credit`` octets."""
        connection.opened(credit)
        self._due[connection] = None

    def refuse(self, connection: Connection, refusal: Refusal) -> None:
        """The target did not take it: the host sees what the manager's kernel saw."""
        if connection.syn is None:
            return
        syn, text = connection.syn
        self._remove(connection)
        if refusal in (Refusal.REFUSED, Refusal.RESET, Refusal.LOST):
            ack = seq.add(connection.rcv.nxt, text)
            self._send_reset(connection.key, 0, ack, RST | ACK)
        elif refusal is not Refusal.TIMED_OUT:
            # Silence after a time-out: the host's own patience decides.
            self._send_error(icmp.unreachable(_reportable(refusal), syn))

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

    def unreachable(self, offender: bytes, refusal: Refusal) -> None:
        """A datagram or an echo request did not reach its target.

        Args:
            offender: its packet, or the first :data:`.icmp.MAX_QUOTE` octets of it.
            refusal: why.
        """
        self._send_error(icmp.unreachable(_reportable(refusal), offender))

    # To the host

    def output(self, now: float) -> list[Packet]:
        """Give the packets that are due; their memory stays as it is until written."""
        due, self._due = self._due, {}
        packets, self._packets = self._packets, []
        for error in self._errors:
            if self._error_limit.take(now):
                packets.append([self._vnet_header, error])
            else:
                self.drops["icmp-rate-limit"] += 1
        self._errors.clear()
        for connection in due:
            connection.output(packets, now)
            if connection.state is _CLOSED:
                self._remove(connection)
            elif connection.deadline is not None:
                self._timers.arm(connection)
        common = self._common
        while len(common.time_wait.members) > MAX_TIME_WAIT:
            self._remove(next(iter(common.time_wait.members)))
        for line in (common.delayed, common.time_wait):
            if line.armed_at is None and line.members:
                self._timers.arm(line)
        return packets

    def deadline(self) -> float | None:
        """Give the time by which :meth:`expire` wants to be called."""
        return self._timers.deadline()

    def expire(self, now: float) -> None:
        """Let the timers that are due go off; events and output follow."""
        for timed in self._timers.due(now):
            timed.expire(now)
            if isinstance(timed, Connection):
                self._due[timed] = None

    def _acknowledge(self, connection: Connection) -> None:
        """Have an ACK sent that has waited long enough, if it is still owed."""
        if connection.rcv.acked != connection.rcv.nxt:
            connection.ack_due = True
            self._due[connection] = None

    def _sweep_later(self, now: float) -> None:
        self._sweep.deadline = now + SWEEP
        self._timers.arm(self._sweep)

    def _check_alive(self, now: float) -> None:
        """Look at who has been silent for long."""
        self._sweep.deadline = None
        if self.connections:
            self._sweep_later(now)
        for connection in self.connections.values():
            connection.check_alive(now)
            if connection.keepalive_due or connection.state is State.CLOSED:
                self._due[connection] = None

    def _remove(self, connection: Connection) -> None:
        if self.connections.get(connection.key) is connection:
            del self.connections[connection.key]
        connection.discard()

    def _send_reset(self, key: bytes, at: int, ack: int, flags: int) -> None:
        self._packets.append([reset_header(key, at, ack, flags, self._vnet)])

    def _send_error(self, packet: bytes | None) -> None:
        """Send an ICMP error, if there is one to send and not too many have been."""
        if packet is not None:
            self._errors.append(packet)

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


_PROBLEMS = {
    Verdict.UNKNOWN_PROTOCOL,
    Verdict.BAD_EXTENSION_HEADER,
    Verdict.BAD_FRAGMENT,
}
"""What a sender is told that it got wrong."""


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
