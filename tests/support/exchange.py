"""A stack and a peer that talk through a network with bad luck, in virtual time."""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from tests.support.host import MTU, make_key, octets
from tests.support.peer import Offer, Peer
from tests.support.soundness import Soundness
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import Connection, State
from tunstack.wire.frame import Refusal

ADDRESSES = {4: ("198.18.0.1", "10.96.0.1"), 6: ("fd00::1", "fd96::1")}

MOST_LOST = 3
"""Then packets get through both ways before another is lost: giving up is never right."""

REST = 300.0
"""Seconds that are watched after the last word; keep-alives go on for ever."""

STEPS = 20_000
"""A conversation of some kilobytes that takes so many steps has no end."""


@dataclass(frozen=True, kw_only=True)
class Luck:
    """What the network does to packets: probabilities, and seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    jitter: float = 0.0
    """A packet takes up to so much longer than the others: it may come behind them."""


class Channel:
    """Both directions; what arrives at the same time arrives in one batch."""

    def __init__(self, chance: Random, luck: Luck) -> None:
        self._chance = chance
        self._luck = luck
        self._lost = 0
        self._through: Counter[str] = Counter()
        self._order = count()
        self._flying: list[tuple[float, int, str, bytes]] = []

    def send(self, to: str, packet: bytes, now: float) -> None:
        """Take one packet."""
        chance, luck = self._chance, self._luck
        if self._lost < MOST_LOST and chance.random() < luck.loss:
            self._lost += 1
            self._through.clear()
            return
        self._through[to] += 1
        if min(self._through["stack"], self._through["peer"]) >= 2:
            self._lost = 0
        for _ in range(2 if chance.random() < luck.duplicate else 1):
            at = now + 0.001 + round(chance.random() * luck.jitter, 3)
            heapq.heappush(self._flying, (at, next(self._order), to, packet))

    def deadline(self) -> float | None:
        """Give the time at which something arrives."""
        return self._flying[0][0] if self._flying else None

    def arrived(self, now: float) -> dict[str, list[bytes]]:
        """Give what has arrived, by whom it is for."""
        arrived: dict[str, list[bytes]] = {"stack": [], "peer": []}
        while self._flying and self._flying[0][0] <= now:
            _, _, to, packet = heapq.heappop(self._flying)
            arrived[to].append(packet)
        return arrived


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One conversation. Texts go in pieces; each end reads when it feels like it."""

    up: int
    """Octets from the host."""
    down: int
    """Octets from the cluster."""
    buffer: int = 65_535
    """The host's."""
    credit: int = 65_535
    """The cluster's: what it takes before it has read anything."""
    lazy: float = 0.0
    """How probable it is that an end does not read for now."""
    closing: str = "together"
    """Who finishes: ``host`` or ``cluster`` first and the other then, both ``together``,
    or nobody but one (``host only``, ``cluster only``)."""
    abort: str | None = None
    """Who ends it with a RST in the middle."""
    family: int = 4
    vnet: int = 0
    iss: int = 1000
    offer: Offer = field(default_factory=Offer)
    luck: Luck = field(default_factory=Luck)


