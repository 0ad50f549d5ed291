"""Associations of the manager, against sockets of this computer."""

import asyncio
import socket

import pytest
import pytest_asyncio

PATIENCE = 10
REFUSED, RESET, DATAGRAM, UNREACHABLE = 3, 7, 8, 10
UDP = 17


@pytest_asyncio.fixture(params=["127.0.0.1", "::1"])
async def echo(request):
    """A UDP echo server; gives its address. (asyncio's own sends no empty datagrams.)"""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((request.param, 0))
        loop.add_reader(sock, lambda: sock.sendto(*sock.recvfrom(65_536)))
        yield sock.getsockname()
        loop.remove_reader(sock)


@pytest.mark.parametrize("size", [1, 0, 1472, 9000, 25_000, 65_507])
async def test_an_echo_of_any_size(client, echo, size):
    flow = await client.open(echo, protocol=UDP)
    datagram = bytes(n % 251 for n in range(size))
    await client.frames((DATAGRAM, flow, datagram))
    assert await client.frame(flow) == (DATAGRAM, datagram)


async def test_datagrams_keep_their_bounds_and_their_flows(client, echo):
    flows = [await client.open(echo, protocol=UDP) for _ in range(20)]
    await client.frames(
        *((DATAGRAM, flow, b"%d/%d" % (flow, n)) for n in range(5) for flow in flows)
    )
    for flow in flows:
        for n in range(5):
            assert await client.frame(flow) == (DATAGRAM, b"%d/%d" % (flow, n))


async def test_a_closed_port_is_said_and_the_flow_lives_on(client):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
    flow = await client.open(address, protocol=UDP)
    for _ in range(3):
        await client.frames((DATAGRAM, flow, b"anybody?"))
        kind, payload = await client.frame(flow)
        assert (kind, payload[0]) == (UNREACHABLE, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.setblocking(False)
        await client.frames((DATAGRAM, flow, b"anybody?"))
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(sock, 100), PATIENCE) == b"anybody?"


async def test_a_datagram_that_is_too_big_is_said(client, echo):
    flow = await client.open(echo, protocol=UDP)
    await client.frames((DATAGRAM, flow, bytes(65_530)))
    kind, payload = await client.frame(flow)
    assert (kind, payload[0]) == (UNREACHABLE, 7)


async def test_a_target_without_a_way_is_refused(client):
    flow = await client.open(("255.255.255.255", 9), protocol=UDP)
    kind, payload = await client.frame(flow)
    assert kind == REFUSED
    assert payload[0] in (2, 4)
    await client.frames((DATAGRAM, flow, b"late"))
    await client.lives()


async def test_an_idle_association_ends(start_manager, new_client, echo):
    _, address = await start_manager(idle=0.3)
    client = await new_client(address)
    await client.hello()
    flow = await client.open(echo, protocol=UDP)
    await client.frames((DATAGRAM, flow, b"x"))
    assert await client.frame(flow) == (DATAGRAM, b"x")
    kind, payload = await client.frame(flow)
    assert (kind, payload[0]) == (RESET, 5)


async def test_the_client_ends_an_association(start_manager, new_client, echo):
    _, address = await start_manager(flows_per_session=1)
    client = await new_client(address)
    await client.hello()
    for _ in range(5):
        flow = await client.open(echo, protocol=UDP)
        await client.frames((DATAGRAM, flow, b"x"))
        assert await client.frame(flow) == (DATAGRAM, b"x")
        await client.frames((RESET, flow, b"\x0a"))
