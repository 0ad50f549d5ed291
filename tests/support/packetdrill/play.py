"""One script against one world."""

from dataclasses import replace
from typing import Any, Protocol

from tests.support.packetdrill.notation import Call, Event, Icmp, Script, Tcp
from tests.support.packetdrill.wire import Arrived, Wire


class Mismatch(AssertionError):
    """The stack did what its script does not say."""


class World(Protocol):
    """What a script is played against. Times are seconds from any start."""

    early: float
    """How much sooner than a script says a packet may come."""
    late: float
    """How much later."""
    ticks: int
    """How far our TS val, in milliseconds, may be from what a script says."""
    settle: float
    """How long to wait for packets behind the last event."""

    def now(self) -> float:
        """Give the time."""
        ...

    def take(self, until: float) -> tuple[float, bytes] | None:
        """Give the next packet of the stack, and when it came.

        ``None`` when none comes until then, and it is that late now.
        """
        ...

    def send(self, packet: bytes) -> None:
        """Send a packet of the peer."""
        ...

    def call(self, call: Call) -> int | str:
        """Make a system call of the target; gives its result or the name of its error."""
        ...


def play(script: Script, world: World, key: bytes) -> None:
    """Play a script from its first event to its last.

    Args:
        script: what to play.
        world: against what.
        key: flow key of the peer's packets.

    Raises:
        Mismatch: with the line of the script and the packet, in the same notation.
    """
    _Player(script, world, Wire(key)).play()


class _Player:
    def __init__(self, script: Script, world: World, wire: Wire) -> None:
        self._script = script
        self._world = world
        self._wire = wire
        self._start = world.now()
        self._last = self._start
        slack = script.options.get("tolerance_usecs")
        self._slack = 0.0 if slack is None else int(slack) / 1e6

    def play(self) -> None:
        for event in self._script.events:
            base = self._last if event.relative else self._start
            due = base + event.time
            if isinstance(event.what, Call) or event.inbound:
                self._act(event, due)
            else:
                self._expect(event, due, base + event.until)
        left = self._world.take(self._world.now() + self._world.settle)
        if left is not None:
            self._fail(self._script.events[-1], "the script is over, and then came", left)

    def _act(self, event: Event, due: float) -> None:
        world = self._world
        early = world.take(due)
        if early is not None:
            self._fail(event, "before this came", early)
        if not isinstance(event.what, Call):
            world.send(self._wire.pack(event.what))
        else:
            wanted = event.what.error or event.what.result
            if (given := world.call(event.what)) != wanted:
                self._fail(event, f"the call gave {given}", None)
        self._last = max(world.now(), due)

    def _expect(self, event: Event, due: float, until: float) -> None:
        world = self._world
        came = world.take(until + max(world.late, self._slack))
        if came is None:
            self._fail(event, "nothing came", None)
        at, octets = came
        arrived = self._wire.unpack(octets, event.what)
        if faults := [*arrived.faults, *self._differences(event.what, arrived)]:
            self._fail(event, "; ".join(faults), came, arrived)
        if at < due - max(world.early, self._slack):
            self._fail(event, f"{due - at:.3f} s too early came", came, arrived)
        self._last = at

    def _differences(self, expected: Any, arrived: Arrived) -> list[str]:
        actual = arrived.packet
        if type(actual) is not type(expected):
            return ["it is of another protocol"]
        if isinstance(actual, Icmp) and expected.quoted is None:
            actual = replace(actual, quoted=None)
        if isinstance(actual, Tcp):
            if expected.window is None:
                actual = replace(actual, window=None)
            if expected.options is None:
                actual = replace(actual, options=None)
            elif self._options_agree(expected, actual):
                actual = replace(actual, options=expected.options)
        return [
            f"its {name} differs"
            for name, value in vars(expected).items()
            if getattr(actual, name) != value
        ]

    def _options_agree(self, expected: Tcp, actual: Tcp) -> bool:
        """Whether they differ in our TS val alone, and in that not by much."""
        wanted, found = expected.options or (), actual.options or ()
        if [_without_value(option) for option in wanted] != [
            _without_value(option) for option in found
        ]:
            return False
        return all(
            abs(one[1] - other[1]) <= self._world.ticks
            for one, other in zip(wanted, found, strict=True)
            if one[0] == "TS"
        )

    def _fail(
        self,
        event: Event,
        why: str,
        came: tuple[float, bytes] | None,
        arrived: Arrived | None = None,
    ) -> Any:
        lines = [f"{self._script.name}:{event.line}: {why}", f"  script: {event.text}"]
        if came is not None:
            at, octets = came
            arrived = arrived or self._wire.unpack(octets, None)
            lines.append(f"  packet: {at - self._start:.3f} > {arrived.packet}")
        raise Mismatch("\n".join(lines))


def _without_value(option: tuple[Any, ...]) -> tuple[Any, ...]:
    return ("TS", option[2]) if option[0] == "TS" else option
