"""The library against the real manager and real sockets on loopback."""

import asyncio
import errno
import hashlib
import random
import socket
import struct
import subprocess
import sys

import dns.message
import dns.rrset
import pytest

import tunstack
from tests.support.fake_manager import CREDIT, DATA, DATAGRAM, OPEN, OPENED, frame, split
from tunstack.config import Config, DnsConfig, KiB, TcpConfig
from tunstack.engine.link import Cluster
from tunstack.engine.names import candidates
from tunstack.rpc import tunnel_pb2 as pb

MiB = 1024 * KiB


def octets(size, seed=0):
    return random.Random(seed).randbytes(size)


async def test_bytes_come_back_through_a_real_asyncio_stream(session, echo_port):
    reader, writer = await session.open_connection("127.0.0.1", echo_port)
    assert writer.get_extra_info("peername") == ("127.0.0.1", echo_port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 20 * MiB])
async def test_any_amount_goes_both_ways_at_once(session, echo_port, size):
    reader, writer = await session.open_connection("127.0.0.1", echo_port)
    data = octets(size)

    async def upload():
        for start in range(0, size, 100_000):
            writer.write(data[start : start + 100_000])
            await writer.drain()
        writer.write_eof()

    uploading = asyncio.create_task(upload())
    received = await reader.read()
    await uploading
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    writer.close()


async def test_a_client_that_has_finished_still_gets_the_answer(session, serve):
    async def answer_the_end(reader, writer):
        question = await reader.read()
        writer.write(question.upper() * 1000)
        await writer.drain()

    port = await serve(answer_the_end)
    reader, writer = await session.open_connection("127.0.0.1", port)
    writer.write(b"half")
    writer.write_eof()
    assert await reader.read() == b"HALF" * 1000
    writer.close()


async def test_a_server_that_has_finished_still_gets_what_is_written(session, serve):
    received = asyncio.get_running_loop().create_future()

    async def finish_first(reader, writer):
        writer.write_eof()
        received.set_result(await reader.read())

    port = await serve(finish_first)
    reader, writer = await session.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.write(b"still here")
    writer.close()
    assert await received == b"still here"


async def test_what_was_written_arrives_although_the_writer_was_closed(session, serve):
    received = asyncio.get_running_loop().create_future()

    async def collect(reader, writer):
        received.set_result(await reader.read())

    port = await serve(collect)
    _, writer = await session.open_connection("127.0.0.1", port)
    data = octets(5 * MiB)
    writer.write(data)
    writer.close()
    await writer.wait_closed()
    assert await received == data


