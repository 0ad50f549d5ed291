"""A session over streams that break, with the real manager and with scripted ones."""

import asyncio
import hashlib
import random
import ssl
import struct
from ipaddress import ip_network
from itertools import islice

import pytest

import tunstack
from tests.support.fake_manager import (
    ACK,
    DATA,
    OPEN,
    OPENED,
    REFUSED,
    frame,
    split,
)
from tests.support.keys import make_keys
from tunstack._version import PROTOCOL
from tunstack.config import Config, TimeoutsConfig, TunnelConfig
from tunstack.engine.link import Link, backoff, parse_endpoint
from tunstack.engine.way import Direct
from tunstack.errors import AuthError, ConfigError, TunnelError, UsageError
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import Endpoint


class Watcher:
    """A listener that lets a test wait for what happens from now on."""

    def __init__(self, link):
        self.link = link
        self.states = asyncio.Queue()
        self.clusters = asyncio.Queue()
        link.listeners.append(self)

    def state_changed(self):
        self.states.put_nowait(self.link.state)

    def cluster_changed(self):
        self.clusters.put_nowait(self.link.cluster)

    def turn_ended(self):
        pass

    async def reaches(self, state):
        while await self.states.get() != state:
            pass


def watch(session):
    return Watcher(session._links)


async def connected(address, config, **credentials):
    """Start a link and close it: does a session come about?"""
    async with tunstack.connect(address, config=config, **credentials) as session:
        return session.status()


# Where a manager is


@pytest.mark.parametrize(
    ("manager", "ca", "insecure", "expected"),
    [
        ("127.0.0.1:7777", None, False, ("127.0.0.1", 7777, False)),
        ("[::1]:7777", None, False, ("::1", 7777, False)),
        ("localhost:7777", None, False, ("localhost", 7777, False)),
        ("127.0.0.1:7777", b"PEM", False, ("127.0.0.1", 7777, True)),
        ("10.0.0.1:7777", None, False, ("10.0.0.1", 7777, True)),
        ("[fd00::1]:1", None, True, ("fd00::1", 1, False)),
        ("manager.example:443", b"PEM", False, ("manager.example", 443, True)),
    ],
)
def test_plaintext_goes_to_loopback_only_unless_asked_for(manager, ca, insecure, expected):
    endpoint = parse_endpoint(manager, tls_ca=ca, insecure=insecure)
    assert (endpoint.host, endpoint.port, endpoint.tls) == expected


@pytest.mark.parametrize("manager", ["", "host", ":7777", "host:", "host:x", "host:65536"])
def test_an_address_that_is_none_is_named(manager):
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        parse_endpoint(manager, tls_ca=None, insecure=False)


def test_plaintext_and_authorities_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        parse_endpoint("10.0.0.1:7777", tls_ca=b"PEM", insecure=True)


def test_an_unknown_transport_is_named():
    with pytest.raises(ConfigError, match=r"tunnel\.transport: 'pigeon': want lean or"):
        TunnelConfig(transport="pigeon")


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        (0.0, [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (0.5, [0.075, 0.15, 0.3, 0.6, 1.2, 1.5, 1.5]),
    ],
)
def test_waits_double_up_to_a_bound_and_half_of_them_is_chance(chance, expected):
    waits = islice(backoff(0.1, 2.0, lambda: chance), 7)
    assert list(waits) == pytest.approx(expected)


# Beginning


async def test_a_session_knows_its_manager_and_the_cluster(start_manager):
    subnets = (ip_network("10.96.0.0/12"), ip_network("fd00:96::/112"))
    _, address = await start_manager(
        subnets=subnets, namespaces=("default",), namespace="tunstack"
    )
    async with tunstack.connect(address) as session:
        watcher = watch(session)
        status = session.status()
        assert status.state == "connected"
        assert status.cluster.subnets == subnets
        assert status.cluster.namespaces == ("default",)
        assert status.cluster.domain == "cluster.local"
        assert status.manager.address == address
        assert status.manager.namespace == "tunstack"
        assert (status.manager.version, status.manager.protocol) == (
            tunstack.__version__,
            PROTOCOL,
        )
    await watcher.reaches("disconnected")


