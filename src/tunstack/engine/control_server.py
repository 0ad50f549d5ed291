"""The engine's side of the control socket; ``control.py`` says what goes over it."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Self

from tunstack.engine.control import (
    MAX_LINE,
    PATIENCE,
    Document,
    decode,
    encode,
    error_document,
)
from tunstack.errors import TunstackError, UsageError

Verb = Callable[[], object]
"""Does what a request asks for, at once, and gives the value of the reply."""


class Conversation:
    """One client's lines, in and out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def on(cls, sock: socket.socket) -> Self:
        """Talk on a connected socket, and own it."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE))

    async def read(self) -> Document | None:
        """Wait for the next line; ``None`` when none will come, or none of any use."""
        try:
            return decode(await self._reader.readuntil())
        except (
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            OSError,
            ValueError,
        ):
            return None

    def write(self, document: Document) -> None:
        """Say something, to somebody who may have gone."""
        if not self._writer.is_closing():
            self._writer.write(encode(document))

    def close(self) -> None:
        """Hang up when what was written is sent."""
        self._writer.close()


class ControlServer:
    """Answers requests on a session's control socket.

    Args:
        verbs: what may be asked for.
        uids: users who may ask. The others are hung up on.
    """

    def __init__(self, verbs: Mapping[str, Verb], uids: frozenset[int]) -> None:
        self._verbs = verbs
        self._uids = uids
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to answer on a listening Unix socket, which the server then owns."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=MAX_LINE
        )

    def close(self) -> None:
        """Stop listening. Replies on their way still arrive."""
        if self._server is not None:
            self._server.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        conversation = Conversation(reader, writer)
        try:
            if _peer_uid(writer.get_extra_info("socket")) not in self._uids:
                return
            async with asyncio.timeout(PATIENCE) as patience:
                while (request := await conversation.read()) is not None:
                    conversation.write(self._reply(request))
                    patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        except TimeoutError:
            return
        finally:
            conversation.close()

    def _reply(self, request: Document) -> Document:
        verb = self._verbs.get(str(request.get("verb")))
        if verb is None:
            # A newer command line, most likely.
            return error_document(
                UsageError(
                    f"this engine does not know {request.get('verb')!r}",
                    hint="`tunstack quit`, then connect again",
                )
            )
        try:
            return {"ok": verb()}
        except TunstackError as error:
            return error_document(error)


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("=iii", credentials)[1]
    return uid
