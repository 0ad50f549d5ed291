"""Through an API server to a manager: which pod, which credentials, either transport."""

import asyncio
import struct
import time
from dataclasses import replace

import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web

from tests.engine.conftest import echo
from tests.engine.test_links import answers, open_echo, until
from tunstack.cluster.access import Access
from tunstack.cluster.names import COMPONENT, LABEL, PORT
from tunstack.cluster.pods import NotInstalled, NotReady
from tunstack.config import Config, TimeoutsConfig, TunnelConfig
from tunstack.engine.kubernetes import ThroughKubernetes
from tunstack.engine.links import Links
from tunstack.errors import AuthError, ClusterError


class ApiServer:
    """Lists pods of the manager, and forwards to the managers behind them."""

    def __init__(self):
        self.pods = {}
        """Name to the manager's address; ``None`` while it is not ready."""
        self.token = "first"
        self.forwarded = []
        self.url = ""
        self._transports = set()
        application = web.Application()
        root = "/api/v1/namespaces/tunstack/pods"
        application.add_routes(
            [
                web.get(root, self._list),
                web.get(f"{root}/{{pod}}/portforward", self._forward),
            ]
        )
        self._runner = web.AppRunner(application, shutdown_timeout=0)

    async def start(self):
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def cut(self):
        """Break every port-forward."""
        transports, self._transports = self._transports, set()
        for transport in transports:
            transport.abort()

    async def stop(self):
        await self.cut()
        await self._runner.cleanup()

    def _check(self, request):
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise web.HTTPUnauthorized(text='{"message": "Unauthorized"}')

    async def _list(self, request):
        self._check(request)
        assert request.query["labelSelector"] == f"{LABEL}=tunstack,{COMPONENT}=manager"
        items = [_pod(name, address is not None) for name, address in self.pods.items()]
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})

    async def _forward(self, request):
        self._check(request)
        name = request.match_info["pod"]
        assert request.query["ports"] == str(PORT)
        self.forwarded.append(name)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), max_msg_size=0)
        await socket.prepare(request)
        self._transports.add(request.transport)
        for channel in (b"\0", b"\1"):
            await socket.send_bytes(channel + struct.pack("<H", PORT))
        host, _, port = self.pods[name].rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await socket.send_bytes(b"\1connect: connection refused")
            await socket.close()
            return socket
        back = asyncio.ensure_future(_back(reader, socket))
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                writer.write(message.data[1:])
        writer.close()
        back.cancel()
        self._transports.discard(request.transport)
        return socket


async def _back(reader, socket):
    while data := await reader.read(65536):
        await socket.send_bytes(b"\0" + data)
    await socket.close()


def _pod(name, ready):
    condition = {"type": "Ready", "status": str(ready), "message": "containers not ready"}
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [condition]},
    }


@pytest_asyncio.fixture
async def api(stack):
    server = ApiServer()
    await server.start()
    stack.push_async_callback(server.stop)
    return server


def access_to(api, **fields):
    return Access(
        context="test",
        namespace="default",
        server=api.url,
        source="a kubeconfig",
        headers=(("Authorization", "Bearer first"),),
        **fields,
    )


def settings(transport="lean", **timeouts):
    return Config(
        tunnel=TunnelConfig(transport=transport, reconnect_first=0.01, reconnect_most=0.05),
        timeouts=TimeoutsConfig(**timeouts),
    )


@pytest_asyncio.fixture
async def connect(stack, api):
    async def start(config=None, renew=None, count=1, **fields):
        config = config or settings()
        way = ThroughKubernetes(access_to(api, **fields), renew, config)
        links = Links(way, token=None, config=config, count=count)
        stack.push_async_callback(links.close)
        await links.start()
        return links, way

    return start


@pytest_asyncio.fixture
async def target(serve):
    return await serve(echo)


