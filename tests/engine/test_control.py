"""The control socket: the blocking client against the engine's server."""

import asyncio
import os
import socket

import pytest

from tunstack.engine.control import MAX_LINE, Client, EngineGone, error_document
from tunstack.engine.control_server import ControlServer, Conversation
from tunstack.errors import AuthError, HostError, NotConnected, UsageError


@pytest.fixture
async def serve(tmp_path):
    """Serve verbs; gives where."""
    servers = []

    async def start(verbs, *uids):
        path = tmp_path / "control.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        server = ControlServer(verbs, frozenset(uids or [os.getuid()]))
        await server.start(listener)
        servers.append(server)
        return path

    yield start
    for server in servers:
        server.close()


def ask(path, verb):
    with Client.to(path) as client:
        return client.ask(verb)


async def test_a_verb_gives_its_value(serve):
    path = await serve({"status": lambda: {"state": "connected"}})
    assert await asyncio.to_thread(ask, path, "status") == {"state": "connected"}


async def test_one_connection_takes_many_requests(serve):
    path = await serve({"status": lambda: 1, "quit": lambda: None})

    def talk():
        with Client.to(path) as client:
            return [client.ask("status"), client.ask("quit"), client.ask("status")]

    assert await asyncio.to_thread(talk) == [1, None, 1]


async def test_an_error_arrives_as_itself(serve):
    def refuse():
        raise AuthError("not you", hint="ask somebody else")

    path = await serve({"status": refuse})
    with pytest.raises(AuthError) as caught:
        await asyncio.to_thread(ask, path, "status")
    assert (str(caught.value), caught.value.hint) == ("not you", "ask somebody else")


async def test_an_unknown_verb_is_refused(serve):
    path = await serve({})
    with pytest.raises(UsageError, match="frobnicate"):
        await asyncio.to_thread(ask, path, "frobnicate")


async def test_a_stranger_is_hung_up_on(serve):
    path = await serve({"status": lambda: 1}, -1)
    with pytest.raises(EngineGone):
        await asyncio.to_thread(ask, path, "status")


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"[]\n", b"{\n", b"\xff\xfe\n", b"x" * (MAX_LINE + 2), b'{"verb": 1'],
    ids=["empty", "list", "half", "not UTF-8", "too long", "no end"],
)
async def test_garbage_is_hung_up_on_and_others_are_served(serve, garbage):
    path = await serve({"status": lambda: 1})
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(garbage)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert await asyncio.to_thread(ask, path, "status") == 1


def test_nobody_listens(tmp_path):
    with pytest.raises(NotConnected):
        Client.to(tmp_path / "control.sock")


def test_an_engine_that_says_nothing_is_given_up():
    ours, theirs = socket.socketpair()
    with Client(ours) as client, theirs, pytest.raises(HostError, match="nothing"):
        client.reply(0.01)


def test_an_engine_that_ends_is_noticed():
    ours, theirs = socket.socketpair()
    theirs.close()
    with Client(ours) as client:
        with pytest.raises(EngineGone):
            client.reply(None)
        with pytest.raises(EngineGone):
            client.ask("status")


async def test_progress_comes_before_the_value():
    ours, theirs = socket.socketpair()
    conversation = await Conversation.on(theirs)
    conversation.write({"progress": "one"})
    conversation.write({"progress": "two"})
    conversation.write({"ok": 3})
    conversation.write(error_document(HostError("later")))
    steps = []
    with Client(ours) as client:
        assert client.reply(5, steps.append) == 3
        assert steps == ["one", "two"]
        with pytest.raises(HostError, match="later"):
            client.reply(5)
    assert await conversation.read() is None
    conversation.close()