class Exchange:
    """Runs a plan to its end. Everything that is wrong on the way is an assertion.

    Args:
        plan: what is to happen.
        seed: the same one makes the same luck.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.chance = Random(seed)
        self.up = self.chance.randbytes(plan.up)
        self.down = self.chance.randbytes(plan.down)
        self.now = 100.0
        source, target = ADDRESSES[plan.family]
        self.key = make_key(6, source, 40_000, target, 80)
        self.stack = Stack(
            mtu=MTU,
            vnet=plan.vnet,
            config=TcpConfig(receive_buffer=64 * 1024, time_wait=60),
            secret=bytes(16),
            local=frozenset({octets(source)}),
        )
        self.soundness = Soundness(self.stack)
        self.peer = Peer(
            self.key,
            text=self.up,
            expected=self.down,
            buffer=plan.buffer,
            offer=plan.offer,
            vnet=plan.vnet,
            iss=plan.iss,
        )
        self.connection: Connection | None = None
        self.arrived = bytearray()
        """What the cluster has received."""
        self.acked = 0
        self.peer_finished = False
        self.ended = False
        """The stack said RESET, or the cluster did."""
        self.disturb: Callable[[], list[bytes]] | None = None
        """Gives packets of a third party that arrive together with the peer's."""
        self._channel = Channel(self.chance, plan.luck)
        self._tick_at: float | None = self.now
        self._end = float("inf")
        self._abort_in = self.chance.randrange(8) if plan.abort else None
        self._unread = 0
        self._sent = 0
        self._finished = False

    def run(self) -> None:
        """Let everything happen that will."""
        self.peer.connect(self.now)
        self._turn()
        for _ in range(STEPS):
            deadlines = (
                self._tick_at,
                self._channel.deadline(),
                self.peer.deadline,
                self.stack.deadline(),
            )
            due = [at for at in deadlines if at is not None]
            if not due or min(due) > self._end:
                return
            self.now = max(self.now, min(due))
            self._step()
        raise AssertionError("the conversation has no end")

    def _step(self) -> None:
        arrived = self._channel.arrived(self.now)
        for packet in arrived["peer"]:
            self.peer.receive(packet, self.now)
        packets = arrived["stack"]
        if packets and self.disturb is not None:
            packets += self.disturb()
            self.chance.shuffle(packets)
        if packets:
            self._feed(packets)
        self.peer.expire(self.now)
        deadline = self.stack.deadline()
        if deadline is not None and deadline <= self.now:
            self.stack.expire(self.now)
        if self._tick_at is not None and self._tick_at <= self.now:
            self._tick()
        self._turn()

    def _feed(self, packets: list[bytes]) -> None:
        stride = max(map(len, packets))
        arena = bytearray().join(packet.ljust(stride, b"\xaa") for packet in packets)
        self.stack.receive(arena, stride, [len(p) for p in packets], self.now)

    def _turn(self) -> None:
        """What the two have to say goes out."""
        for event in self.stack.take_events():
            self.soundness.see(event)
            self._take(event)
        for pieces in self.stack.output(self.now):
            self._channel.send("peer", b"".join(pieces), self.now)
        self.soundness.check()
        deadline = self.stack.deadline()
        assert deadline is None or deadline > self.now, "the stack does not get on"
        for packet in self.peer.output(self.now):
            self._channel.send("stack", packet, self.now)

    def _take(self, event: tuple) -> None:
        kind, connection = event[:2]
        if kind is What.OPEN:
            if self.connection is None:
                self.connection = connection
                self.soundness.granted(connection, self.plan.credit)
                self.stack.opened(connection, self.plan.credit)
            else:
                self.stack.refuse(connection, Refusal.REFUSED)
        elif connection is not self.connection:
            return
        elif kind is What.DATA:
            assert not self.peer_finished, "text behind the FIN"
            self.arrived += memoryview(event[2])[event[3] : event[4]]
            self._unread += event[4] - event[3]
        elif kind is What.FIN:
            assert not self.peer_finished, "two FINs"
            self.peer_finished = True
        elif kind is What.RESET:
            self.ended = True
        elif kind is What.ACKED:
            self.acked += event[2]

    # What the two programs do now and then

    def _tick(self) -> None:
        chance, plan = self.chance, self.plan
        if self._abort_in is not None and self.connection is not None:
            self._abort_in -= 1
            if self._abort_in < 0:
                self._abort()
        if self.peer.open and not (self.peer.aborted or self.peer.reset):
            self.peer.say(chance.randint(1, 8000))
            if chance.random() >= plan.lazy:
                self.peer.read(chance.choice([100, 3000, 1 << 20]), self.now)
            if self._may_finish("host", self.peer.finished):
                self.peer.finish()
        if self.connection is not None and not self.ended:
            self._serve(self.connection)
        if self._is_over():
            self._tick_at, self._end = None, self.now + REST
        else:
            self._tick_at = self.now + chance.random() * 0.2

    def _serve(self, connection: Connection) -> None:
        chance = self.chance
        piece = self.down[self._sent : self._sent + chance.randint(1, 8000)]
        if piece:
            self._sent += len(piece)
            self.stack.send(connection, memoryview(piece))
        if self._unread and chance.random() >= self.plan.lazy:
            octets = min(self._unread, chance.choice([100, 3000, 1 << 20]))
            self._unread -= octets
            self.soundness.granted(connection, octets)
            self.stack.grant(connection, octets)
        done = self._sent == len(self.down) and not self._finished
        if done and self._may_finish("cluster", self.peer_finished):
            self._finished = True
            self.stack.finish(connection)

    def _may_finish(self, end: str, other_has: bool) -> bool:
        closing = self.plan.closing
        return (
            closing == "together"
            or closing.startswith(end)
            or (other_has and "only" not in closing)
        )

    def _abort(self) -> None:
        self._abort_in = None
        if self.plan.abort == "host":
            self.peer.abort(self.now)
        elif not self.ended and self.connection is not None:
            self.ended = True
            self.stack.reset(self.connection, self.now)

    def _is_over(self) -> bool:
        """Nothing more is to be said or read."""
        if self.ended or self.peer.reset or self.peer.aborted:
            return True
        return (
            self._abort_in is None
            and self.peer.received == len(self.down)
            and len(self.arrived) == len(self.up)
            and self._unread == 0
            and (self.peer.finished or not self._ends("cluster"))
            and (self.peer_finished or not self._ends("host"))
        )

    def _ends(self, end: str) -> bool:
        closing = self.plan.closing
        return "only" not in closing or closing.startswith(end)

    # How it ended

    def assert_intact(self) -> None:
        """Everything has arrived, both ways, and what is closed at both ends is gone."""
        assert not self.ended, "the stack gave up"
        assert self.arrived == self.up
        assert self.peer.received == len(self.down)
        assert self.peer.acknowledged == len(self.up)
        assert self.acked == len(self.down)
        assert self.peer_finished == self._ends("host")
        assert self.peer.finished == self._ends("cluster")
        if self._ends("host") and self._ends("cluster"):
            assert not self.stack.connections
        else:
            assert self.connection.state in (State.CLOSE_WAIT, State.FIN_WAIT_2)

    def assert_prefix(self) -> None:
        """What has arrived is what was sent, as far as it goes."""
        assert self.up.startswith(self.arrived)
        assert self.acked <= self.peer.received or self.acked <= len(self.down)
