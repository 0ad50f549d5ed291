"""Several sessions with one cluster: shared load, and managers that go."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import pytest_asyncio

from tests.engine.conftest import echo
from tunstack.cluster.discovery import Found
from tunstack.config import Config, TunnelConfig
from tunstack.engine.link import parse_endpoint
from tunstack.engine.links import Links
from tunstack.engine.streams import open_stream

LOOPBACK = ip_address("127.0.0.1")

CONFIG = Config(tunnel=TunnelConfig(reconnect_first=0.01, reconnect_most=0.1))


class Route:
    """A way to whichever manager a test says, by address."""

    elsewhere = True
    sessions = 1

    def __init__(self, address):
        self.address = address
        self.asked = []

    async def open(self, last):
        self.asked.append(last)
        return parse_endpoint(self.address, tls_ca=None, insecure=False)

    async def addresses(self):
        return frozenset({LOOPBACK})

    async def close(self):
        pass


async def until(condition):
    """Wait until something holds; not everything here is told to listeners."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def links_to(way, count=1):
    links = Links(way, token=None, config=CONFIG, count=count)
    await links.start()
    try:
        yield links
    finally:
        await links.close()


@pytest_asyncio.fixture
async def target(serve):
    return await serve(echo)


async def open_echo(links, port):
    return await open_stream(links, LOOPBACK, port, credit=1 << 20, limit=1 << 16)


async def answers(stream, text=b"hello"):
    reader, writer = stream
    writer.write(text)
    async with asyncio.timeout(10):
        return await reader.readexactly(len(text)) == text


async def test_flows_are_spread_over_sessions(start_manager, target):
    manager, address = await start_manager()
    async with links_to(Route(address), count=3) as links:
        await until(lambda: [s.state for s in links.all] == ["connected"] * 3)
        assert manager.session_count == 3
        streams = [await open_echo(links, target) for _ in range(9)]
        assert [len(link.mux.flows) for link in links.all] == [3, 3, 3]
        assert all([await answers(stream) for stream in streams])


async def test_a_drained_manager_keeps_its_flows_and_another_gets_the_new(
    start_manager, target
):
    first, address = await start_manager()
    second, other = await start_manager()
    way = Route(address)
    async with links_to(way) as links:
        old = await open_echo(links, target)
        assert await answers(old)
        way.address = other
        gone = asyncio.ensure_future(first.drain(10))
        await until(lambda: second.session_count == 1)
        await until(lambda: links.manager.address == other)
        new = await open_echo(links, target)
        assert await answers(new)
        assert await answers(old, b"still")
        assert (first.session_count, second.session_count) == (1, 1)
        # The old session ends with its last flow, and so does the wait of its manager.
        old[1].close()
        await gone
        await until(lambda: len(links.all) == 1)
        assert await answers(new)
        assert links.state == "connected"


async def test_flows_that_outlive_a_drained_manager_are_reset(start_manager, target):
    first, address = await start_manager()
    _, other = await start_manager()
    way = Route(address)
    async with links_to(way) as links:
        reader, _ = stream = await open_echo(links, target)
        assert await answers(stream)
        way.address = other
        await first.drain(0.05)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: links.state == "connected" and len(links.all) == 1)
        assert await answers(await open_echo(links, target))


async def test_what_is_opened_while_a_manager_goes_is_opened_at_the_next(
    start_manager, target
):
    first, address = await start_manager()
    _, other = await start_manager()
    way = Route(address)
    async with links_to(way) as links:
        held = await open_echo(links, target)
        assert await answers(held)
        way.address = other
        # Refused by the first, which drains already; nobody here knows of it yet.
        gone = asyncio.ensure_future(first.drain(10))
        await asyncio.sleep(0)
        assert links.all[0].state == "connected"
        streams = await asyncio.gather(*(open_echo(links, target) for _ in range(5)))
        assert all([await answers(stream) for stream in streams])
        held[1].close()
        await gone


async def test_a_manager_without_a_stand_in_is_kept(start_manager, target):
    manager, address = await start_manager()
    way = Route(address)
    way.elsewhere = False
    async with links_to(way) as links:
        stream = await open_echo(links, target)
        for session in manager._sessions.values():
            session.drain(10)
        assert await answers(stream)
        assert len(links.all) == 1


async def test_a_session_comes_back_to_the_pod_that_has_it(
    start_manager, start_proxy, target
):
    _, address = await start_manager()
    proxy, through = await start_proxy(address)
    way = Route(through)
    async with links_to(way) as links:
        stream = await open_echo(links, target)
        proxy.cut()
        await until(lambda: links.state == "reconnecting")
        await until(lambda: links.state == "connected")
        assert await answers(stream)
    assert way.asked[0] is None
    assert set(way.asked[1:]) == {through}


async def test_namespaces_that_come_and_go_are_followed(start_manager):
    manager, address = await start_manager()
    async with links_to(Route(address)) as links:
        manager._cluster_changed(Found(namespaces=("default", "old"), identity="uid"))
        await until(lambda: links.cluster.namespaces == ("default", "old"))
        # Now nothing but the namespaces is another.
        manager._cluster_changed(Found(namespaces=("default", "new"), identity="uid"))
        await until(lambda: links.cluster.namespaces == ("default", "new"))
        assert links.cluster.identity == "uid"


async def test_a_question_outlives_the_session_that_it_was_asked_in(
    start_manager, fake_manager
):
    asked = asyncio.Event()

    async def silent(conversation):
        await conversation.welcome()
        while True:
            said = await conversation.hear()
            if said.WhichOneof("body") == "dns_question":
                asked.set()
                await conversation.say(drain={"timeout": 0, "reason": "for the test"})
                await conversation.say(goodbye={"code": 7, "reason": "gone"})

    async def resolver(conversation):
        await conversation.welcome()
        while True:
            said = await conversation.hear()
            if said.WhichOneof("body") == "dns_question":
                answer = {"id": said.dns_question.id, "message": b"an answer"}
                await conversation.say(dns_answer=answer)

    way = Route(await fake_manager(silent))
    other = await fake_manager(resolver)
    async with links_to(way) as links:
        way.address = other
        assert (await links.ask(b"a question", 10)).message == b"an answer"
        assert asked.is_set()
