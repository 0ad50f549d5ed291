"""Sessions: how they begin, what ends them, and what they leave alone."""

import asyncio
import os
import random
import socket
import struct
from ipaddress import ip_network

import grpc
import pytest

from tests.support.keys import make_keys
from tunstack._version import PROTOCOL
from tunstack.config import TRANSPORTS
from tunstack.errors import ConfigError, HostError
from tunstack.manager.config import ManagerConfig
from tunstack.manager.server import STRANGERS, Manager
from tunstack.rpc import tunnel_pb2 as pb

PATIENCE = 10
OPEN, OPENED, REFUSED, DATA, CREDIT, FIN, RESET, DATAGRAM, ECHO, UNREACHABLE, ACK = range(
    1, 12
)


async def ended(client):
    """Wait for the end of the stream; returns the goodbye before it."""
    goodbye = await client.body("goodbye")
    await asyncio.wait_for(client.ended.wait(), PATIENCE)
    return goodbye


async def receive(sock, size=100):
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(loop.sock_recv(sock, size), PATIENCE)


async def send(sock, octets):
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, octets), PATIENCE)


# Hello and welcome


async def test_the_welcome_tells_what_the_client_should_know(start_manager, new_client):
    subnets = (ip_network("10.96.0.0/12"), ip_network("fd00:10:96::/112"))
    _, address = await start_manager(
        subnets=subnets,
        namespaces=("default", "shop"),
        cluster_domain="cluster.test",
        namespace="tunstack",
        flows_per_session=77,
    )
    client = await new_client(address)
    welcome = await client.hello(capabilities=["something-from-the-future"])
    assert welcome.protocol == 1
    assert welcome.product_version
    assert welcome.flow_limit == 77
    assert not welcome.resumed
    assert len(welcome.session) >= 8
    assert len(welcome.secret) == 32
    cluster = welcome.cluster
    assert [(s.address, s.prefix_length) for s in cluster.subnets] == [
        (subnet.network_address.packed, subnet.prefixlen) for subnet in subnets
    ]
    assert cluster.namespaces == ["default", "shop"]
    assert cluster.cluster_domain == "cluster.test"
    assert cluster.manager_namespace == "tunstack"


@pytest.mark.parametrize(("highest", "lowest"), [(1, 1), (1, 0), (2, 1), (9, 0)])
async def test_the_lower_of_the_highest_versions_is_spoken(
    start_manager, new_client, highest, lowest
):
    _, address = await start_manager()
    client = await new_client(address)
    welcome = await client.hello(protocol=highest, protocol_minimum=lowest)
    assert welcome.protocol == min(highest, PROTOCOL)


@pytest.mark.parametrize(("highest", "lowest"), [(9, 7), (0, 0)])
async def test_versions_too_far_apart_are_both_named(
    start_manager, new_client, highest, lowest
):
    _, address = await start_manager()
    client = await new_client(address)
    await client.say(hello=pb.Hello(protocol=highest, protocol_minimum=lowest))
    goodbye = await ended(client)
    assert goodbye.code == pb.CODE_VERSION
    assert f"{lowest} to {highest}" in goodbye.reason
    assert f"1 to {PROTOCOL}" in goodbye.reason


async def test_the_token_decides(start_manager, new_client, tmp_path):
    path = tmp_path / "token"
    path.write_text("correct horse\n")
    _, address = await start_manager(token_file=path)
    for token, reason in (("", "a token is needed"), ("battery", "the token is wrong")):
        client = await new_client(address)
        await client.say(hello=pb.Hello(protocol=1, protocol_minimum=1, token=token))
        goodbye = await ended(client)
        assert (goodbye.code, goodbye.reason) == (pb.CODE_UNAUTHENTICATED, reason)
    client = await new_client(address)
    assert (await client.hello(token="correct horse")).protocol == 1


async def test_tls(start_manager, new_client, tmp_path):
    keys = make_keys(tmp_path, "IP:127.0.0.1")
    _, address = await start_manager(tls_cert=keys.certificate, tls_key=keys.key)
    authority = keys.certificate.read_bytes()
    client = await new_client(address, grpc.ssl_channel_credentials(authority))
    assert (await client.hello()).protocol == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_key_that_cannot_be_read(tmp_path, transport):
    files = {"tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key"}
    manager = Manager(ManagerConfig(port=0, transport=transport, **files))
    with pytest.raises(ConfigError, match="cannot be read"):
        await manager.start()


