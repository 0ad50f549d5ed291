"""Any method by its path: calls with ``await``, over every kind of connection."""

import asyncio
import socket

import grpc
import pytest
import pytest_asyncio

from tests.support.keys import make_keys
from tunstack.errors import AuthError, ConfigError, HostError, TunnelError
from tunstack.rpc.channel import Endpoint, Pair, Unix
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.status import Status
from tunstack.rpc.lean import server as server_module
from tunstack.rpc.lean.call import CallError, method
from tunstack.rpc.lean.client import open_client
from tunstack.rpc.lean.server import Server

PATIENCE = 10
KINDS = ["tcp", "ipv6", "tls", "unix", "pair"]


class Service:
    """Methods, and what became of those that were called."""

    def __init__(self):
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.read = 0
        self.go_on = asyncio.Event()

    async def echo(self, call):
        async for message in call:
            await call.write(message)

    async def sleep(self, call):
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def fail(self, call):
        raise RuntimeError("a bug")

    async def refuse(self, call):
        raise CallError(Status.PERMISSION_DENIED, "not for you", (("why", "because"),))

    async def greet(self, call):
        name = dict(call.metadata)["name"]
        call.respond((("greeting", f"hello {name}"),))
        call.trailing = (("parting-bin", b"\xff\0"),)
        await call.write(b"")

    async def swallow_slowly(self, call):
        await self.go_on.wait()
        async for message in call:
            self.read += len(message)
        await call.write(str(self.read).encode())

    async def pour(self, call):
        for _ in range(1000):
            await call.write(bytes(10_000))
            self.read += 10_000

    @property
    def methods(self):
        names = ("echo", "sleep", "fail", "refuse", "greet", "swallow_slowly", "pour")
        return {f"/test.Service/{name}": method(getattr(self, name)) for name in names}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys"), "DNS:manager.test")


@pytest_asyncio.fixture
async def service():
    return Service()


@pytest_asyncio.fixture
async def start(service, keys, tmp_path):
    """Start a server, and give what connects to it."""
    started = []

    async def begin(kind="tcp", limits=None, **settings):
        server = Server(service.methods, keepalive=10, limits=limits)
        started.append(server)
        if kind == "unix":
            endpoint = Unix(tmp_path / "socket")
            await server.listen(endpoint.path)
        elif kind == "pair":
            near, far = socket.socketpair()
            reader, writer = await asyncio.open_unix_connection(sock=far)
            server.serve(reader, writer, "a pair")
            reader, writer = await asyncio.open_unix_connection(sock=near)
            endpoint = Pair(reader, writer, "a pair")
        else:
            host = "::1" if kind == "ipv6" else "127.0.0.1"
            await server.listen((host, 0), keys if kind == "tls" else None)
            fields = {"tls": kind == "tls", "server_name": "manager.test"}
            if kind == "tls":
                fields["ca"] = keys.certificate.read_bytes()
            endpoint = Endpoint(host=host, port=server.port, **fields)

        async def connect(**more):
            values = {"keepalive": 10, "timeout": PATIENCE, **settings, **more}
            client = await open_client(endpoint, **values)
            started.append(client)
            return client

        connect.server = server
        connect.endpoint = endpoint
        return connect

    yield begin
    for end in reversed(started):
        await (end.close(0.1) if isinstance(end, Server) else end.close())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_unary_call(start, kind):
    client = await (await start(kind))()
    for size in (0, 1, 100_000, 3_000_000):
        message = bytes([size % 251]) * size
        assert await client.unary("/test.Service/echo", message) == message


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_beside_each_other(start, kind):
    client = await (await start(kind))()
    calls = [client.call("/test.Service/echo") for _ in range(10)]
    for n in range(50):
        for call in calls:
            await call.write(b"%d" % n * n)
    for call in calls:
        call.done_writing()
        for n in range(50):
            assert await call.read() == b"%d" % n * n
        assert await call.read() is None
        assert (await call.outcome).status is Status.OK


