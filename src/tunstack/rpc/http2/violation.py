"""What the other end did wrong. Raised and caught within this room.

:meth:`.connection.Connection.receive` turns each into values: an event, and the frame
that tells the other end.
"""

from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.status import Metadata, Outcome, Status


class ConnectionViolation(Exception):
    """The connection has to end (RFC 9113, section 5.4.1)."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamViolation(Exception):
    """One stream has to end (RFC 9113, section 5.4.2)."""

    def __init__(self, stream: int, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream
        self.code = code
        self.reason = reason


class CallViolation(StreamViolation):
    """One call has to end: HTTP/2 was kept, gRPC was not."""

    def __init__(
        self, stream: int, status: Status, reason: str, metadata: Metadata = ()
    ) -> None:
        super().__init__(stream, Code.CANCEL, reason)
        self.outcome = Outcome(status, reason, metadata)
