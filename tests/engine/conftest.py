"""Managers on loopback, the real one and one that a test scripts."""

import asyncio
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.support.fake_manager import FakeManager
from tests.support.proxy import Proxy
from tunstack.config import Config, TimeoutsConfig, TunnelConfig
from tunstack.engine.session import connect
from tunstack.manager.config import ManagerConfig
from tunstack.manager.server import Manager


def pytest_asyncio_loop_factories(config, item):
    """Run everything on both event loops."""
    factories = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture
async def start_manager(stack):
    """Start a manager; gives it and its address."""

    async def start(port=0, **settings):
        manager = Manager(ManagerConfig(port=port, **settings))
        host, port = await manager.start()
        stack.push_async_callback(manager.drain, 0)
        return manager, f"{host}:{port}"

    return start


@pytest_asyncio.fixture
async def manager_address(start_manager):
    _, address = await start_manager()
    return address


@pytest_asyncio.fixture
async def fake_manager(stack):
    """Start a manager that follows a script; gives its address."""

    async def start(script, **settings):
        fake = FakeManager(script, **settings)
        await fake.start()
        stack.push_async_callback(fake.stop)
        return fake.address

    return start


@pytest_asyncio.fixture
async def start_proxy(stack):
    """Start a proxy in front of an address; gives it and its own address."""

    async def start(target):
        proxy = Proxy(target)
        address = await proxy.start()
        stack.push_async_callback(proxy.close)
        return proxy, address

    return start


@pytest_asyncio.fixture
async def session(manager_address):
    async with connect(manager_address) as session:
        yield session


@pytest_asyncio.fixture
async def serve(stack):
    """Serve TCP connections with ``handle(reader, writer)``; gives the port."""

    async def start(handle):
        async def handled(reader, writer):
            try:
                await handle(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handled, "127.0.0.1", 0)
        stack.callback(server.close)
        return server.sockets[0].getsockname()[1]

    return start


async def echo(reader, writer):
    """Handle a connection: say everything back."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest_asyncio.fixture
async def echo_port(serve):
    return await serve(echo)


@pytest.fixture
def settings():
    """Make settings whose waits are short."""

    def make(*, patience=10.0, **tunnel):
        return Config(
            tunnel=TunnelConfig(reconnect_first=0.01, reconnect_most=0.05, **tunnel),
            timeouts=TimeoutsConfig(manager_connect=patience),
        )

    return make