async def test_metadata_both_ways(start):
    client = await (await start())()
    call = client.call("/test.Service/greet", metadata=(("name", "world"),))
    assert ("greeting", "hello world") in await call.initial_metadata
    assert await call.read() == b""
    assert ("parting-bin", b"\xff\0") in (await call.outcome).metadata


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("refuse", Status.PERMISSION_DENIED, "not for you"),
        ("fail", Status.INTERNAL, "the method failed"),
        ("nothing", Status.UNIMPLEMENTED, "unknown method /test.Service/nothing"),
    ],
)
async def test_how_a_call_fails(start, name, status, text):
    client = await (await start())()
    with pytest.raises(CallError) as caught:
        await client.unary(f"/test.Service/{name}", b"")
    assert caught.value.outcome.status is status
    assert caught.value.outcome.message == text
    assert await client.unary("/test.Service/echo", b"still here") == b"still here"


async def test_a_deadline_ends_a_call_at_both_ends(start, service):
    client = await (await start())()
    with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
        await client.unary("/test.Service/sleep", b"", timeout=0.05)
    await asyncio.wait_for(service.cancelled.wait(), PATIENCE)


async def test_a_server_keeps_to_a_deadline_that_its_client_forgets(start, service):
    client = await (await start())()
    calls = []

    def make(exchange):
        calls.append(server_module.User())
        return calls[0]

    client.begin("/test.Service/sleep", make, timeout=0.05)
    await asyncio.wait_for(service.cancelled.wait(), PATIENCE)


async def test_cancelling_stops_the_work(start, service):
    client = await (await start())()
    call = client.call("/test.Service/sleep")
    await asyncio.wait_for(service.started.wait(), PATIENCE)
    call.cancel()
    assert (await call.outcome).status is Status.CANCELLED
    await asyncio.wait_for(service.cancelled.wait(), PATIENCE)


async def test_a_writer_waits_for_a_reader(start, service):
    limits = Limits(window=200_000, window_most=200_000)
    client = await (await start(limits=limits))()
    call = client.call("/test.Service/swallow_slowly")
    written = 0

    async def write():
        nonlocal written
        for _ in range(200):
            await call.write(bytes(10_000))
            written += 10_000
        call.done_writing()

    writing = asyncio.create_task(write())
    while written < 200_000:
        await client.unary("/test.Service/echo", b"another turn")
    for _ in range(50):
        await client.unary("/test.Service/echo", b"another turn")
    assert written <= 200_000 + 64 * 1024 + 20_000
    service.go_on.set()
    await asyncio.wait_for(writing, PATIENCE)
    assert await call.read() == b"2000000"


async def test_a_reader_that_does_not_read_holds_its_window(start, service):
    limits = Limits(window=200_000, window_most=200_000)
    client = await (await start())(limits=limits)
    call = client.call("/test.Service/pour")
    call.done_writing()
    while service.read < 200_000:
        await client.unary("/test.Service/echo", b"another turn")
    for _ in range(50):
        await client.unary("/test.Service/echo", b"another turn")
    assert service.read <= 200_000 + 64 * 1024 + 20_000
    total = 0
    async for message in call:
        total += len(message)
    assert total == 10_000_000


async def test_more_calls_than_the_server_takes(start):
    client = await (await start(limits=Limits(streams=2)))()
    calls = [client.call("/test.Service/sleep") for _ in range(2)]
    with pytest.raises(CallError, match="the server takes 2 calls at once"):
        client.call("/test.Service/echo")
    calls[0].cancel()
    assert await client.unary("/test.Service/echo", b"room") == b"room"


async def test_a_server_that_closes_lets_calls_end(start, service):
    connect = await start()
    client = await connect()
    call = client.call("/test.Service/swallow_slowly")
    await call.write(b"x" * 10)
    await client.unary("/test.Service/echo", b"it has arrived")
    closing = asyncio.create_task(connect.server.close(PATIENCE))
    while True:
        try:
            client.call("/test.Service/echo").cancel()
        except CallError:
            break
        await asyncio.sleep(0)
    service.go_on.set()
    call.done_writing()
    assert await call.read() == b"10"
    await asyncio.wait_for(closing, PATIENCE)


async def test_a_server_that_is_gone_ends_calls(start):
    connect = await start()
    client = await connect()
    call = client.call("/test.Service/sleep")
    await connect.server.close(0.05)
    with pytest.raises(CallError, match=r"UNAVAILABLE: .*the server is closing"):
        await call.read()