async def test_a_reader_that_does_not_read_holds_no_more_than_its_credit(fake_manager):
    credit, limit, piece = 256 * KiB, 16 * KiB, 16 * KiB
    granted = []
    all_arrived = asyncio.Event()
    all_granted = asyncio.Event()

    async def pour(manager):
        await manager.welcome()
        [(kind, flow, payload)] = split((await manager.hear()).frames)
        assert (kind, struct.unpack("!BBHI16s", payload)[3]) == (OPEN, credit)
        await manager.say(frames=frame(OPENED, flow, struct.pack("!I", credit)))
        data = frame(DATA, flow, bytes(piece))
        await manager.say(frames=data * (credit // piece))
        await manager.say(ping=pb.Ping(number=1))
        while True:
            said = await manager.hear()
            if said.WhichOneof("body") == "pong":
                all_arrived.set()
            for kind, _, payload in split(said.frames):
                if kind == CREDIT:
                    granted.append(struct.unpack("!I", payload)[0])
            if sum(granted) == credit:
                all_granted.set()

    config = Config(tcp=TcpConfig(send_buffer=credit))
    async with tunstack.connect(await fake_manager(pour), config=config) as session:
        reader, _ = await session.open_connection("10.0.0.1", 80, limit=limit)
        await all_arrived.wait()
        assert sum(granted) <= 2 * limit + piece  # what the reader itself took
        await reader.readexactly(credit)
        await all_granted.wait()


async def test_a_writer_is_paused_when_the_other_end_does_not_read(session, serve):
    go_on = asyncio.Event()
    received = asyncio.get_running_loop().create_future()

    async def wait_then_read(reader, writer):
        reader._transport.pause_reading()
        await go_on.wait()
        reader._transport.resume_reading()
        received.set_result(len(await reader.read()))

    port = await serve(wait_then_read)
    _, writer = await session.open_connection("127.0.0.1", port)
    size = 32 * MiB
    writer.write(bytes(size))
    draining = asyncio.create_task(writer.drain())
    # Another connection works meanwhile: the first holds up only itself.
    async with await session.open_datagram("127.0.0.1", port) as other:
        await other.send(b"")
    assert writer.transport.get_write_buffer_size() > 0
    assert not draining.done()
    go_on.set()
    await draining
    writer.close()
    assert await received == size


async def test_a_closed_port_refuses(session):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await session.open_connection("127.0.0.1", sock.getsockname()[1])
    assert session.status().flows["tcp"] == 0


async def test_an_address_without_a_way_is_unreachable(session):
    with pytest.raises(OSError, match=r"255\.255\.255\.255:80: ") as caught:
        await session.open_connection("255.255.255.255", 80)
    assert caught.value.errno == errno.ENETUNREACH


async def test_a_reset_of_the_server_is_a_reset_here(session, serve):
    async def reset(reader, writer):
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    port = await serve(reset)
    reader, writer = await session.open_connection("127.0.0.1", port)
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(ConnectionResetError):
        await writer.drain()


async def test_the_server_sees_a_reset_when_the_transport_is_aborted(session, serve):
    ended = asyncio.get_running_loop().create_future()

    async def expect_reset(reader, writer):
        try:
            ended.set_result(await reader.read())
        except ConnectionResetError as error:
            ended.set_result(error)

    port = await serve(expect_reset)
    _, writer = await session.open_connection("127.0.0.1", port)
    writer.transport.abort()
    assert isinstance(await ended, ConnectionResetError)


async def test_the_server_learns_that_nobody_reads_any_more(session, serve):
    refused = asyncio.get_running_loop().create_future()

    async def pour(reader, writer):
        try:
            while True:
                writer.write(bytes(64 * KiB))
                await writer.drain()
        except ConnectionError as error:
            refused.set_result(error)

    port = await serve(pour)
    reader, writer = await session.open_connection("127.0.0.1", port)
    await reader.readexactly(1)
    writer.close()
    await writer.wait_closed()
    assert isinstance(await refused, ConnectionError)


async def test_opening_can_be_given_up(session, echo_port):
    opening = asyncio.ensure_future(session.open_connection("127.0.0.1", echo_port))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert session.status().flows["tcp"] == 0


async def test_many_connections_at_once(session, echo_port):
    async def once(number):
        reader, writer = await session.open_connection("127.0.0.1", echo_port)
        data = octets(10_000, number)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*map(once, range(200)))


async def test_what_is_open_when_the_session_ends_is_reset(manager_address, echo_port):
    async with tunstack.connect(manager_address) as session:
        reader, _ = await session.open_connection("127.0.0.1", echo_port)
        sock = await session.open_datagram("127.0.0.1", echo_port)
        receiving = asyncio.ensure_future(sock.recv())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(OSError, match="the socket is closed"):
        await receiving
    with pytest.raises(ConnectionResetError):
        await session.open_connection("127.0.0.1", echo_port)
    assert session.status().state == "disconnected"


@pytest.fixture
def udp_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize("size", [0, 1, 1472, 65_507])
async def test_datagrams_go_there_and_back(session, udp_server, size):
    loop = asyncio.get_running_loop()
    async with await session.open_datagram(*udp_server.getsockname()) as sock:
        await sock.send(octets(size))
        # recv and send by hand: uvloop has no sock_recvfrom on all versions.
        readable = loop.create_future()
        loop.add_reader(udp_server, readable.set_result, None)
        await readable
        loop.remove_reader(udp_server)
        data, peer = udp_server.recvfrom(65_536)
        udp_server.sendto(data, peer)
        assert await sock.recv() == octets(size)


async def test_a_datagram_that_cannot_be_is_refused_here(session):
    async with await session.open_datagram("127.0.0.1", 9) as sock:
        with pytest.raises(OSError, match="Message too long"):
            await sock.send(bytes(65_508))


async def test_a_closed_udp_port_is_an_error_of_the_next_call(session, udp_server):
    _, port = udp_server.getsockname()
    udp_server.close()
    async with await session.open_datagram("127.0.0.1", port) as sock:
        await sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await sock.recv()


async def test_a_closed_datagram_socket_says_so(session):
    sock = await session.open_datagram("127.0.0.1", 9)
    receiving = asyncio.ensure_future(sock.recv())
    await asyncio.sleep(0)
    sock.close()
    for call in (receiving, sock.send(b"")):
        with pytest.raises(OSError, match="the socket is closed"):
            await call


async def test_a_datagram_after_the_manager_gave_up_an_idle_flow_gets_through(
    start_manager, udp_server
):
    _, address = await start_manager(idle=0.05)
    loop = asyncio.get_running_loop()
    async with tunstack.connect(address) as session:
        sock = await session.open_datagram(*udp_server.getsockname())
        await sock.send(b"first")
        while session.status().flows["udp"]:
            await asyncio.sleep(0.01)
        await sock.send(b"second")
        received = []
        both = loop.create_future()

        def read():
            received.append(udp_server.recv(100))
            if len(received) == 2:
                both.set_result(None)

        loop.add_reader(udp_server, read)
        await both
        loop.remove_reader(udp_server)
        assert received == [b"first", b"second"]


async def test_datagrams_that_nobody_receives_are_bounded_and_counted(
    fake_manager, settings
):
    async def flood(manager):
        await manager.welcome()
        for kind, flow, _ in split((await manager.hear()).frames):
            if kind == OPEN:
                frames = b"".join(frame(DATAGRAM, flow, bytes(60_000)) for _ in range(4))
                for _ in range(10):
                    await manager.say(frames=frames)
        await manager.hear()

    address = await fake_manager(flood)
    async with tunstack.connect(address, config=settings()) as session:
        sock = await session.open_datagram("127.0.0.1", 9)
        await sock.send(b"")
        while sock.dropped < 40 - 1024 * 1024 // 60_000:
            await asyncio.sleep(0.01)
        received = 0
        while received < 1024 * 1024 // 60_000:
            assert len(await sock.recv()) == 60_000
            received += 1


# Names


CLUSTER = Cluster(namespaces=("default", "prod"), domain="cluster.local")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("echo.default", ["echo.default.svc.cluster.local.", "echo.default."]),
        ("echo.default.svc", ["echo.default.svc.cluster.local.", "echo.default.svc."]),
        ("a.echo.prod", ["a.echo.prod.svc.cluster.local.", "a.echo.prod."]),
        ("example.com", ["example.com."]),
        ("echo.default.svc.cluster.local", ["echo.default.svc.cluster.local."]),
        ("echo.default.", ["echo.default."]),
        ("echo", ["echo."]),
    ],
)
def test_names_are_completed_to_services(name, expected):
    assert candidates(name, CLUSTER) == expected


