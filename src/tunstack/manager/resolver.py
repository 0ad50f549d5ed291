"""DNS questions for the cluster's resolver, as raw messages.

A question goes over UDP from a port and with an identifier of its own, so that nobody
can guess what an answer must look like, to each name server in turn; over TCP when the
answer was cut.
"""

import asyncio
import os
import secrets
import socket
import struct
from pathlib import Path

_HEADER = struct.Struct("!HHHHHH")
"""Identifier, flags, counts of the four sections: RFC 1035, section 4.1.1."""

_RESPONSE = 0x8000
_TRUNCATED = 0x0200
_PORT = 53
_TRIES = 2
"""How often each name server is asked before the time is up."""


class NoAnswer(Exception):
    """No name server answered; the text says why."""


class Resolver:
    """The name servers of a ``resolv.conf``, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: int | None = None
        self._servers: list[str] = []

    async def ask(self, question: bytes, timeout: float) -> bytes:
        """Ask the cluster.

        Args:
            question: a DNS message; its identifier comes back in the answer.
            timeout: seconds.

        Raises:
            NoAnswer: in that time, or because nobody could be asked.
        """
        if len(question) < _HEADER.size:
            raise NoAnswer("the question is not a DNS message")
        servers = self._name_servers()
        if not servers:
            raise NoAnswer(f"{self._path} names no name server")
        identifier = secrets.token_bytes(2)
        failure = f"{servers[0]} did not answer within {timeout:g} s"
        patience = timeout / (len(servers) * _TRIES)
        for server in servers * _TRIES:
            try:
                async with asyncio.timeout(patience):
                    answer = await _ask(server, identifier + question[2:])
                return question[:2] + answer[2:]
            except TimeoutError:
                continue
            except OSError as exc:
                failure = f"{server}: {exc.strerror or exc}"
        raise NoAnswer(failure)

    def _name_servers(self) -> list[str]:
        try:
            changed = os.stat(self._path).st_mtime_ns
            if changed != self._seen:
                text = self._path.read_text("utf-8", "replace")
                words = (line.split() for line in text.splitlines())
                self._servers = [
                    line[1] for line in words if len(line) > 1 and line[0] == "nameserver"
                ]
                self._seen = changed
        except OSError as exc:
            raise NoAnswer(f"{self._path}: {exc.strerror}") from exc
        return self._servers


async def _ask(server: str, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, _PORT))
        sock.send(question)
        while True:
            answer = await loop.sock_recv(sock, 65_535)
            if _answers(answer, question):
                break
    if _HEADER.unpack_from(answer)[1] & _TRUNCATED:
        return await _ask_by_tcp(server, question)
    return answer


def _answers(answer: bytes, question: bytes) -> bool:
    """Whether a message is an answer to the question, and nobody's guess at one."""
    return (
        len(answer) >= _HEADER.size
        and answer[:2] == question[:2]
        and bool(_HEADER.unpack_from(answer)[1] & _RESPONSE)
    )


async def _ask_by_tcp(server: str, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, _PORT)
    try:
        writer.write(struct.pack("!H", len(question)) + question)
        length = int.from_bytes(await reader.readexactly(2))
        answer = await reader.readexactly(length)
    except asyncio.IncompleteReadError as exc:
        raise ConnectionResetError(0, "the answer over TCP was cut short") from exc
    finally:
        writer.close()
    if not _answers(answer, question):
        raise ConnectionResetError(0, "the answer over TCP is to another question")
    return answer
