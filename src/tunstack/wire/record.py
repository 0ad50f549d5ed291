"""What parsing a packet gives. The kernels write it, so it is defined beside them."""

from tunstack._fastpath.record import RECORD, Record, Verdict

__all__ = ["RECORD", "Record", "Verdict"]