async def test_what_has_arrived_is_read_although_the_connection_is_over(start, service):
    connect = await start()
    client = await connect(limits=Limits(window=200_000, window_most=200_000))
    call = client.call("/test.Service/pour")
    call.done_writing()
    while service.read < 200_000:
        await client.unary("/test.Service/echo", b"another turn")
    await connect.server.close(0.05)
    for _ in range(19):
        assert len(await call.read()) == 10_000
    with pytest.raises(CallError, match="UNAVAILABLE"):
        await read_all(call)


async def read_all(call):
    async for _ in call:
        pass


async def test_a_compressed_request_is_refused_with_what_is_taken(start):
    connect = await start()
    target = f"127.0.0.1:{connect.server.port}"
    async with grpc.aio.insecure_channel(target, compression=grpc.Compression.Gzip) as c:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await c.unary_unary("/test.Service/echo")(b"x" * 1000)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in caught.value.details()


async def test_connections_beyond_the_limit_cost_idle_ones(start, monkeypatch):
    monkeypatch.setattr(server_module, "CONNECTIONS", 3)
    connect = await start()
    busy = await connect()
    call = busy.call("/test.Service/echo")
    await call.write(b"1")
    assert await call.read() == b"1"
    idle = [await connect() for _ in range(3)]
    with pytest.raises(CallError):
        await idle[0].unary("/test.Service/echo", b"")
    assert await idle[-1].unary("/test.Service/echo", b"new") == b"new"
    await call.write(b"2")
    assert await call.read() == b"2"


async def test_connections_beyond_the_limit_are_turned_away_when_none_is_idle(
    start, monkeypatch
):
    monkeypatch.setattr(server_module, "CONNECTIONS", 2)
    connect = await start()
    calls = [(await connect()).call("/test.Service/echo") for _ in range(2)]
    for call in calls:
        await call.write(b"1")
        assert await call.read() == b"1"
    with pytest.raises(TunnelError, match="too many connections"):
        await connect()
    for call in calls:
        await call.write(b"2")
        assert await call.read() == b"2"


# Connecting


async def test_authorities_that_are_none(start):
    connect = await start("tls")
    endpoint = Endpoint(host="127.0.0.1", port=connect.server.port, tls=True, ca=b"noise")
    with pytest.raises(ConfigError, match="authorities"):
        await open_client(endpoint, keepalive=10, timeout=PATIENCE)


async def test_a_stranger_is_not_trusted_and_says_why(start):
    connect = await start("tls")
    endpoint = Endpoint(host="127.0.0.1", port=connect.server.port, tls=True)
    with pytest.raises(AuthError, match="self-signed certificate"):
        await open_client(endpoint, keepalive=10, timeout=PATIENCE)


async def test_tls_to_somebody_who_has_none(start, keys):
    connect = await start()
    ca = keys.certificate.read_bytes()
    endpoint = Endpoint(host="127.0.0.1", port=connect.server.port, tls=True, ca=ca)
    with pytest.raises(TunnelError, match="TLS failed: "):
        await open_client(endpoint, keepalive=10, timeout=PATIENCE)


async def test_a_socket_that_is_not_there(tmp_path):
    with pytest.raises(TunnelError, match="No such file"):
        await open_client(Unix(tmp_path / "none"), keepalive=10, timeout=PATIENCE)


async def test_a_socket_where_none_can_be(service, tmp_path):
    server = Server(service.methods, keepalive=10)
    with pytest.raises(HostError, match="cannot listen"):
        await server.listen(tmp_path / "no" / "such" / "folder")


async def test_a_pair_that_breaks_says_how():
    class Broken:
        async def read(self, _size):
            raise RuntimeError("the cable")

        async def drain(self):
            pass

        def writelines(self, _chunks):
            pass

        def close(self):
            self.closed = True

    end = Broken()
    with pytest.raises(TunnelError, match="no connection to the moon: the cable"):
        await open_client(Pair(end, end, "the moon"), keepalive=10, timeout=PATIENCE)
    assert end.closed


@pytest.mark.parametrize("kind", ["tls", "pair"])
async def test_somebody_who_says_nothing(kind):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        host, port = sock.getsockname()
        endpoint = Endpoint(host=host, port=port, tls=True)
        if kind == "pair":
            reader, writer = await asyncio.open_connection(host, port)
            endpoint = Pair(reader, writer, "a pair")
        with pytest.raises(TunnelError, match=r"timed out after 0.2 s"):
            await open_client(endpoint, keepalive=10, timeout=0.2)
