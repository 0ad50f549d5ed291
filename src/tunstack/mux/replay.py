"""What a resumed stream must say again.

A stream can break with messages on the way. Each end counts the messages with frames
that it has received in the session, tells the other end now and then (ACK frames), and
keeps what it has sent until it is told. On resumption both ends say their counts, and
each sends again what the other lacks: no octet is lost or doubled, so flows live on.
"""

from collections import deque

ACK_OCTETS = 1024 * 1024
ACK_MESSAGES = 256
"""An ACK is due after so much: small beside what the other end is ready to keep."""


class Replay:
    """Counts and keeps the messages of both directions.

    Args:
        limit: octets kept at most; :attr:`full` says to wait for an ACK.
    """

    __slots__ = (
        "_again",
        "_kept",
        "_kept_octets",
        "_limit",
        "_unsaid_messages",
        "_unsaid_octets",
        "acknowledged",
        "received",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: deque[bytes | bytearray] = deque()
        self._kept_octets = 0
        self._again: deque[bytes | bytearray] = deque()
        self._unsaid_messages = 0
        self._unsaid_octets = 0
        self.acknowledged = 0
        """Messages of ours that the other end has."""
        self.received = 0
        """Messages of the other end that we have."""

    @property
    def full(self) -> bool:
        """Nothing but an ACK should be sent before an ACK arrives."""
        return self._kept_octets >= self._limit

    @property
    def ack_due(self) -> bool:
        """The other end should hear how much has arrived."""
        return self._unsaid_octets >= ACK_OCTETS or self._unsaid_messages >= ACK_MESSAGES

    def ack_sent(self) -> None:
        """Note that the count has been said."""
        self._unsaid_octets = self._unsaid_messages = 0

    def arrived(self, octets: int) -> None:
        """Count one message received."""
        self.received += 1
        self._unsaid_messages += 1
        self._unsaid_octets += octets

    def sent(self, message: bytes | bytearray) -> None:
        """Keep one message until it is acknowledged."""
        self._kept.append(message)
        self._kept_octets += len(message)

    def acknowledge(self, count: int) -> bool:
        """Forget the first ``count`` messages; false when there never were so many."""
        surplus = count - self.acknowledged
        if surplus > len(self._kept):
            return False
        # Less than before is an ACK in a message that was said again.
        for _ in range(surplus):
            self._kept_octets -= len(self._kept.popleft())
        self.acknowledged = max(count, self.acknowledged)
        return True

    def resume(self, count: int) -> bool:
        """The other end has ``count`` messages: the rest goes again.

        Returns false, and changes nothing, when that count cannot be.
        """
        if count < self.acknowledged or not self.acknowledge(count):
            return False
        self._again = deque(self._kept)
        self.ack_sent()
        return True

    @property
    def again_pending(self) -> bool:
        """There is something to say again."""
        return bool(self._again)

    def next_again(self) -> bytes | bytearray | None:
        """Give the next message to say again, in order."""
        return self._again.popleft() if self._again else None
