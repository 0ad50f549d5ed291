"""What a workload is: one machine in memory, and one step of it."""

from collections.abc import Callable
from dataclasses import dataclass

Step = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A machine in a steady state, which every step leaves as it was.

    A step checks what comes out of it. The same number of steps does the same work,
    whenever and wherever: no clock, no random number, no other process.
    """

    name: str
    unit: str
    """What is counted: segment, message, round trip."""
    units: int
    """Of those in one step."""
    warm_up: int
    """Steps until the state is steady."""
    make: Callable[[], Step]
    """Makes the machine; gives what does one step."""
