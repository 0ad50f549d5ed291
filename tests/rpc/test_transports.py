"""What every transport does, in all combinations of both ends."""

import asyncio
import itertools
import re
import socket

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.keys import make_keys
from tunstack.errors import AuthError, HostError, TunnelError
from tunstack.rpc import lean, stock
from tunstack.rpc.channel import METHOD, Endpoint

PATIENCE = 10

TRANSPORTS = {"lean": lean, "stock": stock}


class Peer:
    """A handler whose ends can be waited for."""

    def __init__(self, channel):
        self.channel = channel
        self.broken = False
        self.outgoing = []
        self.calls = ""
        """What was called, by its first letter: message, turn's end, pull, loss."""
        self.incoming = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def message_received(self, message):
        self.calls += "m"
        if self.broken:
            raise RuntimeError("a bug")
        self.incoming.put_nowait(bytes(message))

    def turn_ended(self):
        self.calls += "t"

    def next_message(self):
        self.calls += "p"
        return self.outgoing.pop(0) if self.outgoing else None

    def channel_lost(self, loss):
        self.calls += "l"
        self.lost.set_result(loss)

    def say(self, *messages):
        self.outgoing += messages
        self.channel.wake()

    async def hear(self):
        return await asyncio.wait_for(self.incoming.get(), PATIENCE)

    async def loss(self):
        return await asyncio.wait_for(asyncio.shield(self.lost), PATIENCE)


class Ends:
    """A server, and a way to get both ends of a stream to it."""

    def __init__(self, client, server):
        self.client = client
        self.server_transport = server
        self.server = None
        self.accepted = asyncio.Queue()

    async def serve(self, keys=None):
        self.server = await self.server_transport.serve(
            "127.0.0.1", 0, self.accept, keys=keys, keepalive=10
        )

    def accept(self, channel):
        peer = Peer(channel)
        self.accepted.put_nowait(peer)
        return peer

    async def connect(self, **fields):
        """Connect; returns both handlers."""
        client = None

        def make(channel):
            nonlocal client
            client = Peer(channel)
            return client

        fields = {"host": "127.0.0.1", "port": self.server.port, "tls": False, **fields}
        await self.client.connect(Endpoint(**fields), make, keepalive=10, timeout=PATIENCE)
        return client, await asyncio.wait_for(self.accepted.get(), PATIENCE)


@pytest.fixture(params=itertools.product(TRANSPORTS, TRANSPORTS), ids=" to ".join)
def combination(request):
    """The transports of client and server."""
    client, server = request.param
    return TRANSPORTS[client], TRANSPORTS[server]


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return TRANSPORTS[request.param]


@pytest_asyncio.fixture
async def ends(combination):
    ends = Ends(*combination)
    await ends.serve()
    yield ends
    await ends.server.close()


async def test_messages_arrive_whole_and_in_order_both_ways(ends):
    client, server = await ends.connect()
    messages = [bytes([n % 256]) * (n * 997) for n in range(200)]
    client.say(*messages)
    server.say(*messages)
    for message in messages:
        assert await server.hear() == message
        assert await client.hear() == message


async def test_an_empty_message_is_a_message(ends):
    client, server = await ends.connect()
    client.say(b"", b"behind")
    assert [await server.hear(), await server.hear()] == [b"", b"behind"]


@pytest.mark.parametrize("size", [0, 1, 5, 20_000, 600_000, 3_000_000])
async def test_a_message_in_two_pieces_arrives_as_one(ends, size):
    client, server = await ends.connect()
    body = bytes(n % 251 for n in range(size))
    client.say((b"lead", body), (b"", body), b"behind")
    assert await server.hear() == b"lead" + body
    assert await server.hear() == body
    assert await server.hear() == b"behind"


async def test_a_turn_ends_behind_its_messages_and_before_all_else(ends):
    client, server = await ends.connect()
    for count in (1, 2, 30):
        client.say(*[b"x" * 2000] * count)
        for _ in range(count):
            await server.hear()
        server.say(b"heard")
        await client.hear()
    client.say(b"last")
    client.channel.close()
    await server.loss()
    assert server.calls.count("m") == 34
    assert re.fullmatch("(m+t|p|l)+", server.calls), server.calls


async def test_messages_that_come_together_have_one_turn():
    ends = Ends(lean, lean)
    await ends.serve()
    client, server = await ends.connect()
    client.say(*[b"x"] * 500)
    for _ in range(500):
        await server.hear()
    assert server.calls.count("t") < 50
    await ends.server.close()


async def test_another_handler_serves_what_comes_behind_a_handover(ends):
    client, first = await ends.connect()
    client.say(b"one")
    await first.hear()
    second = Peer(first.channel)
    first.channel.hand_over(second)
    client.say(b"two")
    assert await second.hear() == b"two"
    second.say(b"three")
    assert await client.hear() == b"three"
    client.channel.abort()
    await second.loss()
    assert first.incoming.empty()
    assert not first.lost.done()


async def test_the_client_ends_in_order_behind_what_it_had_to_say(ends):
    client, server = await ends.connect()
    client.say(*[b"x" * 100_000] * 50)
    client.channel.close()
    for _ in range(50):
        assert len(await server.hear()) == 100_000
    await server.loss()
    assert (await client.loss()).clean


