"""One direction of a network in virtual time: a queue, a wire, and bad luck by seed."""

from collections import deque
from random import Random

FULL = 1500
"""Octets of the packet whose time on the wire is the unit of reordering."""

HELD = 10
"""A packet that is reordered comes up to so many full packets late."""


class Link:
    """Says when a packet arrives: never, once or twice.

    Args:
        seed: the same one makes the same luck.
        rate: octets per second.
        delay: seconds on the wire.
        queue: packets that wait for the wire; what comes when it is full is dropped.
        loss, reorder, duplicate: probabilities.
    """

    def __init__(
        self,
        seed: str,
        *,
        rate: float,
        delay: float,
        queue: int,
        loss: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
    ) -> None:
        self.overflows = 0
        """Packets that the queue had no room for."""
        self._rate = rate
        self._delay = delay
        self._queue = queue
        self._chances = loss, reorder, duplicate
        self._random = Random(seed)
        self._leaving: deque[float] = deque()

    def send(self, octets: int, now: float) -> list[float]:
        """Take a packet; give the times at which it arrives."""
        leaving = self._leaving
        while leaving and leaving[0] <= now:
            leaving.popleft()
        if len(leaving) >= self._queue:
            self.overflows += 1
            return []
        leaving.append((leaving[-1] if leaving else now) + octets / self._rate)
        # Always as many draws, so that one chance does not change the others' luck.
        lost, held, twice = (self._random.random() < chance for chance in self._chances)
        late = self._random.random() * HELD * FULL / self._rate
        if lost:
            return []
        arrival = leaving[-1] + self._delay + held * late
        return [arrival, arrival] if twice else [arrival]
