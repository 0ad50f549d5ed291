"""A manager on loopback, and a client of it that shares no code with ours.

The client is made from ``tunnel.proto`` with stock grpcio, and packs frames by hand as
``docs/protocol.md`` says.
"""

import asyncio
import socket
import struct
from collections import defaultdict
from contextlib import AsyncExitStack
from ipaddress import ip_address

import grpc
import pytest
import pytest_asyncio

from tunstack.manager.config import ManagerConfig
from tunstack.rpc import tunnel_pb2 as pb

OPEN, OPENED, REFUSED, DATA, CREDIT, FIN, RESET, DATAGRAM, ECHO, UNREACHABLE, ACK = range(
    1, 12
)
PATIENCE = 10
"""Seconds after which a test is sure that something does not happen any more."""


def pytest_asyncio_loop_factories(config, item):
    """Run everything on both event loops."""
    factories = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}


class Client:
    """A stream to a manager. What arrives is sorted by flow, the rest by its body."""

    def __init__(self, channel):
        self.call = channel.stream_stream(
            "/tunstack.v1.Tunnel/Connect",
            request_serializer=pb.FromClient.SerializeToString,
            response_deserializer=pb.FromManager.FromString,
        )()
        self.flows = defaultdict(asyncio.Queue)
        self.bodies = defaultdict(asyncio.Queue)
        self.received = 0
        self.ended = asyncio.Event()
        self.reading = asyncio.Event()
        """Cleared: it reads one message more, and then none."""
        self.reading.set()
        self.reader = asyncio.ensure_future(self._read())
        self.next_id = 1

    async def _read(self):
        try:
            while (message := await self.call.read()) is not grpc.aio.EOF:
                body = message.WhichOneof("body")
                if body == "frames":
                    self.received += 1
                    self._split(message.frames)
                else:
                    self.bodies[body].put_nowait(getattr(message, body))
                await self.reading.wait()
        except grpc.RpcError:
            pass
        finally:
            self.ended.set()

    def _split(self, frames):
        while frames:
            word, flow = struct.unpack_from("!II", frames)
            end = 8 + (word & 0xFFFFFF)
            self.flows[flow].put_nowait((word >> 24, frames[8:end]))
            frames = frames[end:]

    async def say(self, **body):
        await self.call.write(pb.FromClient(**body))

    async def body(self, name):
        """Wait for the next message with that body."""
        return await asyncio.wait_for(self.bodies[name].get(), PATIENCE)

    async def hello(self, **fields):
        """Say hello; returns the welcome."""
        hello = pb.Hello(**{"protocol": 1, "protocol_minimum": 1, **fields})
        await self.say(hello=hello)
        return await self.body("welcome")

    async def frames(self, *frames):
        """Send ``(kind, flow, payload)`` in one message."""
        parts = (
            struct.pack("!II", kind << 24 | len(payload), flow) + payload
            for kind, flow, payload in frames
        )
        await self.say(frames=b"".join(parts))

    async def open(self, address, protocol=6, credit=1 << 20):
        """Send OPEN; returns the flow."""
        flow, self.next_id = self.next_id, self.next_id + 2
        await self.frames((OPEN, flow, open_payload(address, protocol, credit)))
        return flow

    async def frame(self, flow):
        """Wait for the next frame of a flow: kind, payload."""
        return await asyncio.wait_for(self.flows[flow].get(), PATIENCE)

    async def opened(self, flow):
        """Wait for OPENED; returns the credit."""
        kind, payload = await self.frame(flow)
        assert kind == OPENED, (kind, payload)
        return struct.unpack("!I", payload)[0]

    async def connect(self, address, credit=1 << 20):
        """Open a TCP flow and wait until it is open."""
        flow = await self.open(address, credit=credit)
        await self.opened(flow)
        return flow

    async def data(self, flow, size):
        """Collect so many octets of DATA."""
        octets = b""
        while len(octets) < size:
            kind, payload = await self.frame(flow)
            if kind != CREDIT:
                assert kind == DATA, (kind, payload)
                octets += payload
        return octets

    async def lives(self):
        """Make sure that the manager answers, and so has taken what was sent before."""
        await self.say(ping=pb.Ping(number=7))
        assert (await self.body("pong")).number == 7


def open_payload(address, protocol=6, credit=1 << 20):
    host, port = address[:2]
    parsed = ip_address(host)
    packed = (
        parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    )
    return struct.pack("!BBHI16s", protocol, 0, port, credit, packed)


@pytest_asyncio.fixture
async def start_manager():
    """Start a manager on a free port with more settings; gives it and its address."""
    # Not above: it would load the fast path before --fastpath is looked at.
    from tunstack.manager.server import Manager

    managers = []

    async def start(**settings):
        manager = Manager(ManagerConfig(port=0, **settings))
        host, port = await manager.start()
        managers.append(manager)
        return manager, f"{host}:{port}"

    yield start
    for manager in managers:
        await manager.drain(0)


@pytest_asyncio.fixture
async def new_client():
    """Make a client of the manager at an address."""
    async with AsyncExitStack() as stack:

        async def make(address, credentials=None):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = (
                grpc.aio.insecure_channel(address, options)
                if credentials is None
                else grpc.aio.secure_channel(address, credentials, options)
            )
            await stack.enter_async_context(channel)
            client = Client(channel)
            stack.callback(client.reader.cancel)
            return client

        yield make


@pytest_asyncio.fixture
async def client(start_manager, new_client):
    """A client with a session."""
    _, address = await start_manager()
    client = await new_client(address)
    await client.hello()
    return client


@pytest.fixture
def listener():
    """A listening TCP socket, non-blocking, for the loop's ``sock_*``."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        sock.setblocking(False)
        yield sock


@pytest_asyncio.fixture
async def accept(listener):
    """Accept the next connection."""
    accepted = []

    async def accept():
        loop = asyncio.get_running_loop()
        sock, _ = await asyncio.wait_for(loop.sock_accept(listener), PATIENCE)
        accepted.append(sock)
        return sock

    yield accept
    for sock in accepted:
        sock.close()
