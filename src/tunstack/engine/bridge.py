"""The stack on one side, the mux on the other, a device below: the data path.

A turn begins with packets from the device, a message from the manager, or a timer. It
reads everything, lets the machines act, and ends with one write of whatever came due:
packets to the device, frames to the transport, one timer armed.
"""

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from tunstack.config import Config
from tunstack.engine.links import Links
from tunstack.engine.local import Local
from tunstack.host.device import STRIDE, Device
from tunstack.mux.flow import Flow
from tunstack.stack.events import Event, What
from tunstack.stack.stack import TCP, UDP, Stack
from tunstack.stack.tcp import Connection
from tunstack.wire import key as flow_key
from tunstack.wire.frame import SEQUENCE, Kind
from tunstack.wire.icmp import MAX_QUOTE

Address = IPv4Address | IPv6Address

# To name a member of an enumeration through its class is a call in Python 3.11.
_DATA, _CREDIT, _DATAGRAM, _ECHO = Kind.DATA, Kind.CREDIT, Kind.DATAGRAM, Kind.ECHO
_TEXT, _ACKED = What.DATA, What.ACKED
_PACKET, _REQUEST = What.DATAGRAM, What.ECHO


class Association:
    """A UDP or echo flow, as the host knows it."""

    __slots__ = ("key", "offender")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.offender = b""
        """The beginning of its last packet, to be quoted in an ICMP error."""


