"""Hostile peers on real sockets: theirs ends with a reason, and others feel nothing."""

import asyncio
import ssl
import struct
from contextlib import suppress

import pytest
import pytest_asyncio

from tests.support.http2 import REQUEST, SETTINGS, data, frame, headers, split
from tests.support.keys import make_keys
from tunstack.rpc.channel import Endpoint
from tunstack.rpc.http2.frame import PREFACE, Code, Type
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.lean.call import method
from tunstack.rpc.lean.client import open_client
from tunstack.rpc.lean.server import Server

PATIENCE = 10


async def echo(call):
    async for octets in call:
        await call.write(octets)


async def pour(call):
    while True:
        await call.write(bytes(100_000))


METHODS = {"/test.Service/Method": method(echo), "/test.Service/Pour": method(pour)}
CANCEL = struct.pack(">I", Code.CANCEL)


def rapid_reset():
    for number in range(1, 5000, 2):
        yield headers(REQUEST, number) + frame(Type.RST_STREAM, 0, number, CANCEL)


def empty_data():
    yield headers(REQUEST)
    yield from [data(b"") * 1000] * 100


def continuations():
    yield frame(Type.HEADERS, 0, 1, headers(REQUEST)[9:])
    yield from [frame(Type.CONTINUATION, 0, 1)] * 100


FLOODS = {
    "pings": lambda: [frame(Type.PING, 0, 0, bytes(8)) * 100] * 100,
    "settings": lambda: [SETTINGS * 100] * 100,
    "rapid reset": rapid_reset,
    "empty data": empty_data,
    "continuations": continuations,
    "noise": lambda: [b"\xff" * 1000],
    "a long frame": lambda: [b"\xff\xff\xff\0\0\0\0\0\1" + bytes(100_000)],
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys"), "DNS:manager.test")


@pytest_asyncio.fixture(params=["plaintext", "tls"])
async def place(request, keys):
    """A server, a client of it in a call, and what opens a bare connection."""
    secure = request.param == "tls"
    limits = Limits(handshake=0.5, stall=0.5)
    server = Server(METHODS, keepalive=10, limits=limits)
    await server.listen(("127.0.0.1", 0), keys if secure else None)
    ca = keys.certificate.read_bytes() if secure else None
    endpoint = Endpoint(
        host="127.0.0.1", port=server.port, tls=secure, ca=ca, server_name="manager.test"
    )
    client = await open_client(endpoint, keepalive=10, timeout=PATIENCE)
    call = client.call("/test.Service/Method")

    async def lives():
        for n in range(3):
            await call.write(b"%d" % n)
            assert await asyncio.wait_for(call.read(), PATIENCE) == b"%d" % n

    async def bare(alpn=("h2",)):
        if not secure:
            return await asyncio.open_connection("127.0.0.1", server.port)
        context = ssl.create_default_context(cadata=ca.decode())
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context, server_hostname="manager.test"
        )

    await lives()
    yield lives, bare
    await lives()
    await client.close()
    await server.close(0.1)


async def last_words(reader):
    """Read to the end; gives the code and the reason of the GOAWAY."""
    octets = await asyncio.wait_for(reader.read(-1), PATIENCE)
    (payload,) = (f[3] for f in split(octets) if f[0] == Type.GOAWAY)
    return Code(int.from_bytes(payload[4:8], "big")), payload[8:].decode()


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_with_a_reason_and_others_feel_nothing(place, flood, caplog):
    caplog.set_level("INFO", "tunstack")
    lives, bare = place
    reader, writer = await bare()
    port = writer.get_extra_info("sockname")[1]
    reading = asyncio.create_task(last_words(reader))
    writer.write(PREFACE + SETTINGS)
    for octets in FLOODS[flood]():
        writer.write(octets)
        await lives()
        if reading.done():
            break
    code, reason = await reading
    assert code is not Code.NO_ERROR
    assert reason
    assert f"{port}: {reason}" in caplog.text
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    await lives()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_slow_handshake_is_cut_off(place):
    _, bare = place
    reader, writer = await bare()
    writer.write(PREFACE[:5])
    code, reason = await last_words(reader)
    assert (code, reason) == (Code.SETTINGS_TIMEOUT, "no HTTP/2 within 0.5 s")
    writer.close()


async def test_a_slow_handshake_of_tls_is_cut_off(keys):
    server = Server(METHODS, keepalive=10, limits=Limits(handshake=0.2))
    await server.listen(("127.0.0.1", 0), keys)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01")
    assert await asyncio.wait_for(reader.read(-1), PATIENCE) == b""
    writer.close()
    await server.close(0.1)


@pytest.mark.parametrize("place", ["tls"], indirect=True)
@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_tls_without_alpn_for_http2_is_turned_away(place, alpn):
    _, bare = place
    try:
        reader, writer = await bare(alpn)
    except (ssl.SSLError, ConnectionError):
        return
    assert await asyncio.wait_for(reader.read(-1), PATIENCE) == b""
    writer.close()


async def test_a_window_that_stays_closed_ends_the_connection(place):
    _, bare = place
    reader, writer = await bare()
    fields = [(n, v.replace("Method", "Pour")) for n, v in REQUEST]
    writer.write(PREFACE + SETTINGS + headers(fields))
    code, reason = await last_words(reader)
    assert (code, reason) == (Code.ENHANCE_YOUR_CALM, "a window was closed for 0.5 s")
    writer.close()


async def test_what_is_not_grpc_is_answered_as_http(place):
    _, bare = place
    reader, writer = await bare()
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/")]
    writer.write(PREFACE + SETTINGS + headers(fields, end=True))
    octets = b""
    while b"gRPC server" not in octets:
        octets += await asyncio.wait_for(reader.read(65_536), PATIENCE)
    writer.close()