@pytest.mark.parametrize("transport", ["lean", "stock"])
async def test_connections_go_through_the_api_server(
    start_manager, api, connect, target, transport
):
    _, api.pods["one"] = await start_manager()
    links, _ = await connect(settings(transport))
    assert links.manager.address == "tunstack/one"
    for text in (b"hello", b"x" * 300_000):
        stream = await open_echo(links, target)
        assert await answers(stream, text)


@pytest.mark.parametrize("transport", ["lean", "stock"])
async def test_a_broken_port_forward_is_replaced_to_the_same_pod(
    start_manager, api, connect, target, transport
):
    _, api.pods["one"] = await start_manager()
    links, _ = await connect(settings(transport))
    _, api.pods["two"] = await start_manager()
    stream = await open_echo(links, target)
    for _ in range(3):
        await api.cut()
        await until(lambda: links.state == "reconnecting")
        await until(lambda: links.state == "connected")
        assert await answers(stream)
    assert set(api.forwarded) == {"one"}


async def test_another_pod_is_taken_when_the_last_is_gone(start_manager, api, connect):
    _, api.pods["one"] = await start_manager()
    links, _ = await connect()
    del api.pods["one"]
    _, api.pods["two"] = await start_manager()
    await api.cut()
    await until(lambda: links.manager.address == "tunstack/two")


async def test_a_pod_is_awaited_until_it_is_ready(start_manager, api, connect):
    api.pods["one"] = None
    coming = asyncio.ensure_future(connect())
    _, address = await start_manager()
    await asyncio.sleep(0)
    assert not coming.done()
    api.pods["one"] = address
    links, _ = await coming
    assert links.state == "connected"


async def test_what_is_missing_is_named(api, connect):
    with pytest.raises(NotInstalled, match="tunstack"):
        await connect()
    api.pods["one"] = None
    with pytest.raises(NotReady, match=r"containers not ready.*timeouts\.pod_ready"):
        await connect(settings(pod_ready=0.01))


async def test_a_pod_that_does_not_listen_says_so(api, connect, unused_tcp_port):
    api.pods["one"] = f"127.0.0.1:{unused_tcp_port}"
    with pytest.raises(Exception, match="connection refused") as caught:
        await connect()
    assert caught.value.exit_code == 7


async def test_credentials_that_are_not_taken_are_renewed(start_manager, api, connect):
    _, api.pods["one"] = await start_manager()
    asked = []

    async def renew():
        asked.append(api.token)
        return replace(access_to(api), headers=(("Authorization", f"Bearer {api.token}"),))

    links, way = await connect(renew=renew)
    assert asked == []
    api.token = "second"
    await api.cut()
    await until(lambda: len(api.forwarded) == 2 and links.state == "connected")
    assert asked == ["second"]
    assert not way.expired


async def test_credentials_are_renewed_before_they_expire(start_manager, api, connect):
    _, api.pods["one"] = await start_manager()
    asked = []

    async def renew():
        asked.append(1)
        return access_to(api, expires=time.time() + 3600)

    await connect(renew=renew, expires=time.time() + 1)
    assert asked == [1]


async def test_without_new_credentials_the_error_says_what_to_do(
    start_manager, api, connect
):
    _, api.pods["one"] = await start_manager()

    async def renew():
        raise AuthError("nobody has any", hint="connect again")

    api.token = "second"
    with pytest.raises(AuthError, match=r"expired.*nobody has any") as caught:
        await connect(renew=renew)
    assert caught.value.hint == "connect again"
    with pytest.raises(AuthError, match="expired"):
        await connect()


async def test_the_api_servers_addresses_are_looked_up(api):
    way = ThroughKubernetes(access_to(api), None, settings())
    assert {str(address) for address in await way.addresses()} == {"127.0.0.1"}
    await way.close()
    elsewhere = replace(access_to(api), server="https://no.such.name.invalid")
    way = ThroughKubernetes(elsewhere, None, settings())
    with pytest.raises(ClusterError, match=r"no\.such\.name\.invalid"):
        await way.addresses()
    await way.close()
