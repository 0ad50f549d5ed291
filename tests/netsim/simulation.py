"""One transfer between a Linux-like host and the stack, in virtual time."""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from tests.netsim.link import Link
from tests.netsim.linux import LARGEST, MSS, Linux, text
from tests.support.host import make_key
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import Connection

WINDOW = 512 * 1024
"""Octets that either receiver takes."""

PATIENCE = 600.0
"""Seconds of virtual time in which a transfer has to be over."""

SILENCE = 0.15
"""Seconds: less than the least retransmission time-out."""

PIECE = 65_536
"""Octets of text in a message from the cluster."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is transferred, and over which network. Rates are octets per second."""

    up: bool
    """From the host to the cluster."""
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    delay: float
    """Seconds, one way."""
    queue: int
    """Packets."""
    offload: bool = False
    reader: float | None = None
    """What the receiving program takes of a download."""

    @property
    def rate(self) -> float:
        """Of the link. With offload a packet is large, and so the link is faster."""
        return 125e6 if self.offload else 12.5e6

    @property
    def octets(self) -> int:
        """To transfer."""
        return 20_000_000 if self.offload else 6_000_000

    @property
    def window(self) -> int:
        """Octets that the receiver takes."""
        return WINDOW * 4 if self.offload else WINDOW

    @property
    def vnet(self) -> int:
        """Octets of virtio header."""
        return 10 if self.offload else 0

    @property
    def ideal(self) -> float:
        """The most that this network and this receiver let through."""
        text = LARGEST if self.offload else MSS
        return min(
            self.rate * text / (text + 40),
            self.window / (2 * self.delay),
            (self.reader or math.inf) * self.octets / (self.octets - self.window),
        )

    def link(self, luck: str) -> Link:
        """Make one direction of the network."""
        return Link(
            f"{luck} {self.name}",
            rate=self.rate,
            delay=self.delay,
            queue=self.queue,
            loss=self.loss,
            reorder=self.reorder,
            duplicate=self.duplicate,
        )

    @property
    def name(self) -> str:
        """What the table says of it."""
        reader = "at once" if self.reader is None else f"{self.reader / 1e6:g} MB/s"
        return ", ".join(
            (
                "up" if self.up else "down",
                "64 KiB" if self.offload else "1 MSS",
                f"{self.delay * 1000:g} ms",
                f"{self.queue}",
                f"{self.loss:.1%}",
                f"{self.reorder:.0%}",
                f"{self.duplicate:.0%}",
                reader,
            )
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a transfer."""

    fraction: float
    """Throughput, from the first octet to the last, of the ideal."""
    resent: float
    """Octets that the sender sent again, of all."""
    silences: int
    """Times that the sender sent nothing for :data:`SILENCE`: it waited for its timer."""
    overflows: int
    """Packets of the sender that the queue had no room for."""


class Cluster:
    """The stack, and a cluster behind it that takes and gives at once."""

    def __init__(self, case: Case) -> None:
        self.stack = Stack(
            mtu=1500,
            vnet=case.vnet,
            config=TcpConfig(receive_buffer=case.window, send_buffer=case.window),
            secret=bytes(16),
        )
        self.arrived = 0
        self.expire = self.stack.expire
        self.deadline = self.stack.deadline
        self._window = case.window
        self._left = 0 if case.up else case.octets
        self._at = 1

    def receive(self, packet: bytes, now: float) -> None:
        self.stack.receive(packet, len(packet), [len(packet)], now)

    def output(self, now: float) -> list[bytes]:
        stack = self.stack
        for event in stack.take_events():
            what, connection = event[0], event[1]
            if what is What.OPEN:
                stack.opened(connection, self._window)
                self._give(connection, self._window)
            elif what is What.DATA:
                piece = event[2][event[3] : event[4]]
                assert piece == text(1 + self.arrived, len(piece)), "not the text"
                self.arrived += len(piece)
                stack.grant(connection, len(piece))
            elif what is What.ACKED:
                self._give(connection, event[2])
            else:
                raise AssertionError(f"the connection ended: {what!r}")
        return [b"".join(packet) for packet in stack.output(now)]

    def _give(self, connection: Connection, octets: int) -> None:
        octets = min(octets, self._left)
        self._left -= octets
        while octets:
            piece = text(self._at, min(octets, PIECE))
            self.stack.send(connection, memoryview(piece))
            self._at += len(piece)
            octets -= len(piece)


def run(case: Case) -> Outcome:
    """Transfer until the last octet has arrived."""
    host = Linux(
        make_key(6, "198.18.0.1", 40_000, "10.96.0.1", 80),
        octets=case.octets if case.up else 0,
        buffer=case.window,
        speed=case.reader,
        vnet=case.vnet,
    )
    cluster = Cluster(case)
    ends = (host, cluster)
    sender, receiver = ends if case.up else ends[::-1]
    links = {end: case.link(str(ends.index(end))) for end in ends}
    flying: list[tuple[float, int, bytes, Linux | Cluster]] = []
    number = count()
    now = began = spoken = 0.0
    sent = silences = 0
    host.connect(now)
    while receiver.arrived < case.octets:
        for end in ends:
            for packet in end.output(now):
                octets = len(packet) - case.vnet
                for at in links[end].send(octets, now):
                    other = cluster if end is host else host
                    heapq.heappush(flying, (at, next(number), packet, other))
                if end is sender and (carried := _text_octets(packet[case.vnet :])):
                    if not sent:
                        began = spoken = now
                    sent += carried
                    silences += now - spoken > SILENCE
                    spoken = now
        now = min(_times(flying, ends))
        assert now < PATIENCE, f"{receiver.arrived} octets arrived, then silence"
        for end in ends:
            if (at := end.deadline()) is not None and at <= now:
                end.expire(now)
        while flying and flying[0][0] <= now:
            _, _, packet, end = heapq.heappop(flying)
            end.receive(packet, now)
    return Outcome(
        fraction=case.octets / (now - began) / case.ideal,
        resent=(sent - case.octets) / case.octets,
        silences=silences,
        overflows=links[sender].overflows,
    )


def _text_octets(packet: bytes) -> int:
    return len(packet) - 20 - (packet[32] >> 4) * 4


def _times(flying: list, ends: tuple[Linux, Cluster]) -> Iterator[float]:
    """Give the times at which something happens."""
    if flying:
        yield flying[0][0]
    for end in ends:
        if (at := end.deadline()) is not None:
            yield at
