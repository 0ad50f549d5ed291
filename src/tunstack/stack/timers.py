"""All deadlines in one heap."""

import heapq
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Timed(Protocol):
    """Something with one deadline: when :attr:`deadline` is past, ``expire`` is due."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds."""

    armed_at: float | None
    """The deadline under which the heap knows it; the heap's own."""

    def expire(self, now: float) -> None:
        """The deadline has come."""


class Alarm:
    """A deadline of its own, for what has no other state.

    Args:
        action: called with the time when the deadline has come.
    """

    __slots__ = ("_action", "armed_at", "deadline")

    def __init__(self, action: Callable[[float], None]) -> None:
        self._action = action
        self.deadline: float | None = None
        self.armed_at: float | None = None

    def expire(self, now: float) -> None:
        """The deadline has come."""
        self._action(now)


class Line(Generic[T]):
    """Deadlines that are all set equally far ahead, so that they are met in that order.

    The heap knows the first. One here costs no more with many than with few, and is gone
    when it is cancelled.

    Args:
        action: called with one whose deadline has come, which has left the line.
    """

    __slots__ = ("_action", "armed_at", "members")

    def __init__(self, action: Callable[[T], None]) -> None:
        self._action = action
        self.members: OrderedDict[T, float] = OrderedDict()
        """Who stands in line, and until when."""
        self.armed_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """When the first is due."""
        return next(iter(self.members.values()), None)

    def expire(self, now: float) -> None:
        """The deadline of the first has come, at least."""
        members = self.members
        while members:
            first = next(iter(members))
            if members[first] > now:
                break
            del members[first]
            self._action(first)


class Timers:
    """Deadlines move forward much more often than they are met.

    So the heap is lazy: moving one forward changes nothing here, and an entry that comes
    up too early goes back in.
    """

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._count = count()

    def arm(self, timed: Timed) -> None:
        """Take note of ``timed.deadline``; call it whenever that may be earlier."""
        deadline = timed.deadline
        assert deadline is not None
        if timed.armed_at is None or deadline < timed.armed_at:
            timed.armed_at = deadline
            heapq.heappush(self._heap, (deadline, next(self._count), timed))

    def deadline(self) -> float | None:
        """Give the time to call :meth:`due` at, which may turn out to be too early."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Timed]:
        """Give those whose deadline has come; each has to be armed again."""
        due: list[Timed] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, timed = heapq.heappop(heap)
            if at != timed.armed_at:
                continue  # armed again since, for an earlier time
            timed.armed_at = None
            if timed.deadline is None:
                continue
            if timed.deadline <= now:
                due.append(timed)
            else:
                self.arm(timed)
        return due
