"""DNS over a stream: each message behind its length (RFC 1035, section 4.2.2)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunstack.engine.nameserver import Client, NameServer

IDLE = 10.0
"""Seconds after which a connection is closed where no answer is due (RFC 7766, 6.2.3)."""

MOST_CONNECTIONS = 64
"""To one place."""

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


class Questions:
    """Those of one connection: taken out of its stream, and counted until answered.

    Args:
        client: the connection.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._framing = Framing()
        self.waiting = 0
        """Questions that have no answer yet."""

    def ask(self, octets: bytes, server: "NameServer | None") -> bool:
        """Ask what is complete with these octets; false when that is too much.

        Args:
            octets: what the client sent.
            server: whom; with ``None`` any question is too much.
        """
        for message in self._framing.take(octets):
            self.waiting += 1
            if server is None or self.waiting > MOST_ANSWERS:
                return False
            if not server.receive(message, self._client, tcp=True):
                self.waiting -= 1
        return True

    def answer(self, message: bytes) -> bytes:
        """Take note of one answer; gives what goes into the stream."""
        self.waiting -= 1
        return Framing.frame(message)
