"""Port-forwards as a kubelet speaks them, with one that follows a script."""

import asyncio
import random
import struct

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tunstack.cluster.api import ApiError
from tunstack.cluster.port_forward import PROTOCOL, open_port_forward
from tunstack.errors import ClusterError

PATH = "/api/v1/namespaces/tunstack/pods/tunstack-7/portforward"
PORT = 7777
LITTLE = struct.pack("<H", PORT)
DATA, ERROR = b"\0", b"\1"


class Pod:
    """The other end: opens both channels, then does what ``script(socket)`` does."""

    def __init__(self, script, opening=(DATA + LITTLE, ERROR + LITTLE)):
        self.script = script
        self.opening = opening
        self.asked = []
        self.closed = asyncio.Event()

    async def handle(self, request):
        self.asked.append((request.path, dict(request.query)))
        socket = web.WebSocketResponse(protocols=[PROTOCOL], max_msg_size=0)
        await socket.prepare(request)
        for message in self.opening:
            await socket.send_bytes(message)
        await self.script(socket)
        try:
            while not socket.closed:
                await socket.receive()
        finally:
            self.closed.set()
        return socket


async def echo(socket):
    """Say back what comes on channel 0."""
    async for message in socket:
        assert message.data[:1] == DATA
        await socket.send_bytes(message.data)


async def wait(socket):
    """Do nothing."""


def say(*messages):
    """Give a script that sends messages."""

    async def script(socket):
        for message in messages:
            await socket.send_bytes(message)

    return script


def opening(api, timeout=10):
    return open_port_forward(api, "tunstack", "tunstack-7", PORT, timeout=timeout)


@pytest_asyncio.fixture
async def forward(serve, open_api, stack):
    """Forward the port of a pod that follows a script; gives both ends."""

    async def start(script, timeout=10, **said):
        pod = Pod(script, **said)
        api = await open_api(await serve(pod.handle))
        found = await opening(api, timeout)
        stack.callback(found.close)
        return found, pod

    return start


async def read_all(forward, size):
    """Read so many octets, or to the end."""
    octets = bytearray()
    while len(octets) < size and (piece := await forward.read()):
        octets += piece
    return bytes(octets)


async def test_octets_go_there_and_back(forward):
    found, pod = await forward(echo)
    found.writelines([b"hello ", memoryview(b"there")])
    await found.drain()
    assert await read_all(found, 11) == b"hello there"
    assert pod.asked == [(PATH, {"ports": "7777"})]
    assert found.peer == "pod tunstack/tunstack-7"


async def test_many_octets_go_there_and_back(forward):
    sent = random.Random(7777).randbytes(5_000_001)
    found, _ = await forward(echo)

    async def send():
        for start in range(0, len(sent), 1_000_000):
            piece = sent[start : start + 1_000_000]
            found.writelines(piece[at : at + 70_000] for at in range(0, len(piece), 70_000))
            await found.drain()

    _, received = await asyncio.gather(send(), read_all(found, len(sent)))
    assert received == sent


async def test_small_pieces_share_a_message(forward):
    messages = asyncio.Queue()

    async def script(socket):
        messages.put_nowait((await socket.receive()).data)

    found, _ = await forward(script)
    found.writelines([b"a", b"bc"])
    found.writelines([b"d"])
    await found.drain()
    assert await messages.get() == DATA + b"abcd"


async def test_an_error_of_the_pod_is_raised_with_its_text(forward):
    found, _ = await forward(say(ERROR + b"connection refused: tunstack-7:7777"))
    with pytest.raises(ClusterError, match="connection refused") as caught:
        await found.read()
    assert "pod tunstack/tunstack-7" in str(caught.value)
    assert caught.value.exit_code == 6


async def test_octets_before_an_error_are_read(forward):
    found, _ = await forward(say(DATA + b"last words", ERROR + b"gone"))
    assert await found.read() == b"last words"
    with pytest.raises(ClusterError, match="gone"):
        await found.read()


async def test_messages_without_octets_and_of_other_channels_are_passed_over(forward):
    found, _ = await forward(say(b"", DATA, ERROR, b"\7noise", DATA + b"x"))
    assert await found.read() == b"x"


async def test_text_is_passed_over(forward):
    async def script(socket):
        await socket.send_str("\0noise")
        await socket.send_bytes(DATA + b"x")

    found, _ = await forward(script)
    assert await found.read() == b"x"


async def test_a_server_that_closes_gives_end_of_file(forward):
    async def script(socket):
        await socket.send_bytes(DATA + b"x")
        await socket.close()

    found, _ = await forward(script)
    assert await read_all(found, 100) == b"x"
    assert await found.read() == b""


async def test_a_server_that_hangs_up_gives_end_of_file(forward):
    async def script(socket):
        socket._req.transport.abort()

    found, _ = await forward(script)
    assert await found.read() == b""


async def test_closing_ends_the_socket(forward):
    found, pod = await forward(wait)
    found.close()
    found.close()
    await pod.closed.wait()
    assert await found.read() == b""


async def test_nothing_is_sent_after_the_end(forward):
    found, pod = await forward(wait)
    found.close()
    await pod.closed.wait()
    found.writelines([b"late"])
    with pytest.raises((ConnectionError, aiohttp.ClientError)):
        await found.drain()


# That do not come about


async def test_a_pod_that_opens_nothing_names_the_setting(forward):
    with pytest.raises(
        ClusterError, match=r"timed out after 0\.1 s \(timeouts\.manager_connect\)"
    ) as caught:
        await forward(wait, timeout=0.1, opening=())
    assert "the port-forward to the traffic manager" in str(caught.value)
    assert caught.value.exit_code == 6


async def test_a_server_that_says_nothing_names_the_setting(serve, open_api):
    async def say_nothing(request):
        await asyncio.Event().wait()

    api = await open_api(await serve(say_nothing))
    with pytest.raises(ClusterError, match=r"timeouts\.manager_connect"):
        await opening(api, timeout=0.1)


@pytest.mark.parametrize("order", [1, -1])
async def test_the_channels_may_open_in_any_order(forward, order):
    found, _ = await forward(echo, opening=(DATA + LITTLE, ERROR + LITTLE)[::order])
    found.writelines([b"x"])
    await found.drain()
    assert await found.read() == b"x"


@pytest.mark.parametrize(
    "opening",
    [
        (b"",),
        (DATA,),
        (DATA + LITTLE[::-1],),
        (DATA + LITTLE, ERROR + b"no such container"),
        (DATA + LITTLE, ERROR + LITTLE + b"x"),
    ],
)
async def test_another_port_or_an_error_opens_nothing(forward, opening):
    with pytest.raises(ClusterError, match="pod tunstack-7 was not opened"):
        await forward(wait, opening=opening)


async def test_a_server_that_closes_at_once_opens_nothing(forward):
    async def close(socket):
        await socket.close()

    with pytest.raises(ClusterError, match="pod tunstack-7 was not opened"):
        await forward(close, opening=(DATA + LITTLE,))


async def test_a_pod_that_is_not_there_is_named(fake, api):
    with pytest.raises(ApiError, match='pods "tunstack-7" not found') as caught:
        await opening(api)
    assert caught.value.status == 404