async def test_the_round_trip_is_measured(fake_manager):
    ponged = asyncio.Event()

    async def script(manager):
        hello = pb.FromClient.FromString(await manager._context.read()).hello
        assert hello.protocol_minimum <= hello.protocol
        await manager.say(
            welcome=pb.Welcome(protocol=1, session=b"session", secret=b"secret")
        )
        ping = pb.FromClient.FromString(await manager._context.read()).ping
        await manager.say(pong=ping)
        # A pong to a question never asked means nothing.
        await manager.say(pong=pb.Ping(number=999))
        await manager.say(ping=pb.Ping(number=5))
        assert (await manager.hear()).pong.number == 5
        ponged.set()
        await manager.hear()

    async with tunstack.connect(await fake_manager(script)) as session:
        await ponged.wait()
        assert 0 < session.status().rtt < 5


async def test_nobody_there_names_the_address(settings, unused_tcp_port):
    address = f"127.0.0.1:{unused_tcp_port}"
    with pytest.raises(TunnelError, match=address) as caught:
        await connected(address, settings())
    assert caught.value.exit_code == 7
    assert caught.value.hint


async def test_a_silent_manager_names_the_setting(fake_manager, settings):
    async def silent(manager):
        while True:
            await manager.hear()

    address = await fake_manager(silent)
    with pytest.raises(TunnelError, match=r"timeouts\.manager_connect") as caught:
        await connected(address, settings(patience=0.2))
    assert address in str(caught.value)


async def test_something_that_accepts_and_says_nothing(serve, settings):
    async def say_nothing(reader, writer):
        await reader.read()

    address = f"127.0.0.1:{await serve(say_nothing)}"
    with pytest.raises(TunnelError, match=address):
        await connected(address, settings(patience=0.2))


@pytest.mark.parametrize("size", [1, 9, 100, 100_000])
async def test_random_octets_instead_of_http2(serve, settings, size):
    async def babble(reader, writer):
        writer.write(random.Random(size).randbytes(size))
        await reader.read()

    address = f"127.0.0.1:{await serve(babble)}"
    with pytest.raises(TunnelError, match=address):
        await connected(address, settings(patience=1.0))


async def test_another_grpc_service(fake_manager, settings):
    async def script(manager):
        raise AssertionError("not reached")

    address = await fake_manager(script, service="other.v1.Service")
    with pytest.raises(TunnelError, match=address):
        await connected(address, settings())


async def test_tls_towards_plaintext(manager_address, settings, certificate):
    pem = certificate[0].read_bytes()
    with pytest.raises((TunnelError, AuthError), match=manager_address):
        await connected(manager_address, settings(patience=1.0), tls_ca=pem)


