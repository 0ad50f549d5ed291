"""What parsing a packet gives. The kernels write it, so it is defined beside them."""

from tunstack._fastpath.record import (
    MORE_OPTIONS,
    NO_OPTIONS,
    RECORD,
    TIMESTAMPS,
    Record,
    Verdict,
)

__all__ = [
    "MORE_OPTIONS",
    "NO_OPTIONS",
    "RECORD",
    "TIMESTAMPS",
    "Record",
    "Verdict",
]
