"""The stack alone: a host's packets in, what the cluster says in, packets out.

The host is made of octets that were packed before: a header for each connection, in
which a step writes sequence numbers. Like a kernel's, its packets carry timestamps and
leave the checksum to the device.
"""

import struct
from functools import partial

from benchmarks.workloads.workload import Step, Workload
from tests.support.host import ACK, FIN, PSH, SYN, make_key, make_segment
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.wire import tcp

VNET, MTU, STRIDE = 10, 65_520, 65_664
SEQUENCE = struct.Struct("!II")
SEQUENCE_AT = VNET + 20 + 4
SYN_OPTIONS = tcp.syn_options(65_480, 7, True, (1, 0))
OPTIONS = bytes((1, 1, 8, 10)) + struct.pack("!II", 1, 1)
"""What Linux puts into each segment: timestamps."""
MSS = 1448
"""Octets of text in a segment of a link with an MTU of 1500, behind timestamps."""
LARGE = 45 * MSS
"""Octets of text in the largest GSO packet of such a link."""
TURN = 1e-4
"""Seconds between two steps of virtual time."""


class Connection:
    """The host's end: what it sends next, and headers to put it into.

    Args:
        number: of the connection; each has its own.
        size: octets of text in a segment of it.
    """

    def __init__(self, number: int, size: int) -> None:
        source = f"198.18.{number >> 8}.{number & 255}"
        self.key = make_key(6, source, 40_000, "10.96.0.1", 80)
        self.segment = self.header(ACK | PSH, size=size)
        self.ack = self.header(ACK)
        self.nxt = self.una = 0

    def header(self, flags: int, options: bytes = OPTIONS, size: int = 0) -> bytes:
        packet = make_segment(
            self.key,
            0,
            0,
            flags,
            bytes(size),
            options=options,
            vnet=VNET,
            gso=MSS if size > MSS else 0,
        )
        return packet[: len(packet) - size]


class World:
    """A stack with open connections, and a device's arena to feed it from."""

    def __init__(self, flows: int, size: int = 64) -> None:
        self.now = 1000.0
        self.stack = Stack(mtu=MTU, vnet=VNET, config=TcpConfig(), secret=bytes(16))
        self.arena = bytearray(64 * STRIDE)
        self.slots: list[int] = []
        self.flows = [self.open(Connection(n, size)) for n in range(1, flows + 1)]

    def put(self, header: bytes, seq: int, ack: int, size: int = 0) -> None:
        """Put a packet with ``size`` octets of text into the next slot."""
        at, length = len(self.slots) * STRIDE, len(header)
        self.arena[at : at + length] = header
        SEQUENCE.pack_into(self.arena, at + SEQUENCE_AT, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF)
        self.slots.append(length + size)

    def receive(self) -> list:
        """Let the stack take what the slots hold; gives the events."""
        self.now += TURN
        self.stack.receive(self.arena, STRIDE, self.slots, self.now)
        self.slots.clear()
        return self.stack.take_events()

    def output(self) -> list:
        """Give what is due, as at the end of a turn."""
        packets = self.stack.output(self.now)
        deadline = self.stack.deadline()
        if deadline is not None and deadline <= self.now:
            self.stack.expire(self.now)
            packets += self.stack.output(self.now)
        return packets

    def open(self, flow: Connection) -> Connection:
        self.put(flow.header(SYN, SYN_OPTIONS), 1000, 0)
        ((what, connection),) = self.receive()
        assert what is What.OPEN
        connection.context = flow
        self.stack.opened(connection, 1 << 30)
        ((packet,),) = self.output()
        flow.connection = connection
        flow.nxt = 1001
        flow.una = sequence(packet) + 1
        self.put(flow.ack, flow.nxt, flow.una)
        assert self.receive() == []
        self.output()
        return flow


def sequence(packet: bytes) -> int:
    """SEG.SEQ of a packet of the stack's."""
    return SEQUENCE.unpack_from(packet, SEQUENCE_AT)[0]


