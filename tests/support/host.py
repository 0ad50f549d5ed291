"""A host made by hand: its segments go into a stack, the stack's answers are read."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from tunstack import _fastpath
from tunstack._fastpath import reference
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.wire import key as flow_key
from tunstack.wire import tcp

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

MTU = 1500


def octets(address: str) -> bytes:
    """Give 16 octets of an address."""
    packed = ip_address(address).packed
    return packed if len(packed) == 16 else flow_key.MAPPED + packed


def make_key(protocol: int, source: str, sport: int, target: str, dport: int) -> bytes:
    """Build a flow key."""
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    return bytes([protocol]) + octets(source) + octets(target) + ports


def make_segment(
    key: bytes,
    seq: int,
    ack: int,
    flags: int,
    text: bytes = b"",
    *,
    window: int = 65_535,
    options: bytes = b"",
    vnet: int = 0,
    gso: int = 0,
) -> bytes:
    """Build a packet of the flow ``key``; numbers are taken modulo 2**32."""
    header = _fastpath.frame_tcp(
        flow_key.reverse(key),
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF if flags & ACK else 0,
        flags,
        window,
        options,
        len(text),
        0 if vnet else _fastpath.sum16(text, 0),
        0,
        gso,
        vnet,
    )
    return header + text


@dataclass
class Segment:
    """A segment that the stack sent."""

    seq: int
    ack: int
    flags: int
    window: int
    options: tcp.Options
    text: bytes


class Host:
    """A host with one TCP connection, on a stack in virtual time."""

    def __init__(
        self,
        *,
        family: int = 4,
        config: TcpConfig | None = None,
        iss: int = 1000,
        vnet: int = 0,
        mtu: int = MTU,
        local: frozenset[bytes] | None = None,
    ) -> None:
        self.now = 100.0
        self.vnet = vnet
        addresses = {4: ("198.18.0.1", "10.96.0.1"), 6: ("fd00::1", "fd96::1")}
        source, target = addresses[family]
        if local is None:
            local = frozenset({octets(source)})
        self.stack = Stack(
            mtu=mtu, vnet=vnet, config=config or TcpConfig(), secret=bytes(16), local=local
        )
        self.key = make_key(6, source, 40_000, target, 80)
        self.iss = iss
        self.irs = 0
        self.events: list[tuple] = []

    def feed(self, packets: Iterable[bytes]) -> None:
        """Give the stack whole packets as one batch."""
        packets = [bytes(self.vnet) + packet for packet in packets]
        stride = max(map(len, packets))
        arena = bytearray(stride * len(packets))
        for index, packet in enumerate(packets):
            arena[index * stride : index * stride + len(packet)] = packet
        self.stack.receive(arena, stride, [len(p) for p in packets], self.now)
        self._take_events()

    def _take_events(self) -> None:
        for event in self.stack.take_events():
            if event[0] in (What.DATA, What.DATAGRAM):
                text = bytes(memoryview(event[2])[event[3] : event[4]])
                event = (event[0], event[1], text)
            self.events.append(event)

    def make(
        self,
        seq: int,
        ack: int,
        flags: int,
        text: bytes = b"",
        window: int = 65_535,
        options: bytes = b"",
    ) -> bytes:
        """Build one packet; numbers are relative to the initial ones."""
        at, acknowledged = self.iss + seq, self.irs + ack
        return make_segment(
            self.key, at, acknowledged, flags, text, window=window, options=options
        )

    def send(self, *args, **kwargs) -> None:
        """Send one segment; see :meth:`make`."""
        self.feed([self.make(*args, **kwargs)])

    def packets(self) -> list[bytes]:
        """Give what the stack wants written, virtio headers included."""
        return [b"".join(packet) for packet in self.stack.output(self.now)]

    def parse(self, packet: bytes):
        """Read a packet that the stack made, which must be without fault."""
        (record,) = reference.parse_batch(packet, len(packet), [len(packet)], self.vnet)
        assert record[8] == 0, f"the stack made a packet that is {record[8]!r}"
        return record

    def segments(self) -> list[Segment]:
        """Give the segments that the stack sends; numbers relative."""
        segments = []
        for packet in self.packets():
            record = self.parse(packet)
            assert record[11] == flow_key.reverse(self.key)
            options = tcp.parse_options(packet[record[3] : record[4]])
            segments.append(
                Segment(
                    (record[0] - self.irs) & 0xFFFFFFFF,
                    (record[1] - self.iss) & 0xFFFFFFFF,
                    record[9],
                    record[6],
                    options,
                    packet[record[4] : record[5]],
                )
            )
        return segments

    def segment(self) -> Segment:
        """Give the one segment that the stack sends."""
        (segment,) = self.segments()
        return segment

    @property
    def connection(self):
        """The connection in the stack."""
        return self.stack.connections[self.key]

    def open(self, *, credit: int = 1 << 20, options: bytes | None = None) -> None:
        """Open the connection all the way."""
        if options is None:
            options = tcp.syn_options(1460, 7, True)
        self.send(0, 0, SYN, options=options)
        self.stack.opened(self.connection, credit)
        self.accept_syn_ack()
        self.send(1, 1, ACK)
        self.events.clear()

    def use_port(self, port: int) -> None:
        """Go on with the connection to another port of the target."""
        self.key = self.key[:35] + port.to_bytes(2, "big")

    def close_after_the_cluster(self) -> None:
        """Let the cluster finish, and then the host: what is left is TIME-WAIT."""
        self.stack.finish(self.connection)
        self.packets()
        self.send(1, 2, FIN | ACK)
        self.packets()

    def sack(self, *blocks: tuple[int, int]) -> bytes:
        """Build the option that says so; numbers are relative to the stack's."""
        return tcp.sack_option(
            tuple(
                ((self.irs + left) & 0xFFFFFFFF, (self.irs + right) & 0xFFFFFFFF)
                for left, right in blocks
            )
        )

    def accept_syn_ack(self) -> None:
        """Learn the stack's initial sequence number from the SYN-ACK that is due."""
        (packet,) = self.packets()
        self.irs = self.parse(packet)[0]

    def received(self) -> bytes:
        """Give and forget the text that the stack handed on."""
        text = b"".join(event[2] for event in self.events if event[0] is What.DATA)
        self.events = [event for event in self.events if event[0] is not What.DATA]
        return text

    def kinds(self) -> list[What]:
        """Give and forget the kinds of events."""
        kinds = [event[0] for event in self.events]
        self.events.clear()
        return kinds

    def write(self, text: bytes) -> None:
        """Let the cluster send text."""
        self.stack.send(self.connection, memoryview(text))

    def wait(self, seconds: float) -> None:
        """Let time pass; timers go off."""
        end = self.now + seconds
        while (at := self.stack.deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.stack.expire(self.now)
            if self.stack.deadline() == at:
                break
        self.now = end
        self._take_events()
