"""Peers of protocol 1, as they were: a recorded conversation, and that version's schema.

``protocol1.json`` is what a client and a manager of protocol 1 said to each other: hello
and welcome, a connection to an echo server, one that is refused, goodbye.
``protocol1.proto`` is what they were made of.
"""

import asyncio
import json
import struct
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

import tunstack
from tests.support.fake_manager import DATA, FIN, OPEN, OPENED, REFUSED, FakeManager, split
from tunstack.cluster.discovery import Found
from tunstack.manager.config import ManagerConfig
from tunstack.manager.server import Manager

HERE = Path(__file__).parent

SAID = [(who, bytes.fromhex(text)) for who, text in json.loads(
    (HERE / "protocol1.json").read_text())]  # fmt: skip

RECORDED_PORT = 7007


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    """The messages of protocol 1, apart from those of today."""
    path = tmp_path_factory.mktemp("schema") / "set"
    words = [f"--proto_path={HERE}", f"--descriptor_set_out={path}", "protocol1.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *words], check=True)
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)

    def read(name, message):
        kind = GetMessageClass(pool.FindMessageTypeByName(f"tunstack.v1.{name}"))
        return kind.FromString(message)

    return read


def flows(frames):
    """Sort frames by flow: kinds, and what DATA said."""
    found = {}
    for kind, flow, payload in split(frames):
        kinds, data = found.setdefault(flow, ([], bytearray()))
        kinds.append(kind)
        if kind == DATA:
            data += payload
    return found


@pytest_asyncio.fixture
async def manager():
    manager = Manager(ManagerConfig(port=0))
    _, port = await manager.start()
    yield manager, port
    await manager.drain(0)


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def test_the_client_of_then_is_served_by_the_manager_of_now(schema, manager):
    serving, port = manager
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, server:
        call = channel.stream_stream("/tunstack.v1.Tunnel/Connect")()
        frames = b""

        async def hear(kind, flow):
            nonlocal frames
            while not any(frame[:2] == (kind, flow) for frame in split(frames)):
                said = schema("FromManager", await call.read())
                assert said.WhichOneof("body") in ("frames", "ping", "pong")
                frames += said.frames

        for who, message in SAID[:-1]:  # all but the goodbye
            if who == "client":
                await call.write(
                    message.replace(
                        struct.pack("!H", RECORDED_PORT), struct.pack("!H", target)
                    )
                )
                continue
            said = schema("FromManager", message)
            if said.HasField("welcome"):
                welcome = schema("FromManager", await call.read())
                assert welcome.welcome.protocol == 1
            # A client sends no data before the flow is open.
            for kind, flow, _ in split(said.frames):
                await hear(kind, flow)
        found = flows(frames)
        assert OPENED in found[1][0]
        assert bytes(found[1][1]) == b"said by protocol 1"
        assert REFUSED in found[3][0]
        # What is new of the cluster is said in words of then.
        for names in (("default",), ("default", "new")):
            serving._cluster_changed(Found(namespaces=names, identity="uid"))
            said = schema("FromManager", await call.read())
            assert tuple(said.cluster.namespaces) == names
        await call.write(SAID[-1][1])
        assert schema("FromManager", await call.read()).HasField("goodbye")
        assert await call.read() is grpc.aio.EOF


async def test_the_manager_of_then_serves_the_client_of_now(schema):
    heard = []
    answers = {}
    for who, message in SAID:
        if who == "manager":
            said = schema("FromManager", message)
            for kind, _, _ in split(said.frames):
                answers.setdefault(kind, message)
            if said.HasField("welcome"):
                answers["welcome"] = message
    following = {DATA: [DATA], FIN: [FIN]}
    opens = [OPENED, REFUSED]

    async def script(conversation):
        while True:
            message = await conversation._context.read()
            said = schema("FromClient", message)
            assert said.WhichOneof("body") is not None
            assert len(UnknownFieldSet(said)) == 0
            heard.append(said)
            if said.HasField("hello"):
                await conversation.say_raw(answers["welcome"])
            for kind, _, _ in split(said.frames):
                for answer in [opens.pop(0)] if kind == OPEN else following.get(kind, []):
                    await conversation.say_raw(answers[answer])

    fake = FakeManager(script)
    await fake.start()
    try:
        async with tunstack.connect(fake.address) as session:
            status = session.status()
            assert status.manager.protocol == 1
            assert status.cluster.namespaces == ("default", "shop")
            reader, writer = await session.open_connection("127.0.0.1", RECORDED_PORT)
            writer.write(b"said by protocol 1")
            assert await reader.readexactly(18) == b"said by protocol 1"
            writer.write_eof()
            assert await reader.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await session.open_connection("127.0.0.1", 9)
    finally:
        await fake.stop()
    assert heard[0].hello.protocol_minimum == 1