class Bridge:
    """Carries what comes out of a device through sessions.

    Args:
        links: sessions with managers.
        device: what the host's packets come out of; belongs to the bridge from here on.
        config: settings of TCP and UDP.
        secret: 16 random octets, for sequence numbers.
        local: addresses of the device.
        own: further addresses in it that are served here; see :class:`.local.Local`.
        on_lost: called once when the device is gone.
    """

    def __init__(
        self,
        links: Links,
        device: Device,
        config: Config,
        *,
        secret: bytes,
        on_lost: Callable[[], None],
        local: Iterable[Address] = (),
        own: Iterable[Address] = (),
    ) -> None:
        self._links = links
        self._device = device
        self._config = config
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._stack = Stack(
            mtu=device.mtu,
            vnet=device.vnet,
            config=config.tcp,
            secret=secret,
            local=frozenset(map(flow_key.address, local)),
        )
        self.local = Local(
            self._stack, frozenset(map(flow_key.address, own)), self.turn_ended
        )
        self._associations: OrderedDict[bytes, Flow] = OrderedDict()
        """UDP and echo, the one idle longest first."""
        self._drops: Counter[str] = Counter()
        self._outbound = [0, 0]
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf
        links.listeners.append(self)
        self._fd = device.fileno()
        self._closed = False
        self._loop.add_reader(self._fd, self._readable)

    # What status shows

    def flows(self) -> dict[str, int]:
        """Count flows: ``tcp``, ``udp``, ``icmp``."""
        udp = sum(key[0] == UDP for key in self._associations)
        return {
            "tcp": len(self._stack.connections),
            "udp": udp,
            "icmp": len(self._associations) - udp,
        }

    def traffic(self) -> dict[str, int]:
        """Count packets and their octets since the bridge began."""
        return {
            "outbound_octets": self._outbound[0],
            "inbound_octets": self._device.written_octets,
            "outbound_packets": self._outbound[1],
            "inbound_packets": self._device.written_packets,
        }

    def drops(self) -> dict[str, int]:
        """Count what was refused, by reason."""
        drops = {"bad-checksum": 0, **self._stack.drops, **self._drops}
        drops["datagram-queue-full"] = self._links.dropped_datagrams
        drops["device-write"] = self._device.write_drops
        return drops

    def close(self) -> None:
        """Let the device go: with the last descriptor it and its routes are gone."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        self._links.listeners.remove(self)
        self.local.close()
        self._device.close()

    # From the host

    def _readable(self) -> None:
        device = self._device
        arena, lengths = device.read_batch()
        if not lengths:
            if device.closed:
                self.close()
                self._on_lost()
            return
        now = self._loop.time()
        self._outbound[0] += sum(lengths) - device.vnet * len(lengths)
        self._outbound[1] += len(lengths)
        self._stack.receive(arena, STRIDE, lengths, now)
        self._end_turn(now)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._loop.time()
        self._stack.expire(now)
        self._end_turn(now)

    def _end_turn(self, now: float) -> None:
        events = self._stack.take_events()
        if events:
            self._handle(events)
            # Somebody waits for what was said; for an ACK, nobody.
            self._links.wake()
        packets = self._stack.output(now)
        if packets:
            self._device.write_batch(packets)
        deadline = self._stack.deadline()
        if deadline is not None and deadline < self._timer_at:
            self._arm(deadline)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)
        self._timer_at = deadline

    def _handle(self, events: list[Event]) -> None:
        """Tell the mux what the host did.

        What the packets of one turn carry lies in one arena, so it becomes one batch of
        frames; all else has to keep its place behind it.
        """
        source: Any = None
        link: Any = None
        spans: list[int] = []
        quotes: dict[Association, tuple[Any, int, int]] = {}
        for event in events:
            what, subject = event[0], event[1]
            if what is _ACKED:
                flow = subject.context
                flow.link.mux.consumed(flow, event[2])
                continue
            if what is _TEXT:
                kind, flow = _DATA, subject.context
                memory, start, end = event[2:]
            elif what is _PACKET or what is _REQUEST:
                memory, start, end, at = event[-4:]
                kind = _DATAGRAM
                if what is _REQUEST:
                    kind = _ECHO
                    start -= SEQUENCE.size  # which lies right in front of the data
                quote = memory, at, min(end, at + MAX_QUOTE)
                flow = self._associate(subject, memory, start, end, quote)
                if flow is None:
                    continue
                quotes[flow.context] = quote
            else:
                if spans:
                    link.mux.send(source, spans)
                    source, spans = None, []
                self._change(what, subject)
                continue
            if memory is not source or flow.link is not link:
                if spans:
                    link.mux.send(source, spans)
                source, link, spans = memory, flow.link, []
            spans += (kind, flow.id, start, end)
        if spans:
            link.mux.send(source, spans)
        for association, quote in quotes.items():
            association.offender = _copy(*quote)

    def _change(self, what: What, connection: Connection) -> None:
        """Tell the mux that a connection opens, or ends."""
        if what is What.OPEN:
            self._open(connection)
            return
        flow = connection.context
        if what is What.FIN:
            flow.link.mux.finish(flow)
        else:
            flow.link.mux.reset(flow)

    def _open(self, connection: Connection) -> None:
        key = connection.key
        target = flow_key.destination(key)
        if self.local.takes(target):
            self.local.open(connection)
            return
        flow = self._links.open(
            TCP,
            target,
            flow_key.ports(key)[1],
            self._config.tcp.send_buffer,
        )
        flow.owner = self
        flow.context = connection
        connection.context = flow
        if self._config.tcp.accept == "eager":
            self._stack.opened(connection, 0)

    def _associate(
        self, key: bytes, memory: Any, start: int, end: int, quote: tuple[Any, int, int]
    ) -> Flow | None:
        """Give the flow of a datagram or an echo request; ``None`` if it goes nowhere.

        Args:
            key: its flow key.
            memory, start, end: what it carries.
            quote: where the beginning of its packet lies, to be quoted.
        """
        flow = self._associations.get(key)
        if flow is not None:
            self._associations.move_to_end(key)
            return flow
        if self.local.takes(flow_key.destination(key)):
            self._serve(key, memoryview(memory)[start:end], _copy(*quote))
            return None
        if self._links.state != "connected":
            self._drops["not-connected"] += 1
            return None
        return self._new_association(key)

    def _serve(self, key: bytes, payload: memoryview, offender: bytes) -> None:
        """Answer a datagram or an echo request to an address of our own."""
        if key[0] == UDP:
            self.local.datagram(key, bytes(payload), offender)
        elif flow_key.destination(key) in self.local.addresses:
            (sequence,) = SEQUENCE.unpack_from(payload)
            self._stack.echo_reply(key, sequence, payload[SEQUENCE.size :])

    def _new_association(self, key: bytes) -> Flow:
        if len(self._associations) >= self._config.udp.max_associations:
            _, oldest = self._associations.popitem(last=False)
            oldest.link.mux.reset(oldest)
            self._drops["too-many-associations"] += 1
        source, target = flow_key.ports(key)
        port = target if key[0] == UDP else source
        flow = self._links.open(key[0], flow_key.destination(key), port, 0)
        flow.owner = self
        flow.context = Association(key)
        self._associations[key] = flow
        return flow

    # From the cluster

    def flow_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        """Tell the host what the cluster did; written when the turn ends."""
        if flow.protocol == TCP:
            self._connection_event(kind, flow, value)
        else:
            self._association_event(kind, flow, value)

    def _connection_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        stack, connection = self._stack, flow.context
        if kind is _DATA:
            # A copy: a view would keep the whole message as long as the host does not
            # read, and the message may belong to many flows.
            stack.send(connection, memoryview(bytes(value)))
        elif kind is _CREDIT:
            stack.grant(connection, value)
        elif kind is Kind.OPENED:
            if self._config.tcp.accept == "eager":
                stack.grant(connection, flow.send_credit)
            else:
                stack.opened(connection, flow.send_credit)
        elif kind is Kind.FIN:
            stack.finish(connection)
        elif kind is Kind.REFUSED:
            stack.refuse(connection, value[0])
            stack.reset(connection, self._loop.time())  # it was accepted eagerly
        else:
            stack.reset(connection, self._loop.time())

    def _association_event(self, kind: Kind, flow: Flow, value: Any) -> None:
        stack, key = self._stack, flow.context.key
        if kind is _DATAGRAM and key[0] == UDP:
            stack.datagram(key, value)
        elif kind is _ECHO and key[0] != UDP:
            (sequence,) = SEQUENCE.unpack_from(value)
            stack.echo_reply(key, sequence, value[SEQUENCE.size :])
        elif kind is Kind.UNREACHABLE:
            stack.unreachable(flow.context.offender, value)
        elif kind is Kind.REFUSED:
            self._forget(key, flow)
            stack.unreachable(flow.context.offender, value[0])
        elif kind is Kind.RESET:
            self._forget(key, flow)

    def _forget(self, key: bytes, flow: Flow) -> None:
        if self._associations.get(key) is flow:
            del self._associations[key]

    def turn_ended(self) -> None:
        """Everything that came from the manager together has been dispatched."""
        self._end_turn(self._loop.time())

    def state_changed(self) -> None:
        """Nothing here depends on it."""

    def cluster_changed(self) -> None:
        """Routes are the engine's business."""


def _copy(memory: Any, start: int, end: int) -> bytes:
    return bytes(memoryview(memory)[start:end])
