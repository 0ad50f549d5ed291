"""A manager that says what a test tells it to: stock grpcio and the ``.proto``."""

import struct
from contextlib import suppress

import grpc

from tunstack.rpc import tunnel_pb2 as pb

OPEN, OPENED, REFUSED, DATA, CREDIT, FIN, RESET, DATAGRAM, ECHO, UNREACHABLE, ACK = range(
    1, 12
)


def frame(kind, flow, payload=b""):
    """Pack one frame by hand, as docs/protocol.md says."""
    return struct.pack("!II", kind << 24 | len(payload), flow) + payload


def split(frames):
    """Unpack frames by hand."""
    while frames:
        word, flow = struct.unpack_from("!II", frames)
        end = 8 + (word & 0xFFFFFF)
        yield word >> 24, flow, frames[8:end]
        frames = frames[end:]


class Conversation:
    """The manager's side of one stream."""

    def __init__(self, context):
        self._context = context

    async def hear(self):
        """Wait for the next message that is no ping."""
        while True:
            message = await self._context.read()
            if message is grpc.aio.EOF:
                raise EOFError
            said = pb.FromClient.FromString(message)
            if said.WhichOneof("body") != "ping":
                return said

    async def say(self, **body):
        await self._context.write(pb.FromManager(**body).SerializeToString())

    async def say_raw(self, message):
        await self._context.write(message)

    async def welcome(self, **fields):
        """Take the hello and welcome the client; returns the hello."""
        hello = (await self.hear()).hello
        values = {"protocol": 1, "session": b"session", "secret": b"secret", **fields}
        await self.say(welcome=pb.Welcome(**values))
        return hello


class FakeManager:
    """Serves every stream with ``script(conversation)``."""

    def __init__(self, script, service="tunstack.v1.Tunnel"):
        self._script = script
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        handler = grpc.method_handlers_generic_handler(service, {"Connect": method})
        self._server.add_generic_rpc_handlers((handler,))
        self.address = ""

    async def start(self):
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self):
        await self._server.stop(grace=None)

    async def _serve(self, _requests, context):
        with suppress(EOFError):
            await self._script(Conversation(context))