def test_any_second_label_may_be_a_namespace_when_none_are_known():
    assert candidates("echo.blue", Cluster(domain="c.l"))[0] == "echo.blue.svc.c.l."


def resolver(*, zone, rcode="NOERROR"):
    """Script a manager that answers questions from ``zone``."""

    async def script(manager):
        await manager.welcome(
            cluster=pb.ClusterInfo(namespaces=["default"], cluster_domain="cluster.local")
        )
        while True:
            question = (await manager.hear()).dns_question
            query = dns.message.from_wire(question.message)
            reply = dns.message.make_response(query)
            asked = query.question[0]
            records = zone.get((str(asked.name), asked.rdtype.name), [])
            if records:
                reply.answer = [
                    dns.rrset.from_text(asked.name, 5, "IN", asked.rdtype, *records)
                ]
            elif rcode == "NOERROR":
                reply.set_rcode(dns.rcode.NXDOMAIN)
            else:
                reply.set_rcode(dns.rcode.from_text(rcode))
            answer = pb.DnsAnswer(id=question.id, message=reply.to_wire())
            await manager.say(dns_answer=answer)

    return script


ZONE = {
    ("echo.default.svc.cluster.local.", "A"): ["10.96.0.7", "10.96.0.8"],
    ("echo.default.svc.cluster.local.", "AAAA"): ["fd00::7"],
    ("example.com.", "A"): ["192.0.2.1"],
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("echo.default", ["10.96.0.7", "10.96.0.8", "fd00::7"]),
        ("example.com", ["192.0.2.1"]),
        ("10.1.2.3", ["10.1.2.3"]),
        ("fd00::1", ["fd00::1"]),
    ],
)
async def test_names_resolve_as_the_cluster_sees_them(fake_manager, name, expected):
    async with tunstack.connect(await fake_manager(resolver(zone=ZONE))) as session:
        assert sorted(await session.resolve(name)) == expected


@pytest.mark.parametrize("name", ["nobody.default", "bad..name", "x" * 64])
async def test_a_name_that_does_not_exist(fake_manager, name):
    async with tunstack.connect(await fake_manager(resolver(zone={}))) as session:
        with pytest.raises(socket.gaierror) as caught:
            await session.resolve(name)
    assert caught.value.errno == socket.EAI_NONAME


async def test_a_sick_resolver_is_not_an_absent_name(fake_manager):
    script = resolver(zone={}, rcode="SERVFAIL")
    async with tunstack.connect(await fake_manager(script)) as session:
        with pytest.raises(socket.gaierror, match="SERVFAIL") as caught:
            await session.resolve("echo.default")
    assert caught.value.errno == socket.EAI_AGAIN


async def test_a_silent_resolver_is_waited_for_within_its_setting(fake_manager):
    async def silent(manager):
        await manager.welcome()
        while True:
            await manager.hear()

    config = Config(dns=DnsConfig(lookup_timeout=0.05))
    async with tunstack.connect(await fake_manager(silent), config=config) as session:
        with pytest.raises(socket.gaierror, match=r"did not answer within 0\.05 s"):
            await session.resolve("echo.default")


# The package


def test_importing_the_package_loads_nothing_heavy():
    program = """
import sys, tunstack
assert not {"asyncio", "grpc", "dns", "google.protobuf"} & set(sys.modules)
for name in tunstack.__all__:
    getattr(tunstack, name)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