async def test_a_key_that_is_none(tmp_path):
    (tmp_path / "noise").write_bytes(b"noise")
    files = {"tls_cert": tmp_path / "noise", "tls_key": tmp_path / "noise"}
    manager = Manager(ManagerConfig(port=0, **files))
    with pytest.raises(ConfigError, match="not a certificate and its key"):
        await manager.start()


async def test_a_taken_port(start_manager):
    _, address = await start_manager()
    port = int(address.rpartition(":")[2])
    with pytest.raises(HostError, match=f"cannot listen on 127.0.0.1:{port}"):
        await Manager(ManagerConfig(port=port)).start()


async def test_a_stream_without_a_hello_ends(start_manager, new_client):
    _, address = await start_manager(hello=0.2)
    goodbye = await ended(await new_client(address))
    assert (goodbye.code, goodbye.reason) == (pb.CODE_LIMIT, "no hello came in time")


# What is not the protocol


async def test_the_first_message_must_be_a_hello(start_manager, new_client):
    _, address = await start_manager()
    client = await new_client(address)
    await client.say(ping=pb.Ping(number=1))
    goodbye = await ended(client)
    assert goodbye.code == pb.CODE_PROTOCOL
    assert "hello" in goodbye.reason


def frame(kind, flow, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack("!II", kind << 24 | length, flow) + payload


def open_frame(flow):
    return frame(OPEN, flow, struct.pack("!BBHI16s", 17, 0, 9, 0, bytes(15) + b"\x01"))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"hello": pb.Hello(protocol=1)}, "second hello"),
        ({}, "without content"),
        ({"frames": b"\x04"}, "whole frames"),
        ({"frames": frame(DATA, 1, b"abc", length=4)}, "whole frames"),
        ({"frames": frame(99, 1)}, "unknown kind 99"),
        ({"frames": frame(DATA, 1, b"x")}, "never existed"),
        ({"frames": frame(CREDIT, 4711, bytes(4))}, "never existed"),
        ({"frames": frame(OPEN, 1)}, "OPEN of 0 octets"),
        ({"frames": open_frame(2)}, "flow 2"),
        ({"frames": open_frame(0)}, "flow 0"),
        ({"frames": open_frame(1) + open_frame(1)}, "flow 1"),
        ({"frames": open_frame(1) + frame(FIN, 1)}, "FIN"),
        ({"frames": open_frame(1) + frame(OPENED, 1, bytes(4))}, "OPENED"),
        ({"frames": open_frame(1) + frame(DATAGRAM, 1, bytes(65_537))}, "65537"),
        ({"frames": open_frame(1) + frame(ECHO, 1, b"x")}, "ECHO"),
        ({"frames": frame(ACK, 0, b"x")}, "ACK"),
        ({"frames": frame(ACK, 0, struct.pack("!Q", 1 << 40))}, "ACK"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_violation_ends_its_session_with_a_reason_and_no_other(
    start_manager, new_client, message, reason
):
    _, address = await start_manager()
    other, client = await new_client(address), await new_client(address)
    await other.hello()
    await client.hello()
    await client.say(**message)
    goodbye = await ended(client)
    assert goodbye.code == pb.CODE_PROTOCOL
    assert reason in goodbye.reason
    await other.lives()


async def test_octets_that_are_not_protobuf(start_manager, new_client):
    _, address = await start_manager()
    for first in (True, False):
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.stream_stream("/tunstack.v1.Tunnel/Connect")()
            if not first:
                hello = pb.Hello(protocol=1, protocol_minimum=1)
                await call.write(pb.FromClient(hello=hello).SerializeToString())
                await call.read()
            await call.write(b"\xff\xff\xff")
            said = pb.FromManager.FromString(await call.read())
            assert said.goodbye.code == pb.CODE_PROTOCOL
            assert await call.read() is grpc.aio.EOF


async def test_a_message_too_long_ends_its_session_with_the_reason(
    start_manager, new_client
):
    manager, address = await start_manager()
    other = await new_client(address)
    await other.hello()
    client = await new_client(address)
    await client.hello()
    await client.say(frames=bytes(5 * 1024 * 1024))
    goodbye = await ended(client)
    assert goodbye.code == pb.CODE_PROTOCOL
    assert "at most 4194304" in goodbye.reason
    await other.lives()
    assert manager.session_count == 1


async def test_random_frames_end_only_their_own_session(start_manager, new_client):
    _, address = await start_manager()
    other = await new_client(address)
    await other.hello()
    source = random.Random(7)
    for _ in range(30):
        client = await new_client(address)
        await client.hello()
        frames = b"".join(
            frame(source.randrange(13), source.randrange(6), source.randbytes(size))
            for size in source.choices([0, 1, 4, 8, 24, 300], k=source.randrange(1, 20))
        )
        await client.say(frames=frames)
        assert (await ended(client)).code == pb.CODE_PROTOCOL
        await other.lives()


async def test_random_octets_on_the_port(start_manager, new_client):
    _, address = await start_manager()
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    source = random.Random(8)
    socks = []
    for start in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        for _ in range(10):
            sock = socket.create_connection((host, int(port)))
            sock.setblocking(False)
            await loop.sock_sendall(sock, start + source.randbytes(1000))
            socks.append(sock)
    client = await new_client(address)
    await client.hello()
    await client.lives()
    for sock in socks:
        sock.close()


async def test_frames_of_flows_that_were_are_ignored(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await client.frames((RESET, flow, b"\x0a"))
    await client.frames(
        (DATA, flow, b"late"), (CREDIT, flow, bytes(4)), (FIN, flow, b""),
        (RESET, flow, b"\x0a"), (UNREACHABLE, flow, b"\x01"),
    )  # fmt: skip
    await client.lives()
    sock.close()


async def test_data_beyond_the_credit_is_a_violation(start_manager, new_client, listener):
    _, address = await start_manager(flow_buffer=65_536)
    client = await new_client(address)
    await client.hello()
    flow = await client.connect(listener.getsockname())
    await client.frames((DATA, flow, bytes(65_536)), (DATA, flow, b"x"))
    goodbye = await ended(client)
    assert goodbye.code == pb.CODE_PROTOCOL
    assert "DATA of 1 octets" in goodbye.reason


# Limits


async def test_more_sessions_than_allowed(start_manager, new_client):
    _, address = await start_manager(sessions=1)
    first, second = await new_client(address), await new_client(address)
    await first.hello()
    await second.say(hello=pb.Hello(protocol=1, protocol_minimum=1))
    goodbye = await ended(second)
    assert (goodbye.code, "1 sessions" in goodbye.reason) == (pb.CODE_LIMIT, True)
    await first.say(goodbye=pb.Goodbye(code=pb.CODE_CLOSED))
    await ended(first)
    third = await new_client(address)
    await third.hello()


async def test_more_strangers_than_allowed(start_manager, new_client):
    _, address = await start_manager()
    clients = [await new_client(address) for _ in range(STRANGERS + 1)]
    ends = [asyncio.ensure_future(client.ended.wait()) for client in clients]
    _, pending = await asyncio.wait(ends, return_when="FIRST_COMPLETED")
    assert len(pending) == STRANGERS
    survivor = clients[ends.index(next(iter(pending)))]
    await survivor.hello()
    for end in pending:
        end.cancel()


@pytest.mark.parametrize("setting", ["flows", "flows_per_session"])
async def test_more_flows_than_allowed_are_refused_and_the_rest_goes_on(
    start_manager, new_client, listener, accept, setting
):
    _, address = await start_manager(**{setting: 2})
    client = await new_client(address)
    await client.hello()
    flows = [await client.connect(listener.getsockname()) for _ in range(2)]
    socks = [await accept() for _ in flows]
    extra = await client.open(listener.getsockname())
    kind, payload = await client.frame(extra)
    assert (kind, payload[0]) == (REFUSED, 8)
    assert b"2 flows" in payload
    await client.frames((DATA, flows[0], b"still here"))
    assert await receive(socks[0]) == b"still here"
    await client.frames((RESET, flows[0], b"\x0a"))
    await client.connect(listener.getsockname())


async def test_a_client_that_reads_nothing_does_not_fill_the_memory(
    start_manager, new_client, listener, accept
):
    """Its pongs are given up, with the session, and others go on."""
    _, address = await start_manager()
    other = await new_client(address)
    await other.hello()
    # A window that does not grow is filled soon.
    options = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        call = channel.stream_stream("/tunstack.v1.Tunnel/Connect")()

        async def say(**body):
            await call.write(pb.FromClient(**body).SerializeToString())

        async def flood():
            while True:
                await say(ping=pb.Ping(number=1 << 63))

        await say(hello=pb.Hello(protocol=1, protocol_minimum=1))
        target = struct.pack("!BBHI", 6, 0, listener.getsockname()[1], 0)
        target += bytes(10) + b"\xff\xff" + socket.inet_aton("127.0.0.1")
        await say(frames=frame(OPEN, 1, target))
        sock = await accept()
        flooding = asyncio.ensure_future(flood())
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(loop.sock_recv(sock, 1), 6 * PATIENCE)
        flooding.cancel()
        await other.lives()


# Streams that break


async def test_a_session_goes_on_in_another_stream(
    start_manager, new_client, listener, accept
):
    _, address = await start_manager()
    client = await new_client(address)
    welcome = await client.hello()
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    await client.frames((DATA, flow, b"before"))
    assert await receive(sock) == b"before"
    client.call.cancel()
    await asyncio.wait_for(client.ended.wait(), PATIENCE)
    await send(sock, b"meanwhile")

    again = await new_client(address)
    resumed = await again.hello(
        resume=pb.Resume(
            session=welcome.session, secret=welcome.secret, received=client.received
        )
    )
    assert resumed.resumed
    assert resumed.session == welcome.session
    assert resumed.received == 2
    assert await again.data(flow, 9) == b"meanwhile"
    await again.frames((DATA, flow, b"after"))
    assert await receive(sock) == b"after"


async def test_what_the_client_has_missed_is_said_again(
    start_manager, new_client, listener, accept
):
    _, address = await start_manager()
    client = await new_client(address)
    welcome = await client.hello()
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    had = client.received
    await send(sock, b"lost on the way")
    assert await client.data(flow, 15) == b"lost on the way"
    again = await new_client(address)
    resume = pb.Resume(session=welcome.session, secret=welcome.secret, received=had)
    assert (await again.hello(resume=resume)).resumed
    assert await again.data(flow, 15) == b"lost on the way"


async def test_a_new_stream_replaces_one_that_only_seems_alive(
    start_manager, new_client, listener, accept
):
    _, address = await start_manager()
    client = await new_client(address)
    welcome = await client.hello()
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    again = await new_client(address)
    resume = pb.Resume(
        session=welcome.session, secret=welcome.secret, received=client.received
    )
    assert (await again.hello(resume=resume)).resumed
    await asyncio.wait_for(client.ended.wait(), PATIENCE)
    await send(sock, b"to the new one")
    assert await again.data(flow, 14) == b"to the new one"


@pytest.mark.parametrize(
    "wrong", [{"secret": bytes(32)}, {"session": b"unknown"}, {"received": 1000}]
)
async def test_who_cannot_resume_gets_a_new_session(
    start_manager, new_client, wrong, listener, accept
):
    _, address = await start_manager()
    client = await new_client(address)
    welcome = await client.hello()
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    fields = {"session": welcome.session, "secret": welcome.secret, "received": 1}
    again = await new_client(address)
    fresh = await again.hello(resume=pb.Resume(**fields | wrong))
    assert not fresh.resumed
    assert fresh.session != welcome.session
    await client.frames((DATA, flow, b"not disturbed"))
    assert await receive(sock) == b"not disturbed"


async def test_a_client_that_does_not_come_back_loses_its_flows(
    start_manager, new_client, listener, accept
):
    _, address = await start_manager(resume=0.2)
    client = await new_client(address)
    welcome = await client.hello()
    await client.connect(listener.getsockname())
    sock = await accept()
    client.call.cancel()
    with pytest.raises(ConnectionResetError):
        await receive(sock)
    again = await new_client(address)
    resume = pb.Resume(session=welcome.session, secret=welcome.secret, received=1)
    assert not (await again.hello(resume=resume)).resumed


async def test_what_arrived_is_acknowledged(client, listener, accept):
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    loop = asyncio.get_running_loop()
    for _ in range(20):
        await client.frames((DATA, flow, bytes(65_536)))
        left = 65_536
        while left:
            left -= len(await asyncio.wait_for(loop.sock_recv(sock, left), PATIENCE))
    kind, payload = await client.frame(0)
    assert kind == ACK
    assert 16 <= struct.unpack("!Q", payload)[0] <= 21


# Ping, DNS, drain


async def test_two_sessions_have_flows_of_their_own(
    start_manager, new_client, listener, accept
):
    """The same numbers, the same target, the same moment."""
    _, address = await start_manager()
    ends = []
    for name in (b"first", b"second"):
        client = await new_client(address)
        await client.hello()
        flow = await client.connect(listener.getsockname())
        ends.append((client, flow, await accept(), name))
    assert ends[0][1] == ends[1][1]
    for client, flow, _, name in ends:
        await client.frames((DATA, flow, name))
    for client, flow, sock, name in ends:
        assert await receive(sock) == name
        await send(sock, name.upper())
        assert await client.data(flow, len(name)) == name.upper()
    client, flow, sock, _ = ends[0]
    await client.frames((99, flow, b""))
    await ended(client)
    with pytest.raises(ConnectionResetError):
        await receive(sock)
    client, flow, sock, _ = ends[1]
    await client.frames((DATA, flow, b"still here"))
    assert await receive(sock) == b"still here"


async def test_a_question_without_an_answer_says_why(start_manager, new_client, tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("search nowhere\n")
    _, address = await start_manager(resolv_conf=path)
    client = await new_client(address)
    await client.hello()
    await client.say(dns_question=pb.DnsQuestion(id=7, message=bytes(12), timeout=1000))
    answer = await client.body("dns_answer")
    assert (answer.id, answer.message) == (7, b"")
    assert "names no name server" in answer.error


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for port 53")
async def test_questions_are_answered_in_any_order(start_manager, new_client, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.83.7.3", 53))
        server.setblocking(False)
        path = tmp_path / "resolv.conf"
        path.write_text("nameserver 127.83.7.3\n")
        _, address = await start_manager(resolv_conf=path, questions_per_session=2)
        client = await new_client(address)
        await client.hello()
        loop = asyncio.get_running_loop()
        asked = []
        for number in (1, 2):
            question = struct.pack("!HHHHHHBHH", number, 256, 1, 0, 0, 0, 0, 1, 1)
            await client.say(dns_question=pb.DnsQuestion(id=number, message=question))
            ready = loop.create_future()
            loop.add_reader(server, lambda ready=ready: ready.done() or ready.set_result(1))
            await asyncio.wait_for(ready, PATIENCE)
            loop.remove_reader(server)
            asked.append(server.recvfrom(512))
        await client.say(dns_question=pb.DnsQuestion(id=3, message=question))
        answer = await client.body("dns_answer")
        assert (answer.id, answer.error) == (3, "2 questions are unanswered")
        for number in (2, 1):
            question, sender = asked[number - 1]
            server.sendto(question[:2] + b"\x81\x80" + question[4:], sender)
            answer = await client.body("dns_answer")
            assert answer.id == number
            assert answer.message == struct.pack("!H", number) + b"\x81\x80" + question[4:]
            assert answer.server == "127.83.7.3"


async def test_draining_waits_for_connections_and_takes_no_new_ones(
    start_manager, new_client, listener, accept
):
    manager, address = await start_manager()
    client = await new_client(address)
    await client.hello()
    flow = await client.connect(listener.getsockname())
    sock = await accept()
    draining = asyncio.ensure_future(manager.drain(30))
    drain = await client.body("drain")
    assert drain.timeout == 30_000
    extra = await client.open(listener.getsockname())
    kind, payload = await client.frame(extra)
    assert (kind, payload[0]) == (REFUSED, 8)
    late = await new_client(address)
    await late.say(hello=pb.Hello(protocol=1, protocol_minimum=1))
    assert (await ended(late)).code == pb.CODE_DRAINING
    await client.frames((DATA, flow, b"unhurried"), (FIN, flow, b""))
    assert await receive(sock) == b"unhurried"
    assert not draining.done()
    await send(sock, b"likewise")
    sock.close()
    assert await client.data(flow, 8) == b"likewise"
    assert await client.frame(flow) == (FIN, b"")
    assert (await ended(client)).code == pb.CODE_DRAINING
    await asyncio.wait_for(draining, PATIENCE)
    await asyncio.wait_for(manager.run(), PATIENCE)


async def test_draining_ends_when_its_time_is_up(
    start_manager, new_client, listener, accept
):
    manager, address = await start_manager()
    client = await new_client(address)
    await client.hello()
    await client.connect(listener.getsockname())
    sock = await accept()
    await asyncio.wait_for(manager.drain(0.2), PATIENCE)
    assert (await ended(client)).code == pb.CODE_DRAINING
    with pytest.raises(ConnectionResetError):
        await receive(sock)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(tuple(address.split(":")))
