"""One stream: what is known of it, and what waits to be sent on it."""

from collections.abc import Callable
from typing import Any

from tunstack.rpc.http2.headers import Headers
from tunstack.rpc.http2.message import Assembler, Octets
from tunstack.rpc.http2.window import ReceiveWindow

Deliver = Callable[[memoryview], None]
"""Takes a message, which is valid until :data:`TurnEnded` has returned."""

Pull = Callable[[], Octets | tuple[bytes, Octets] | None]
"""Gives the next message to send, in one piece or in two, or ``None`` when there is
nothing to say."""

TurnEnded = Callable[[], None]
"""Told once the messages that came together have been delivered."""


def silence() -> None:
    """Have nothing to say, and nothing to do."""


def ignore(_message: memoryview) -> None:
    """Take a message that nobody wants."""


class Stream:
    """A stream of a :class:`~.connection.Connection`, which alone changes it.

    Its state is that of RFC 9113, figure 2, in two halves: what the other end has
    closed, and what we have.
    """

    __slots__ = (
        "assembler",
        "blocked_at",
        "deliver",
        "discards",
        "eager",
        "ending",
        "id",
        "lingers",
        "local_closed",
        "missing",
        "plain",
        "prefix",
        "pull",
        "ready",
        "remote_closed",
        "responded",
        "rest",
        "send_window",
        "turn_ended",
        "user",
        "window",
    )

    def __init__(
        self, number: int, send_window: int, window: ReceiveWindow, message: int
    ) -> None:
        self.id = number
        self.user: Any = None
        """Whoever serves it; the connection does not look."""
        self.deliver: Deliver = ignore
        """For whoever takes the events: where its messages go."""
        self.turn_ended: TurnEnded = silence
        self.pull: Pull = silence
        self.eager = False
        """The user uses up each message while it is told of it."""
        self.window = window
        self.assembler = Assembler(number, message)
        self.remote_closed = False
        self.local_closed = False
        self.plain = False
        """DATA is expected, and a whole message in a frame needs no further look."""
        self.discards = False
        """Nobody wants what still comes on it."""
        self.lingers = False
        """The other end may finish although we have: it is not stopped."""
        self.missing: int | None = None
        """Octets of DATA to come, where the header fields have promised a number."""
        self.responded = False
        """The first HEADERS of a response have come, or gone."""
        self.send_window = send_window
        """Octets that may be sent; negative when a setting has taken back some (6.9.2)."""
        self.rest: memoryview | None = None
        """What is left of a message that did not fit the windows."""
        self.prefix = b""
        """What precedes that, until it is sent: the message's prefix and first piece."""
        self.ending: Headers | None = None
        """To be sent behind all messages: trailers; none end a client's half."""
        self.ready = False
        self.blocked_at: float | None = None
        """Since when a closed window keeps a message back."""