async def test_the_server_ends_in_order_behind_what_it_had_to_say(ends):
    client, server = await ends.connect()
    server.say(*[b"x" * 100_000] * 50)
    server.channel.close()
    for _ in range(50):
        assert len(await client.hear()) == 100_000
    assert (await client.loss()).clean
    assert (await server.loss()).clean


@pytest.mark.parametrize("which", [0, 1])
async def test_an_abort_ends_the_stream_at_both_ends(ends, which):
    both = await ends.connect()
    both[which].channel.abort()
    for end in both:
        assert not (await end.loss()).clean


async def test_a_message_that_is_too_long_ends_the_stream_and_no_other(ends):
    client, server = await ends.connect()
    other_client, other_server = await ends.connect()
    client.say(bytes(stock.MOST + 1))
    assert not (await client.loss()).clean
    assert not (await server.loss()).clean
    other_client.say(b"still here")
    assert await other_server.hear() == b"still here"


async def test_a_server_that_closes_ends_its_streams(ends):
    client, server = await ends.connect()
    await ends.server.close()
    assert not (await server.loss()).clean
    assert not (await client.loss()).refused


async def test_a_handler_that_fails_ends_its_stream_and_no_other(ends, caplog):
    client, server = await ends.connect()
    other_client, other_server = await ends.connect()
    server.broken = True
    client.say(b"x")
    assert not (await client.loss()).clean
    assert "the session failed" in caplog.text
    other_client.say(b"still here")
    assert await other_server.hear() == b"still here"


async def test_a_pull_waits_while_the_other_end_does_not_read(ends):
    """What cannot be sent stays where it can still be put in order."""
    client, server = await ends.connect()
    blocked = asyncio.Event()

    async def never_reads():
        await blocked.wait()
        return grpc.aio.EOF

    raw = grpc.aio.insecure_channel(f"127.0.0.1:{ends.server.port}")
    async with raw:
        call = raw.stream_stream(METHOD)()
        await call.write(b"hello")
        peer = await asyncio.wait_for(ends.accepted.get(), PATIENCE)
        await peer.hear()
        count = 4096
        peer.say(*[bytes(65_536)] * count)
        client.say(b"x")
        await server.hear()
        taken = -1
        while taken != count - len(peer.outgoing):
            taken = count - len(peer.outgoing)
            server.say(b"another turn")
            await client.hear()
        assert taken * 65_536 < 64 * 1024 * 1024
        call.cancel()
        await peer.loss()


async def test_nothing_listens(transport):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    endpoint = Endpoint(host="127.0.0.1", port=port, tls=False)
    with pytest.raises(TunnelError, match="Connection refused"):
        await transport.connect(endpoint, Peer, keepalive=10, timeout=PATIENCE)


async def test_somebody_listens_who_says_nothing(transport):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        endpoint = Endpoint(host="127.0.0.1", port=sock.getsockname()[1], tls=False)
        with pytest.raises(TunnelError, match=r"timed out.*timeouts\.manager_connect"):
            await transport.connect(endpoint, Peer, keepalive=10, timeout=0.3)


async def test_a_server_of_something_else_refuses(transport):
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    peers = []

    def make(channel):
        peers.append(Peer(channel))
        return peers[0]

    endpoint = Endpoint(host="127.0.0.1", port=port, tls=False)
    await transport.connect(endpoint, make, keepalive=10, timeout=PATIENCE)
    assert (await peers[0].loss()).refused
    await server.stop(None)


async def test_a_taken_address_is_an_error_of_this_host(transport):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(HostError, match="cannot listen"):
            await transport.serve("127.0.0.1", port, Peer, keys=None, keepalive=10)


async def test_other_methods_are_not_implemented(ends):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ends.server.port}") as channel:
        for path in ("/tunstack.v1.Tunnel/Other", "/some.Other/Connect"):
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary(path)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", "tunstack.v1.Tunnel"])
async def test_health_follows_what_is_set(ends, service):
    states = health_pb2.HealthCheckResponse
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ends.server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=service))
        assert (await watch.read()).status == states.SERVING
        ends.server.set_serving(False)
        assert (await watch.read()).status == states.NOT_SERVING
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == states.NOT_SERVING
        watch.cancel()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys"), "DNS:manager.test")


@pytest_asyncio.fixture
async def tls_ends(combination, keys):
    ends = Ends(*combination)
    await ends.serve(keys)
    yield ends
    await ends.server.close()


async def test_tls_with_an_authority_and_a_name(tls_ends, keys):
    client, server = await tls_ends.connect(
        tls=True, ca=keys.certificate.read_bytes(), server_name="manager.test"
    )
    client.say(b"over TLS")
    assert await server.hear() == b"over TLS"


@pytest.mark.parametrize("fields", [{"server_name": "manager.test"}, {"ca": True}])
async def test_a_certificate_of_a_stranger_or_another_name_is_not_trusted(
    tls_ends, keys, fields
):
    if "ca" in fields:
        fields = {"ca": keys.certificate.read_bytes()}
    with pytest.raises(AuthError):
        await tls_ends.connect(tls=True, **fields)


async def test_plaintext_to_a_server_with_tls_fails(tls_ends):
    with pytest.raises(TunnelError):
        await tls_ends.connect()


async def test_tls_to_a_server_without_it_fails(ends):
    with pytest.raises(TunnelError):
        await ends.connect(tls=True)