def upload(flows: int, size: int, count: int) -> Step:
    """``count`` segments of ``size`` octets in one batch, by turns from all flows."""
    world = World(flows, size)
    turn, everybody = 0, world.flows
    stack = world.stack

    def step() -> None:
        nonlocal turn
        for _ in range(count):
            flow = everybody[turn]
            turn = (turn + 1) % flows
            world.put(flow.segment, flow.nxt, flow.una, size)
            flow.nxt += size
        octets = 0
        for what, connection, _, start, end in world.receive():
            assert what is What.DATA
            octets += end - start
            stack.grant(connection, end - start)
        assert octets == count * size
        assert len(world.output()) == min(flows, count), "one ACK a connection"

    return step


def download(flows: int, size: int, count: int) -> Step:
    """``count`` pieces of ``size`` octets to send, by turns to all flows; all ACKed."""
    world = World(flows, size)
    turn, everybody = 0, world.flows
    stack, text = world.stack, memoryview(bytes(size))

    def step() -> None:
        nonlocal turn
        for _ in range(count):
            flow = everybody[turn]
            turn = (turn + 1) % flows
            stack.send(flow.connection, text)
            flow.una += size
        sent = sum(len(views) for _, *pieces in world.output() for views in pieces)
        assert sent == count * size
        for back in range(min(flows, count)):
            flow = everybody[turn - 1 - back]
            world.put(flow.ack, flow.nxt, flow.una)
        acked = sum(event[2] for event in world.receive() if event[0] is What.ACKED)
        assert acked == count * size
        assert world.output() == []

    return step


def round_trip() -> Step:
    """A request of one segment; its answer, which acknowledges it."""
    world = World(1)
    (flow,) = world.flows
    answer = memoryview(bytes(64))

    def step() -> None:
        world.put(flow.segment, flow.nxt, flow.una, 64)
        flow.nxt += 64
        events = world.receive()
        assert events[-1][0] is What.DATA
        world.stack.grant(flow.connection, 64)
        world.stack.send(flow.connection, answer)
        flow.una += 64
        assert len(world.output()) == 1

    return step


def whole_connection() -> Step:
    """Open, ask, be answered, close as a server does: first."""
    world = World(0)
    flows = [Connection(number, 1) for number in range(1, 1 << 12)]
    syns = [flow.header(SYN, SYN_OPTIONS) for flow in flows]
    fins = [flow.header(FIN | ACK) for flow in flows]
    turn, stack, answer = 0, world.stack, memoryview(b"x")

    def step() -> None:
        nonlocal turn
        turn = (turn + 1) % len(flows)
        world.now += 0.02  # TIME-WAIT holds a hundred connections
        flow = flows[turn]
        world.put(syns[turn], 1000, 0)
        ((what, connection),) = world.receive()
        assert what is What.OPEN
        stack.opened(connection, 1 << 20)
        ((packet,),) = world.output()
        una = sequence(packet) + 1
        world.put(flow.ack, 1001, una)
        world.put(flow.segment, 1001, una, 1)
        ((what, connection, *_),) = world.receive()
        assert what is What.DATA
        stack.send(connection, answer)
        stack.finish(connection)
        assert world.output()
        world.put(fins[turn], 1002, una + 2)
        assert [event[0] for event in world.receive()] == [What.ACKED, What.FIN]
        assert len(world.output()) == 1

    return step


def _workload(way, flows: int, size: int, count: int) -> Workload:
    text = "64 KiB" if size == LARGE else f"{size} octets"
    return Workload(
        name=f"stack, {way.__name__}, {text}, {flows} flow" + "s" * (flows > 1),
        unit="segment",
        units=count,
        warm_up=3 + 2 * flows // count,
        make=partial(way, flows, size, count),
    )


WORKLOADS = (
    *(
        _workload(way, flows, size, 16)
        for way in (upload, download)
        for flows in (1, 1000)
        for size in (LARGE, MSS)
    ),
    Workload(
        name="stack, round trip",
        unit="round trip",
        units=1,
        warm_up=20,
        make=round_trip,
    ),
    Workload(
        name="stack, connect, request, close",
        unit="connection",
        units=1,
        warm_up=300,
        make=whole_connection,
    ),
)