async def test_authorities_that_are_none(manager_address, settings):
    pem = ssl.DER_cert_to_PEM_cert(b"none").encode()
    with pytest.raises(ConfigError, match="authorities"):
        await connected(manager_address, settings(), tls_ca=pem)


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_whoever_has_no_token_is_told(start_manager, settings, tmp_path, token):
    file = tmp_path / "tokens"
    file.write_text("right\n")
    _, address = await start_manager(token_file=file)
    with pytest.raises(AuthError, match="token") as caught:
        await connected(address, settings(), token=token)
    assert caught.value.exit_code == 8
    assert (await connected(address, settings(), token="right")).state == "connected"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1: the files of it and of its key."""
    keys = make_keys(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")
    return keys.certificate, keys.key


async def test_tls_trusts_the_given_authority_and_no_other(
    start_manager, settings, certificate
):
    cert, key = certificate
    _, address = await start_manager(tls_cert=cert, tls_key=key)
    for authority in (cert, str(cert), cert.read_bytes()):
        status = await connected(address, settings(), tls_ca=authority)
        assert status.state == "connected"
    # The system's authorities have never heard of it.
    host, _, port = address.rpartition(":")
    stranger = Endpoint(host=host, port=int(port), tls=True)
    with pytest.raises(AuthError, match="certificate"):
        await Link(Direct(stranger), token=None, config=settings()).start()


async def test_authorities_that_cannot_be_read_are_named(settings, tmp_path):
    with pytest.raises(ConfigError, match="absent"):
        await connected("127.0.0.1:1", settings(), tls_ca=tmp_path / "absent")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (pb.CODE_VERSION, TunnelError),
        (pb.CODE_FORBIDDEN, AuthError),
        (pb.CODE_LIMIT, TunnelError),
        (77, TunnelError),
    ],
)
async def test_a_goodbye_instead_of_a_welcome_says_why(fake_manager, settings, code, kind):
    async def refuse(manager):
        await manager.hear()
        await manager.say(goodbye=pb.Goodbye(code=code, reason="because"))

    with pytest.raises(kind, match="because"):
        await connected(await fake_manager(refuse), settings())


@pytest.mark.parametrize("version", [0, PROTOCOL + 1])
async def test_a_protocol_too_far_away_names_both_versions(fake_manager, settings, version):
    said = asyncio.get_running_loop().create_future()

    async def script(manager):
        await manager.welcome(protocol=version)
        said.set_result((await manager.hear()).goodbye)

    with pytest.raises(
        TunnelError, match=f"protocol {version}, this client 1 to {PROTOCOL}"
    ):
        await connected(await fake_manager(script), settings())
    assert (await said).code == pb.CODE_VERSION


# A manager that breaks the protocol


def not_a_subnet():
    return pb.ClusterInfo(subnets=[pb.Subnet(address=b"\x0a\0\0", prefix_length=8)])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\xff\xff", "not protobuf"),
        (b"", "something else came before the welcome"),
        (pb.FromManager(frames=frame(ACK, 0, bytes(8))), "before the welcome"),
        (pb.FromManager(ping=pb.Ping(number=1)), "before the welcome"),
        (
            pb.FromManager(welcome=pb.Welcome(protocol=1, cluster=not_a_subnet())),
            "0a0000/8 is not a subnet",
        ),
        (
            pb.FromManager(welcome=pb.Welcome(protocol=1, resumed=True)),
            "a session is resumed that does not fit ours",
        ),
    ],
)
async def test_nonsense_instead_of_a_welcome(fake_manager, settings, message, reason):
    said = asyncio.get_running_loop().create_future()

    async def script(manager):
        await manager.hear()
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        await manager.say_raw(raw)
        said.set_result((await manager.hear()).goodbye)

    with pytest.raises(TunnelError, match=f"broke the protocol: .*{reason}"):
        await connected(await fake_manager(script), settings())
    goodbye = await said
    assert goodbye.code == pb.CODE_PROTOCOL
    assert reason in goodbye.reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\xff\xff", "not protobuf"),
        (b"", "without content"),
        (pb.FromManager(frames=b"\0"), "not a sequence of whole frames"),
        (pb.FromManager(frames=frame(99, 1)), "unknown kind 99"),
        (pb.FromManager(frames=frame(DATA, 41, b"x")), "41"),
        (pb.FromManager(frames=struct.pack("!II", DATA << 24 | 9, 1)), "whole frames"),
        (pb.FromManager(welcome=pb.Welcome(protocol=1)), "a second welcome"),
        (pb.FromManager(cluster=not_a_subnet()), "is not a subnet"),
    ],
)
async def test_nonsense_later_ends_the_session_with_a_reason(
    fake_manager, settings, message, reason
):
    """Connections are reset, and the next session is another one."""
    goodbyes = asyncio.Queue()
    resumed = asyncio.Queue()

    async def script(manager):
        hello = await manager.welcome()
        await resumed.put(hello.HasField("resume"))
        for kind, flow, _ in split((await manager.hear()).frames):
            if kind == OPEN:
                await manager.say(frames=frame(OPENED, flow, struct.pack("!I", 1000)))
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        await manager.say_raw(raw)
        goodbyes.put_nowait((await manager.hear()).goodbye)

    async with tunstack.connect(await fake_manager(script), config=settings()) as session:
        watcher = watch(session)
        reader, _ = await session.open_connection("10.0.0.1", 80)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        goodbye = await goodbyes.get()
        assert goodbye.code == pb.CODE_PROTOCOL
        assert reason in goodbye.reason
        await watcher.reaches("connected")
        assert [await resumed.get(), await resumed.get()] == [False, False]


async def test_a_message_too_long_ends_the_stream_and_nothing_else(fake_manager, settings):
    watched = asyncio.Event()

    async def script(manager):
        await manager.welcome()
        if not watched.is_set():
            await watched.wait()
            await manager.say_raw(bytes(5 * 1024 * 1024))
        while True:
            await manager.hear()

    async with tunstack.connect(await fake_manager(script), config=settings()) as session:
        watcher = watch(session)
        watched.set()
        await watcher.reaches("reconnecting")
        await watcher.reaches("connected")


async def test_a_manager_that_opens_flows_is_refused(fake_manager):
    answer = asyncio.get_running_loop().create_future()

    async def script(manager):
        await manager.welcome()
        payload = struct.pack("!BBHI16s", 6, 0, 80, 1000, bytes(16))
        await manager.say(frames=frame(OPEN, 2, payload))
        answer.set_result(list(split((await manager.hear()).frames)))
        await manager.hear()

    async with tunstack.connect(await fake_manager(script)):
        [(kind, flow, _)] = await answer
        assert (kind, flow) == (REFUSED, 2)


# Going on


async def test_the_cluster_may_change(fake_manager):
    watched = asyncio.Event()

    async def script(manager):
        await manager.welcome()
        await watched.wait()
        subnet = pb.Subnet(address=b"\x0a\x60\0\0", prefix_length=16)
        await manager.say(cluster=pb.ClusterInfo(subnets=[subnet]))
        await manager.hear()

    async with tunstack.connect(await fake_manager(script)) as session:
        watcher = watch(session)
        watched.set()
        cluster = await watcher.clusters.get()
        assert str(cluster.subnets[0]) == "10.96.0.0/16"
        assert session.status().cluster == cluster


async def test_flows_live_through_a_stream_that_is_cut_again_and_again(
    manager_address, start_proxy, echo_port, settings
):
    proxy, address = await start_proxy(manager_address)
    size = 24 * 1024 * 1024
    data = random.Random(1).randbytes(size)
    async with tunstack.connect(address, config=settings()) as session:
        reader, writer = await session.open_connection("127.0.0.1", echo_port)

        async def upload():
            for start in range(0, size, 65_536):
                writer.write(data[start : start + 65_536])
                await writer.drain()
            writer.write_eof()

        async def cut():
            for _ in range(4):
                await proxy.passed(proxy.octets + size // 8)
                proxy.cut()

        cutting = asyncio.create_task(cut())
        uploading = asyncio.create_task(upload())
        received = await reader.read()
        await asyncio.gather(uploading, cutting)
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        assert proxy.connections >= 3
        writer.close()


async def test_a_manager_that_lost_the_session_resets_flows(
    start_manager, start_proxy, echo_port, settings
):
    _, address = await start_manager()
    proxy, proxied = await start_proxy(address)
    async with tunstack.connect(proxied, config=settings()) as session:
        watcher = watch(session)
        reader, _writer = await session.open_connection("127.0.0.1", echo_port)
        proxy.refusing = True
        proxy.cut()
        await watcher.reaches("reconnecting")
        # Another manager takes the place of the one that knew the session.
        _, other = await start_manager()
        host, _, port = other.rpartition(":")
        proxy.target = host, int(port)
        opening = asyncio.ensure_future(session.open_connection("127.0.0.1", echo_port))
        await asyncio.sleep(0)
        proxy.refusing = False
        with pytest.raises(ConnectionResetError, match="the tunnel was lost"):
            await reader.read()
        # What was opened meanwhile waited for the new session.
        reader, writer = await opening
        writer.write(b"new")
        assert await reader.readexactly(3) == b"new"
        assert session.status().state == "connected"


async def test_flows_are_lost_when_nothing_comes_back_in_time(
    manager_address, start_proxy, echo_port, settings
):
    proxy, address = await start_proxy(manager_address)
    async with tunstack.connect(address, config=settings(keepalive=0.2)) as session:
        reader, _ = await session.open_connection("127.0.0.1", echo_port)
        proxy.refusing = True
        proxy.cut()
        with pytest.raises(ConnectionResetError, match="the tunnel was lost"):
            await reader.read()
        assert session.status().state == "reconnecting"
        # It goes on trying all the same.
        proxy.refusing = False
        reader, writer = await session.open_connection("127.0.0.1", echo_port)
        writer.write(b"back")
        assert await reader.readexactly(4) == b"back"


async def test_a_flow_that_was_opening_is_opened_in_the_next_session(
    fake_manager, settings
):
    opened = []

    async def script(manager):
        hello = await manager.welcome(session=b"%d" % len(opened))
        for kind, flow, payload in split((await manager.hear()).frames):
            assert kind == OPEN
            opened.append((hello.HasField("resume"), payload))
            if len(opened) == 2:
                await manager.say(frames=frame(OPENED, flow, struct.pack("!I", 1000)))
                await manager.hear()

    async with tunstack.connect(await fake_manager(script), config=settings()) as session:
        await session.open_connection("10.0.0.1", 80)
    (first_resumes, first), (second_resumes, second) = opened
    assert first == second
    assert (first_resumes, second_resumes) == (False, True)


async def test_a_manager_that_falls_silent_is_left(fake_manager, settings):
    streams = 0

    async def script(manager):
        nonlocal streams
        streams += 1
        await manager.welcome()
        while True:
            await manager.hear()

    config = settings(keepalive=0.1)
    async with tunstack.connect(await fake_manager(script), config=config) as session:
        watcher = watch(session)
        await watcher.reaches("reconnecting")
        await watcher.reaches("connected")
        assert streams >= 2


async def test_a_question_survives_its_stream(fake_manager, settings):
    asked = []

    async def script(manager):
        await manager.welcome()
        question = (await manager.hear()).dns_question
        asked.append(question.message)
        if len(asked) == 2:
            answer = pb.DnsAnswer(id=question.id, message=b"answer")
            await manager.say(dns_answer=answer)
            # One that nobody waits for means nothing.
            await manager.say(dns_answer=answer)
            await manager.hear()

    async with tunstack.connect(await fake_manager(script), config=settings()) as session:
        assert (await session._links.ask(b"question", 10.0)).message == b"answer"
    assert asked == [b"question"] * 2


async def test_the_resolvers_own_error_is_told(fake_manager):
    async def script(manager):
        await manager.welcome()
        question = (await manager.hear()).dns_question
        await manager.say(dns_answer=pb.DnsAnswer(id=question.id, error="no nameserver"))
        await manager.hear()

    async with tunstack.connect(await fake_manager(script)) as session:
        with pytest.raises(TunnelError, match="no nameserver"):
            await session._links.ask(b"question", 10.0)


async def test_a_goodbye_later_resets_flows_and_begins_anew(fake_manager, settings):
    resumes = []

    async def script(manager):
        resumes.append((await manager.welcome()).HasField("resume"))
        for kind, flow, _ in split((await manager.hear()).frames):
            if kind == OPEN:
                await manager.say(frames=frame(OPENED, flow, struct.pack("!I", 1000)))
        if len(resumes) == 1:
            await manager.say(goodbye=pb.Goodbye(code=pb.CODE_DRAINING, reason="bye"))
        else:
            await manager.hear()

    async with tunstack.connect(await fake_manager(script), config=settings()) as session:
        reader, _ = await session.open_connection("10.0.0.1", 80)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await session.open_connection("10.0.0.1", 80)
    assert resumes == [False, False]


async def test_the_manager_hears_a_goodbye_behind_the_last_octets(fake_manager):
    heard = []

    async def script(manager):
        await manager.welcome()
        for _, flow, _ in split((await manager.hear()).frames):
            await manager.say(frames=frame(OPENED, flow, struct.pack("!I", 1000)))
        while True:
            said = await manager.hear()
            heard.extend(kind for kind, _, _ in split(said.frames))
            if said.WhichOneof("body") == "goodbye":
                heard.append(said.goodbye.code)
                return

    async with tunstack.connect(await fake_manager(script)) as session:
        _, writer = await session.open_connection("10.0.0.1", 80)
        writer.write(b"last words")
        writer.close()
    assert heard[0] == DATA
    assert heard[-1] == pb.CODE_CLOSED


async def test_closing_a_link_that_reconnects(manager_address, start_proxy, settings):
    proxy, address = await start_proxy(manager_address)
    config = Config(tunnel=TunnelConfig(reconnect_first=60.0), timeouts=TimeoutsConfig())
    async with tunstack.connect(address, config=config) as session:
        watcher = watch(session)
        proxy.refusing = True
        proxy.cut()
        await watcher.reaches("reconnecting")
    assert session.status().state == "disconnected"
