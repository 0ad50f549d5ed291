"""API servers on loopback, and the way to them."""

import asyncio
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from aiohttp import web

from tests.cluster.fake_api import UNTIL_GONE, FakeApi
from tests.support.keys import make_keys
from tunstack.cluster.access import Access
from tunstack.cluster.api import Api

ON_BOTH_LOOPS = {"test_api.py", "test_port_forward.py", "test_reflector.py"}


def pytest_asyncio_loop_factories(config, item):
    """Run what is about connections on both event loops."""
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name not in ON_BOTH_LOOPS:
        return factories
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A certificate of 127.0.0.1 that signs itself."""
    return make_keys(tmp_path_factory.mktemp("keys"), "IP:127.0.0.1")


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory):
    """A certificate of ``api.internal`` that signs itself."""
    return make_keys(tmp_path_factory.mktemp("others"), "DNS:api.internal")


@pytest_asyncio.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture
async def serve(stack):
    """Serve HTTP with ``handle(request)``; gives the URL."""

    async def start(handle, tls=None):
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, **UNTIL_GONE)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        return f"http{'' if tls is None else 's'}://127.0.0.1:{port}"

    return start


@pytest_asyncio.fixture
async def open_api(stack, keys):
    """Give the :class:`Api` of a URL; what else is said is of :class:`Access`."""
    authority = keys.certificate.read_text()  # the system's take long to load

    async def start(server, timeout=10.0, ca=authority, **said):
        access = Access(
            context="dev",
            namespace="default",
            server=server,
            source="/home/dev/.kube/config, cluster dev",
            ca=ca,
            **said,
        )
        return await stack.enter_async_context(Api(access, timeout=timeout))

    return start


@pytest_asyncio.fixture
async def fake(stack):
    """A cluster's API server."""
    fake = FakeApi()
    fake.url = await fake.start()
    stack.push_async_callback(fake.stop)
    return fake


@pytest_asyncio.fixture
async def api(fake, open_api):
    """The way to :func:`fake`."""
    return await open_api(fake.url)
