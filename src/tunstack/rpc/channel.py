"""One bidirectional stream of messages: the interface between sessions and transports.

A transport owns the connection and its pace; a session owns what is said. The
transport *pulls*: it asks :meth:`Handler.next_message` whenever the connection can
take more, so what is sent next is decided as late as possible. It *pushes* what
arrives. All calls happen in the event loop's thread.

Messages are the protobuf messages of ``tunnel.proto``, encoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

METHOD = "/tunstack.v1.Tunnel/Connect"

MAX_RECEIVE = 4 * 1024 * 1024
"""Octets in one message from the other end. A longer one is a violation."""

IN_FLIGHT = 1024 * 1024
"""Octets a transport may hold that the kernel has not taken yet."""


def address(host: str, port: int) -> str:
    """Write an address as people do: ``10.98.1.2:7777``, ``[fd98::2]:7777``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a manager is and how to talk to it."""

    host: str
    port: int
    tls: bool
    """Plaintext otherwise."""
    ca: bytes | None = None
    """PEM of the authorities to trust; ``None`` means the system's."""
    server_name: str | None = None
    """The name that the certificate must bear; ``None`` means ``host``."""

    @property
    def peer(self) -> str:
        """The address as people write it."""
        return address(self.host, self.port)

    @property
    def authority(self) -> str:
        """The host that a request names."""
        return self.server_name or self.peer


@dataclass(frozen=True, slots=True)
class Unix:
    """A Unix socket, which needs no TLS: the file system says who may use it."""

    path: Path
    name: str | None = None
    """Who is at the other end, for people; ``None`` means the path."""

    @property
    def peer(self) -> str:
        """The address as people write it."""
        return self.name or f"unix:{self.path}"

    @property
    def authority(self) -> str:
        """The host that a request names; gRPC has everybody say so."""
        return "localhost"


@dataclass(frozen=True, slots=True)
class Pair:
    """A connection that exists already: a reader and a writer like asyncio's."""

    reader: Any
    """Has ``await read(n)``, which gives no octets at the end."""
    writer: Any
    """Has ``writelines``, ``await drain()`` and ``close()``."""
    peer: str
    """Who is at the other end, for people."""
    authority: str = "localhost"
    """The host that a request names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a server proves itself with: files in PEM."""

    certificate: Path
    """With its chain."""
    key: Path


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a stream ended.

    ``reason`` is one line for people. ``refused`` is true when nothing listened or
    the other end said that it does not serve this method: no stream ever existed.
    ``clean`` is true when the other end ended the stream in order.
    """

    reason: str
    refused: bool = False
    clean: bool = False


Message = bytes | tuple[bytes, bytes | bytearray]
"""A message to send: in one piece, or in two that nobody has to join, if it is long. They
must not be changed any more."""


class Handler(Protocol):
    """The session's side of a stream."""

    def message_received(self, message: bytes | memoryview) -> None:
        """Take one message. A view is valid until :meth:`turn_ended` has returned."""

    def turn_ended(self) -> None:
        """All messages that came together have been received.

        The moment for what is to be done once for all of them: each
        :meth:`message_received` is followed by this before anything else is called
        but another one, :meth:`next_message` and :meth:`channel_lost` included.
        """

    def next_message(self) -> Message | None:
        """Give the next message to send, or ``None`` when there is nothing to say."""

    def channel_lost(self, loss: Loss) -> None:
        """The stream has ended, by whoever. Called once, and nothing after it."""


class Channel(Protocol):
    """The transport's side of a stream."""

    @property
    def peer(self) -> str:
        """Who is at the other end, for people: ``10.98.1.2:7777``."""

    def wake(self) -> None:
        """Say that :meth:`Handler.next_message` has something, cheap to repeat."""

    def hand_over(self, handler: Handler) -> None:
        """Let another handler serve the stream from the next call on."""

    def close(self) -> None:
        """End the stream in order; returns at once.

        What :meth:`Handler.next_message` still has goes first, for a bounded time.
        The handler is told by :meth:`Handler.channel_lost`.
        """

    def abort(self) -> None:
        """End the stream now; returns at once. The handler is told."""


Accept = Callable[[Channel], Handler]
"""Called for each stream that arrives; gives the handler that serves it."""


class Server(Protocol):
    """Accepts streams, and answers ``grpc.health.v1`` beside them."""

    @property
    def port(self) -> int:
        """The port that it listens on."""

    def set_serving(self, serving: bool) -> None:
        """Set the answer to health checks."""

    async def close(self) -> None:
        """Stop listening, end what is left of the streams, and wait for both."""
