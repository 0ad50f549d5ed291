"""Name servers, asked one after the other.

A question goes over UDP from a port and with an identifier of its own, so that nobody can
guess what an answer must look like (RFC 5452); over TCP when the client wants that. What
does not answer the question is not heard: whoever sends it has guessed.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tunstack.dns.message import HEADER, NOTIMP, RCODE, REFUSED, SERVFAIL, TC, is_answer
from tunstack.dns.resolv_conf import parse

PORT = 53

TRIES = 2
"""How often each name server is asked before the time is up."""

_ELSEWHERE = (SERVFAIL, NOTIMP, REFUSED)
"""Another name server may do better (as resolv.conf(5))."""


class NoAnswer(Exception):
    """No name server answered; the text says why.

    Args:
        server: who was asked last; empty when nobody could be.
    """

    def __init__(self, text: str, server: str = "") -> None:
        super().__init__(text)
        self.server = server


@dataclass(frozen=True, slots=True)
class Answered:
    """What a name server said."""

    message: bytes
    server: str
    seconds: float


MakeSocket = Callable[[int, int], Awaitable[socket.socket]]
"""Gives a socket that does not block, of a family and a kind (``socket(2)``)."""


async def plain_socket(family: int, kind: int) -> socket.socket:
    """Make a socket like any other."""
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class Upstream:
    """Asks name servers.

    Args:
        servers: gives their addresses, the first to be asked first.
        patience: the most seconds that one has before the next is asked.
        chase: ask again over TCP what was cut, instead of passing it on so.
        make_socket: where sockets come from.
        where: the servers are named, for people.
    """

    def __init__(
        self,
        servers: Callable[[], Sequence[str]],
        *,
        patience: float = 30.0,
        chase: bool = False,
        make_socket: MakeSocket = plain_socket,
        where: str = "/etc/resolv.conf",
    ) -> None:
        self._servers = servers
        self._patience = patience
        self._chase = chase
        self._make_socket = make_socket
        self._where = where
        self._good: str | None = None
        """Who answered last, when that was not the first."""

    async def ask(self, question: bytes, timeout: float, *, tcp: bool = False) -> Answered:
        """Ask until somebody answers.

        Args:
            question: a DNS message; its identifier comes back in the answer.
            timeout: seconds.
            tcp: do not even try UDP.

        Returns:
            An answer; one that only says that the name server cannot, if all say so.

        Raises:
            NoAnswer: in that time, or because nobody could be asked.
        """
        if len(question) < HEADER.size:
            raise NoAnswer("the question is not a DNS message")
        servers = list(self._servers())
        if not servers:
            raise NoAnswer(f"{self._where} names no name server")
        if self._good in servers:
            servers.sort(key=lambda server: server != self._good)
        patience = min(timeout / (len(servers) * TRIES), self._patience)
        began = monotonic()
        sent = secrets.token_bytes(2) + question[2:]
        cannot: dict[str, Answered] = {}
        failure, asked = "", ""
        for server in servers * TRIES:
            if server in cannot:
                continue
            asked = server
            try:
                answer = await self._exchange(server, sent, tcp, patience)
            except TimeoutError:
                failure = f"{server} did not answer within {timeout:g} s"
                continue
            except OSError as exc:
                failure = f"{server}: {exc.strerror or exc}"
                continue
            message = question[:2] + answer[2:]
            answered = Answered(message, server, monotonic() - began)
            if HEADER.unpack_from(message)[1] & RCODE not in _ELSEWHERE:
                self._good = server
                return answered
            cannot[server] = answered
        if cannot:
            return cannot.popitem()[1]
        raise NoAnswer(failure, asked)

    async def _exchange(
        self, server: str, question: bytes, tcp: bool, patience: float
    ) -> bytes:
        """Ask one name server once.

        Raises:
            TimeoutError: it is silent.
            OSError: it cannot be asked.
        """
        if tcp:
            return await self._ask_tcp(server, question, patience)
        loop = asyncio.get_running_loop()
        family, address = _target(server)
        with await self._make_socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.send(question)
            waiting: asyncio.Future[bytes] = loop.create_future()

            def readable() -> None:
                try:
                    answer = sock.recv(65_535)
                except BlockingIOError:
                    return
                except OSError as exc:
                    if not waiting.done():
                        waiting.set_exception(exc)
                    return
                if not waiting.done() and is_answer(answer, question):
                    waiting.set_result(answer)

            def give_up() -> None:
                if not waiting.done():
                    waiting.set_exception(TimeoutError())

            descriptor = sock.fileno()
            loop.add_reader(descriptor, readable)
            timer = loop.call_later(patience, give_up)
            try:
                answer = await waiting
            finally:
                timer.cancel()
                loop.remove_reader(descriptor)
        if self._chase and HEADER.unpack_from(answer)[1] & TC:
            return await self._ask_tcp(server, question, patience)
        return answer

    async def _ask_tcp(self, server: str, question: bytes, patience: float) -> bytes:
        """RFC 7766: a length of two octets, then the message."""
        loop = asyncio.get_running_loop()
        family, address = _target(server)
        async with asyncio.timeout(patience):
            sock = await self._make_socket(family, socket.SOCK_STREAM)
            try:
                await loop.sock_connect(sock, address)
                reader, writer = await asyncio.open_connection(sock=sock)
            except BaseException:
                sock.close()
                raise
            try:
                writer.write(len(question).to_bytes(2) + question)
                answer = await reader.readexactly(
                    int.from_bytes(await reader.readexactly(2))
                )
            except asyncio.IncompleteReadError as exc:
                raise ConnectionResetError(0, "the answer over TCP was cut short") from exc
            finally:
                writer.close()
        if not is_answer(answer, question):
            raise ConnectionResetError(0, "the answer over TCP is to another question")
        return answer


def _target(server: str) -> tuple[int, tuple[str, int] | tuple[str, int, int, int]]:
    """Give family and address of a name server, which may have a zone (RFC 4007).

    Raises:
        OSError: it is none; ``connect`` would look it up, and wait for that.
    """
    host, _, zone = server.partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError as exc:
        raise ConnectionRefusedError(0, "it is not an address") from exc
    if family == socket.AF_INET:
        return family, (host, PORT)
    try:
        scope = (
            socket.if_nametoindex(zone) if zone and not zone.isdigit() else int(zone or 0)
        )
    except OSError as exc:
        raise ConnectionRefusedError(0, f"there is no interface {zone}") from exc
    return family, (host, PORT, 0, scope)


class ResolvConf:
    """The name servers of a ``resolv.conf(5)``, read again when it changes.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._servers: tuple[str, ...] = ()

    def name_servers(self) -> tuple[str, ...]:
        """Give their addresses; none when the file cannot be read."""
        try:
            state = os.stat(self._path)
            seen = state.st_mtime_ns, state.st_ino
            if seen != self._seen:
                text = self._path.read_text("utf-8", "replace")
                self._servers = parse(text).name_servers
                self._seen = seen
        except OSError:
            self._seen, self._servers = None, ()
        return self._servers
