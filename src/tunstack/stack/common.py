"""What the connections of one stack share: where events go, and what is bounded."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunstack.stack.events import Event
from tunstack.stack.timers import Line

if TYPE_CHECKING:
    from tunstack.stack.tcp import Connection

MAX_OUT_OF_ORDER = 64 * 1024 * 1024
"""Octets that all connections together hold of text that came too early."""


class Common:
    """One for each stack.

    Args:
        acknowledge: called with a connection whose ACK has waited long enough.
        forget: called with one whose TIME-WAIT is over.
    """

    __slots__ = ("delayed", "drops", "events", "half_open", "out_of_order", "time_wait")

    def __init__(
        self,
        acknowledge: Callable[["Connection"], None],
        forget: Callable[["Connection"], None],
    ) -> None:
        self.events: list[Event] = []
        self.drops: Counter[str] = Counter()
        """What was refused, by reason."""
        self.half_open = 0
        """Connections that are not ESTABLISHED yet."""
        self.out_of_order = 0
        """Octets held of text that came too early."""
        self.delayed: Line[Connection] = Line(acknowledge)
        """Connections that owe an ACK."""
        self.time_wait: Line[Connection] = Line(forget)
        """Connections in TIME-WAIT."""
