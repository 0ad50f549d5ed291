"""A name server for those who bring it questions: says them back, when a test says so."""

from collections.abc import Callable

NONSENSE = b"nonsense"
"""What is no question, and has no answer."""


class Answers:
    """Takes questions as the name server of a session does.

    Args:
        flush: called after answers that nobody's turn writes.
    """

    def __init__(self, flush: Callable[[], None] = lambda: None) -> None:
        self.flush = flush
        self.hold = False
        """Answer only when told to."""
        self.asked: list[tuple[bytes, bool]] = []
        """What came, and whether over TCP."""
        self.make: Callable[[bytes], bytes] = lambda message: b"re: " + message
        self.on_question: Callable[[], None] = lambda: None
        self._waiting: list = []

    def receive(self, message, client, *, tcp) -> bool:
        self.asked.append((message, tcp))
        if message == NONSENSE:
            return False
        if self.hold:
            self._waiting.append((client, message))
        else:
            client.reply(self.make(message))
        self.on_question()
        return True

    def answer(self) -> None:
        """Answer all that wait."""
        waiting, self._waiting = self._waiting, []
        for client, message in waiting:
            client.reply(self.make(message))
        self.flush()
