"""The engine's side of the control socket; ``control.py`` says what goes over it."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from inspect import isawaitable
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

Verb = Callable[..., object]
"""Does what a request asks for, with the request's other members as arguments. Gives the
value of the reply; or an awaitable of it; or, asynchronously, one value after the other,
which are sent as progress until there are no more or the client hangs up."""


_END = object()


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

    @property
    def unread(self) -> int:
        """Octets that the other end has not read yet, beyond what the kernel holds."""
        return self._writer.transport.get_write_buffer_size()

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
                    patience.reschedule(None)
                    await self._reply(conversation, request)
                    patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        except (TimeoutError, asyncio.CancelledError):
            # Cancelled with the loop: the streams of asyncio would log it as a failure.
            return
        finally:
            conversation.close()

    async def _reply(self, conversation: Conversation, request: Document) -> None:
        name = str(request.pop("verb", None))
        verb = self._verbs.get(name)
        if verb is None:
            # A newer command line, most likely.
            error = UsageError(
                f"this engine does not know {name!r}",
                hint="`tunstack quit`, then connect again",
            )
            conversation.write(error_document(error))
            return
        try:
            value = verb(**request)
            if isinstance(value, AsyncIterator):
                await _stream(conversation, value)
                value = None
            elif isawaitable(value):
                value = await value
        except TypeError as exc:
            error = UsageError(f"this engine does not understand {name!r}: {exc}")
            conversation.write(error_document(error))
        except TunstackError as exc:
            conversation.write(error_document(exc))
        else:
            conversation.write({"ok": value})


async def _stream(conversation: Conversation, values: AsyncIterator[object]) -> None:
    """Send one value after the other, until the client says something or hangs up.

    To a client that does not read nothing is sent.
    """
    gone = asyncio.ensure_future(conversation.read())
    following = asyncio.ensure_future(anext(values, _END))
    try:
        while True:
            await asyncio.wait((gone, following), return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or (value := following.result()) is _END:
                return
            if conversation.unread < MAX_LINE:
                conversation.write({"progress": value})
            following = asyncio.ensure_future(anext(values, _END))
    finally:
        for task in (gone, following):
            task.cancel()
        if isinstance(values, AsyncGenerator):
            with suppress(asyncio.CancelledError, RuntimeError):
                await asyncio.wait((following,))
                await values.aclose()


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("=iii", credentials)[1]
    return uid
