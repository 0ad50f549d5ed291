"""How calls end: the status codes of gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


Metadata = Sequence[tuple[str, str | bytes]]
"""Names in lower case. Values are octets where the name ends in ``-bin``, else text."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: its status, one line for people, and the trailing metadata."""

    status: Status
    message: str = ""
    metadata: Metadata = ()
