"""The engine's control socket: lines of JSON, and the client's side of them.

A client sends one request a line, ``{"verb": ...}`` with its arguments, and gets
replies, one a line: ``{"progress": value}`` any number of times, then ``{"ok": value}``
or ``{"error": {"code", "message", "hint"}}``. A line is at most :data:`MAX_LINE`
octets.

Verbs on the session's socket: ``status`` (the document of ``tunstack status --json``),
``quit``, ``dns_query`` with ``name`` and ``type`` (a number), and ``dns_log``, whose
progress is one document a question until the client hangs up. The ``connect`` command
has a socket of its own to the engine it started; ``engine/daemon.py`` says what goes
over it.

The command line waits for this module to be imported: nothing heavy belongs here.
"""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunstack._version import PRODUCT, PROTOCOL
from tunstack.errors import (
    HostError,
    NotConnected,
    TunnelError,
    TunstackError,
    from_code,
)
from tunstack.host.paths import socket_address

MAX_LINE = 4 * 1024 * 1024
"""Octets. A status with thousands of routes and a chain of authorities fit."""

PATIENCE = 5.0
"""Seconds an engine may take to answer anything but ``connect``."""

Document = dict[str, Any]


class EngineGone(TunnelError):
    """The engine ended without saying why."""

    def __init__(self) -> None:
        super().__init__(
            "the engine has ended without a word", hint="see its log, and connect again"
        )


def encode(document: Document) -> bytes:
    """Make a line of a document."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Document:
    """Read a line.

    Raises:
        ValueError: it is not a JSON object.
    """
    document = json.loads(line)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def error_document(error: TunstackError) -> Document:
    """Say an error to the other end; :meth:`Client.reply` raises it there."""
    return {"error": {"code": error.exit_code, "message": str(error), "hint": error.hint}}


def blank_status(name: str) -> Document:
    """Make the status document of a session that is not there: every key, no value."""
    return {
        "state": "disconnected",
        "name": name,
        "client": {"version": PRODUCT, "protocol": PROTOCOL},
        "engine": None,
        "helper": None,
        "manager": None,
        "kubernetes": None,
        "device": None,
        "routes": None,
        "dns": None,
        "flows": None,
        "traffic": None,
        "drops": None,
        "fastpath": None,
        "log": None,
    }


def no_names() -> Document:
    """Make the part of the status document of a session without names."""
    return {
        "mode": "none",
        "by": None,
        "server": None,
        "domains": [],
        "search": [],
        "skipped": [],
        "name_servers": [],
        "resolver": None,
        "questions": {},
        "cached": 0,
    }


class Client:
    """A blocking client of one engine. A context manager that hangs up.

    Args:
        sock: a connected stream socket, which the client owns from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = bytearray()

    @classmethod
    def to(cls, path: Path) -> Self:
        """Connect to the session that listens on ``path``.

        Raises:
            NotConnected: nobody listens there, or not to us.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        try:
            with socket_address(path) as address:
                sock.connect(address)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            sock.close()
            raise NotConnected("not connected") from exc
        except OSError as exc:
            sock.close()
            raise HostError(f"{path}: {exc.strerror or exc}") from exc
        return cls(sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def ask(self, verb: str, **arguments: object) -> Any:
        """Send a request and wait for its value.

        Raises:
            TunstackError: what the engine answered, or that it did not.
        """
        self.send(verb, **arguments)
        return self.reply(PATIENCE)

    def send(self, verb: str, **arguments: object) -> None:
        """Send a request. Replies are read with :meth:`reply`.

        Raises:
            EngineGone: it has hung up.
        """
        try:
            self._sock.sendall(encode({"verb": verb, **arguments}))
        except OSError as exc:
            raise EngineGone from exc

    def reply(
        self,
        patience: float | None,
        progress: Callable[[Any], None] = lambda _: None,
        renew: Callable[[], Document] | None = None,
    ) -> Any:
        """Wait for the value of a request.

        Args:
            patience: seconds without a word after which the engine is given up.
            progress: called with each step that the engine reports meanwhile.
            renew: gives new credentials, when the engine asks for them; see
                ``daemon.py``.

        Raises:
            EngineGone: it has hung up.
            HostError: it said nothing for too long, or something that is no reply.
            TunstackError: what the engine answered.
        """
        while True:
            document = self._read(patience)
            if "renew" in document and renew is not None:
                self._answer(renew)
                continue
            if "ok" in document:
                return document["ok"]
            if "error" in document:
                error = document["error"]
                raise from_code(error["code"], error["message"], error["hint"])
            progress(document["progress"])

    def fileno(self) -> int:
        """Give the descriptor that turns readable when there is a reply."""
        return self._sock.fileno()

    def _answer(self, renew: Callable[[], Document]) -> None:
        try:
            answer = {"access": renew()}
        except TunstackError as error:
            answer = error_document(error)
        try:
            self._sock.sendall(encode(answer))
        except OSError as exc:
            raise EngineGone from exc

    def _read(self, patience: float | None) -> Document:
        self._sock.settimeout(patience)
        while b"\n" not in self._received:
            try:
                piece = self._sock.recv(65_536)
            except TimeoutError as exc:
                raise HostError(
                    f"the engine has said nothing for {patience:.0f} s"
                ) from exc
            except OSError as exc:
                raise EngineGone from exc
            if not piece:
                raise EngineGone
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return decode(bytes(line))
