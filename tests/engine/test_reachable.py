"""Is the cluster there without us? Whoever answers has to be of it."""

import asyncio
from ipaddress import ip_network

import pytest

from tunstack.engine.link import Cluster
from tunstack.engine.reachable import MOST, reachable

NETWORK = ip_network("127.0.0.0/8")


@pytest.fixture
def answering(serve):
    async def start(answer):
        async def handle(reader, writer):
            assert (await reader.readline()).startswith(b"GET /identity ")
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + answer)

        return await serve(handle)

    return start


def cluster(*ports, host="127.0.0.1"):
    return Cluster(
        subnets=(NETWORK, ip_network("10.0.0.0/8")),
        probes=tuple((host, port) for port in ports),
        identity="the uid",
    )


async def test_a_network_whose_manager_answers_needs_no_route(answering):
    port = await answering(b"the uid")
    assert await reachable(cluster(port), 5) == (NETWORK,)


@pytest.mark.parametrize("answer", [b"", b"another", b"not the uid", b"x" * 100_000])
async def test_somebody_else_at_the_same_address_is_not_the_cluster(answering, answer):
    port = await answering(answer)
    assert await reachable(cluster(port), 5) == ()


async def test_nobody_and_silence_are_no_answers(unused_tcp_port, serve):
    async def silent(reader, writer):
        await reader.read()
        await asyncio.Event().wait()

    assert await reachable(cluster(unused_tcp_port), 5) == ()
    assert await reachable(cluster(await serve(silent)), 0.1) == ()


async def test_a_manager_without_an_identity_proves_nothing(answering):
    port = await answering(b"")
    nameless = Cluster(subnets=(NETWORK,), probes=(("127.0.0.1", port),))
    assert await reachable(nameless, 5) == ()


async def test_no_manager_has_us_probe_the_world(serve):
    asked = []

    async def count(reader, writer):
        asked.append(await reader.readline())

    port = await serve(count)
    await reachable(cluster(*[port] * 100), 5)
    assert len(asked) <= MOST
