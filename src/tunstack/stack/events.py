"""What the stack tells whoever serves its flows."""

from enum import IntEnum
from typing import Any


class What(IntEnum):
    """The first member of an event, which says what the others are.

    ========  ==================================================================
    OPEN      connection: a SYN has come; answer with ``opened`` or ``refuse``
    DATA      connection, memory, start, end: text, in order, 65 535 octets at most;
              valid until the events have been handled
    FIN       connection: the host sends no more
    RESET     connection: it is over, by the host's RST or because it fell silent
    ACKED     connection, octets: so much of what was sent has arrived
    DATAGRAM  flow key, memory, start, end, offset of its packet
    ECHO      flow key, sequence number, memory, start, end, offset of its packet:
              an echo request
    ========  ==================================================================
    """

    OPEN = 0
    DATA = 1
    FIN = 2
    RESET = 3
    ACKED = 4
    DATAGRAM = 5
    ECHO = 6


Event = tuple[Any, ...]
