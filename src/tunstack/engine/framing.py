"""DNS over a stream: each message behind its length (RFC 1035, section 4.2.2)."""

MOST_ANSWERS = 128
"""Questions of one connection that may be unanswered."""

MOST_UNREAD = 1024 * 1024
"""Octets of answers that a client may leave unread."""


class Framing:
    """Takes a stream apart; at most one message is kept."""

    def __init__(self) -> None:
        self._received = bytearray()

    def take(self, octets: bytes) -> list[bytes]:
        """Give the messages that are complete with these octets."""
        received = self._received
        received += octets
        messages = []
        at = 0
        while len(received) >= at + 2:
            end = at + 2 + int.from_bytes(received[at : at + 2])
            if end > len(received):
                break
            messages.append(bytes(received[at + 2 : end]))
            at = end
        del received[:at]
        return messages

    @staticmethod
    def frame(message: bytes) -> bytes:
        """Put its length before a message."""
        return len(message).to_bytes(2) + message
