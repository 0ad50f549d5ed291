"""A look at what is still there after a time, with one timer for all of it."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Overdue(Generic[T]):
    """Calls back with each item that has not been discarded in time.

    All items have the same time, so they are due in the order in which they came, and
    the loop's timer need only be set for the first. Most are discarded long before.

    Args:
        loop: whose timer and clock.
        patience: seconds.
        due: takes an item.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, patience: float, due: Callable[[T], None]
    ) -> None:
        self._loop = loop
        self._patience = patience
        self._due = due
        self._deadlines: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        """Begin to wait for an item; each is added once."""
        self._deadlines[item] = self._loop.time() + self._patience
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)

    def discard(self, item: T) -> None:
        """Wait for it no more; harmless to repeat."""
        self._deadlines.pop(item, None)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        due: list[T] = []
        for item, deadline in self._deadlines.items():
            if deadline > now:
                self._timer = self._loop.call_later(deadline - now, self._look)
                break
            due.append(item)
        for item in due:
            if self._deadlines.pop(item, None) is not None:  # by another's end
                self._due(item)
