"""What probes are told, on a port without flows."""

import asyncio
import socket
import urllib.error
import urllib.request

import pytest

from tests.manager.conftest import RESET
from tunstack.cluster.discovery import Found
from tunstack.errors import HostError


async def get(manager, path):
    url = f"http://127.0.0.1:{manager.health_port}{path}"

    def read():
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(read)


async def test_a_manager_is_ready_until_it_drains(
    start_manager, new_client, listener, accept
):
    manager, address = await start_manager(health=("127.0.0.1", 0))
    assert await get(manager, "/healthz") == (200, "ok\n")
    assert await get(manager, "/readyz") == (200, "ok\n")
    client = await new_client(address)
    await client.hello()
    flow = await client.connect(listener.getsockname())
    far = await accept()
    draining = asyncio.ensure_future(manager.drain(10))
    await client.body("drain")
    assert (await get(manager, "/readyz"))[0] == 503
    assert (await get(manager, "/healthz"))[0] == 200
    await client.frames((RESET, flow, b"\x0a"))
    far.close()
    await draining


async def test_a_laptop_is_told_which_cluster_it_is(start_manager):
    manager, _ = await start_manager(health=("127.0.0.1", 0))
    assert await get(manager, "/identity") == (200, "")
    manager._cluster_changed(Found(identity="the uid"))
    assert await get(manager, "/identity") == (200, "the uid")


async def test_nothing_listens_unless_it_is_said(start_manager):
    manager, _ = await start_manager()
    assert manager.health_port is None


async def test_a_port_that_is_taken_is_named(start_manager):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(HostError, match=f"{address[0]}:{address[1]}"):
            await start_manager(health=address)
