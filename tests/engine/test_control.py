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


def ask(path, verb, **arguments):
    with Client.to(path) as client:
        return client.ask(verb, **arguments)


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


async def test_arguments_arrive_by_their_names(serve):
    path = await serve({"dns_query": lambda name, type: [type, name]})
    answer = await asyncio.to_thread(ask, path, "dns_query", name="echo", type=28)
    assert answer == [28, "echo"]


async def test_a_verb_may_take_its_time_and_others_are_served_meanwhile(serve):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(name):
        begun.set()
        await go_on.wait()
        return name

    path = await serve({"dns_query": slow, "status": lambda: 1})
    waiting = asyncio.ensure_future(asyncio.to_thread(ask, path, "dns_query", name="echo"))
    await begun.wait()
    assert await asyncio.to_thread(ask, path, "status") == 1
    go_on.set()
    assert await waiting == "echo"


async def test_an_error_of_a_slow_verb_arrives_as_itself(serve):
    async def refuse():
        await asyncio.sleep(0)
        raise HostError("no names here", hint="connect again")

    path = await serve({"dns_query": refuse})
    with pytest.raises(HostError, match="no names here"):
        await asyncio.to_thread(ask, path, "dns_query")


@pytest.mark.parametrize(
    "arguments", [{}, {"nme": "echo"}, {"name": "echo", "more": 1}, {"name": 7}]
)
@pytest.mark.parametrize("slow", [False, True])
async def test_wrong_arguments_are_refused_and_the_connection_goes_on(
    serve, arguments, slow
):
    def query(name):
        return name.upper() if isinstance(name, str) else name + "."

    async def slow_query(name):
        return query(name)

    path = await serve({"dns_query": slow_query if slow else query})

    def talk():
        with Client.to(path) as client:
            with pytest.raises(UsageError, match="dns_query"):
                client.ask("dns_query", **arguments)
            return client.ask("dns_query", name="echo")

    assert await asyncio.to_thread(talk) == "ECHO"


async def test_values_one_after_the_other_are_progress(serve):
    async def log(count):
        for number in range(count):
            yield {"number": number}

    path = await serve({"dns_log": log, "status": lambda: 1})
    numbers = []

    def talk():
        with Client.to(path) as client:
            client.send("dns_log", count=3)
            assert client.reply(5, numbers.append) is None
            return client.ask("status")

    assert await asyncio.to_thread(talk) == 1
    assert numbers == [{"number": 0}, {"number": 1}, {"number": 2}]


async def test_an_error_ends_what_comes_one_after_the_other(serve):
    async def log():
        yield 1
        raise HostError("the session has lost its names")

    path = await serve({"dns_log": log, "status": lambda: 1})
    seen = []

    def talk():
        with Client.to(path) as client:
            client.send("dns_log")
            with pytest.raises(HostError, match="lost its names"):
                client.reply(5, seen.append)
            return client.ask("status")

    assert (await asyncio.to_thread(talk), seen) == (1, [1])


class Log:
    """A verb that gives one value, waits for ever, and knows when it is over."""

    def __init__(self):
        self.closed = asyncio.Event()

    async def __call__(self):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.closed.set()


@pytest.mark.parametrize("says", [None, b'{"verb": "status"}\n', b"garbage\n"])
async def test_a_client_that_hangs_up_or_says_something_ends_it(serve, says):
    log = Log()
    path = await serve({"dns_log": log, "status": lambda: 1})
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'{"verb": "dns_log"}\n')
    assert await reader.readline() == b'{"progress":1}\n'
    assert not log.closed.is_set()
    if says is None:
        writer.close()
    else:
        writer.write(says)
    async with asyncio.timeout(5):
        await log.closed.wait()
    writer.close()
    assert await asyncio.to_thread(ask, path, "status") == 1


async def test_to_a_client_that_does_not_read_nothing_more_is_sent(serve):
    """It costs no more than one line and what the kernel holds, however much there is."""
    values, size = 200, MAX_LINE // 20
    told = asyncio.Event()

    async def log():
        for _ in range(values):
            yield "x" * size
            await asyncio.sleep(0)
        told.set()

    path = await serve({"dns_log": log})
    reader, writer = await asyncio.open_unix_connection(path, limit=2 * MAX_LINE)
    writer.transport.pause_reading()
    writer.write(b'{"verb": "dns_log"}\n')
    async with asyncio.timeout(20):
        await told.wait()  # it is not held up
        writer.transport.resume_reading()
        lines = 0
        while b"progress" in await reader.readline():
            lines += 1
    assert 20 <= lines < 60
    writer.close()


async def test_the_end_of_the_engine_ends_what_comes_one_after_the_other(tmp_path, caplog):
    """And nothing is logged of it: `quit` while somebody looks is no failure."""
    path = tmp_path / "control.sock"

    def live():
        async def engine():
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
            server = ControlServer({"dns_log": Log()}, frozenset([os.getuid()]))
            await server.start(listener)
            await asyncio.to_thread(follow)
            server.close()

        asyncio.run(engine())

    clients = []

    def follow():
        clients.append(Client.to(path))
        clients[0].send("dns_log")
        with pytest.raises(ZeroDivisionError):
            clients[0].reply(5, lambda value: value / 0)

    await asyncio.to_thread(live)
    with pytest.raises(EngineGone):
        clients[0].reply(5)
    clients[0].close()
    assert caplog.records == []


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
