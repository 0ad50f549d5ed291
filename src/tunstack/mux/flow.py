"""One flow of a session: its identity and its credit."""

from collections import deque
from typing import Any, Protocol

from tunstack.wire.frame import Kind


class Owner(Protocol):
    """Whoever serves a flow."""

    def flow_event(self, kind: Kind, flow: "Flow", value: Any) -> None:
        """Take what :meth:`tunstack.mux.session.Mux.receive` said of this flow."""


class Flow:
    """A TCP connection, a UDP association or a series of echoes in the mux.

    ``address`` is 16 octets, IPv4 as IPv4-mapped. ``send_credit`` is how many octets
    the other end still takes; ``open`` turns true when it does. ``owner``,
    ``context`` and ``link``, which says what session it is of where there are several,
    belong to whoever uses the flow.
    """

    __slots__ = (
        "address",
        "context",
        "finished",
        "gone",
        "id",
        "link",
        "open",
        "owner",
        "peer_finished",
        "port",
        "protocol",
        "queue",
        "queued",
        "receive_credit",
        "send_credit",
        "unconsumed",
        "window",
    )

    def __init__(
        self, number: int, protocol: int, address: bytes, port: int, window: int
    ) -> None:
        self.id = number
        self.protocol = protocol
        self.address = address
        self.port = port
        self.window = window
        """Octets granted to the other end at first, and held at most."""
        self.receive_credit = window
        """Octets the other end may still send."""
        self.unconsumed = 0
        """Octets used up here and not granted again yet."""
        self.send_credit = 0
        self.open = False
        self.finished = False
        self.peer_finished = False
        self.gone = False
        self.queue: deque[tuple[Kind, bytes]] | None = None
        """What waits behind other flows; ``None`` most of the time."""
        self.queued = 0
        self.owner: Owner | None = None
        self.context: Any = None
        self.link: Any = None
