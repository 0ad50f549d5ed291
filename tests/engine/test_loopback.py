"""The name server on loopback, with clients that are sockets."""

import asyncio
import socket

import pytest
import pytest_asyncio

from tests.support.answers import NONSENSE, Answers
from tests.support.questions import query, read
from tunstack.config import DnsConfig, NameMapping
from tunstack.dns.rules import Names, Rules
from tunstack.engine import loopback as module
from tunstack.engine.framing import MOST_ANSWERS, MOST_UNREAD, Framing
from tunstack.engine.loopback import MOST_CONNECTIONS, Loopback
from tunstack.engine.nameserver import NameServer
from tunstack.errors import HostError


def has_ipv6():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


HOSTS = ["127.0.0.1"]
if has_ipv6():
    HOSTS.append("::1")

needs_ipv6 = pytest.mark.skipif(len(HOSTS) < 2, reason="needs IPv6 on loopback")


@pytest.fixture
def server():
    return Answers()


@pytest_asyncio.fixture
async def loopback(stack, server):
    made = await Loopback.start(server)
    stack.callback(made.close)
    return made


class Asker(asyncio.DatagramProtocol):
    """Asks over UDP."""

    def __init__(self):
        self.answers = asyncio.Queue()

    def connection_made(self, transport):
        self.ask = transport.sendto
        self.close = transport.close

    def datagram_received(self, data, address):
        self.answers.put_nowait(data)


@pytest_asyncio.fixture
async def udp(stack):
    async def open_(host, port):
        _, asker = await asyncio.get_running_loop().create_datagram_endpoint(
            Asker, remote_addr=(host, port)
        )
        stack.callback(asker.close)
        return asker

    return open_


class Client:
    """Asks over TCP."""

    def __init__(self, reader, writer):
        self._reader = reader
        self.writer = writer

    def ask(self, *messages):
        self.writer.write(b"".join(map(Framing.frame, messages)))

    async def answer(self):
        async with asyncio.timeout(10):
            length = await self._reader.readexactly(2)
            return await self._reader.readexactly(int.from_bytes(length))

    async def rest(self):
        """Read to the end, whichever it is; gives the octets."""
        octets = 0
        async with asyncio.timeout(10):
            try:
                while piece := await self._reader.read(1 << 16):
                    octets += len(piece)
            except ConnectionResetError:
                pass
        return octets


@pytest_asyncio.fixture
async def tcp(stack, loopback):
    async def open_(host="127.0.0.1", **settings):
        client = Client(*await asyncio.open_connection(host, loopback.port, **settings))
        stack.callback(client.writer.close)
        return client

    return open_


async def passed(seconds):
    """Wait for time to pass: what is tested is that nothing happens in it."""
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, later.set)
    await later.wait()


@pytest.mark.parametrize("host", HOSTS)
async def test_one_port_answers_over_udp_and_tcp(loopback, server, udp, tcp, host):
    asker = await udp(host, loopback.port)
    asker.ask(b"one")
    assert await asker.answers.get() == b"re: one"
    client = await tcp(host)
    client.ask(b"two")
    assert await client.answer() == b"re: two"
    assert server.asked == [(b"one", False), (b"two", True)]


async def test_each_datagram_s_answer_goes_to_its_sender(loopback, server, udp):
    server.hold = True
    askers = [await udp("127.0.0.1", loopback.port) for _ in range(3)]
    arrived = asyncio.Event()
    server.on_question = lambda: len(server.asked) == 3 and arrived.set()
    for number, asker in enumerate(askers):
        asker.ask(b"%d" % number)
    await arrived.wait()
    server.answer()
    assert [await each.answers.get() for each in askers] == [b"re: 0", b"re: 1", b"re: 2"]


async def test_a_question_may_come_in_pieces_and_several_in_one(tcp, server):
    client = await tcp()
    arrived = asyncio.Event()
    server.on_question = arrived.set
    stream = b"".join(map(Framing.frame, (b"one", b"two", b"three")))
    client.writer.write(stream[:8])  # the first, and a part of the second
    await arrived.wait()
    client.writer.write(stream[8:])
    assert [await client.answer() for _ in range(3)] == [
        b"re: one",
        b"re: two",
        b"re: three",
    ]


async def test_who_asks_no_more_still_gets_the_answers(loopback, tcp, server):
    server.hold = True
    client = await tcp()
    arrived = asyncio.Event()
    server.on_question = lambda: len(server.asked) == 2 and arrived.set()
    client.ask(b"one", b"two")
    client.writer.write_eof()
    await arrived.wait()
    (connection,) = loopback._connections
    while not connection._finished:
        await asyncio.sleep(0)
    server.answer()
    assert [await client.answer() for _ in range(2)] == [b"re: one", b"re: two"]
    assert await client.rest() == 0


@pytest.mark.parametrize(
    "octets",
    [b"", b"\0", b"\0\7short", Framing.frame(NONSENSE), Framing.frame(NONSENSE) + b"\xff"],
)
async def test_what_is_no_question_keeps_nobody_waiting(tcp, server, octets):
    client = await tcp()
    client.writer.write(octets)
    client.writer.write_eof()
    assert await client.rest() == 0
    assert server.asked == ([(NONSENSE, True)] if NONSENSE in octets else [])


async def test_a_question_behind_nonsense_is_answered(loopback, tcp, udp):
    client = await tcp()
    client.ask(NONSENSE, b"one")
    assert await client.answer() == b"re: one"
    asker = await udp("127.0.0.1", loopback.port)
    asker.ask(NONSENSE)
    asker.ask(b"two")
    assert await asker.answers.get() == b"re: two"


# Idle connections


async def test_an_idle_connection_is_closed(tcp, monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.05)
    client = await tcp()
    client.ask(NONSENSE, b"one")
    assert await client.answer() == b"re: one"
    assert await client.rest() == 0


async def test_who_waits_for_an_answer_is_not_idle(tcp, server, monkeypatch):
    """The cluster may have 30 s for it (``dns.lookup_timeout``)."""
    monkeypatch.setattr(module, "IDLE", 0.04)
    server.hold = True
    client = await tcp()
    client.ask(b"one")
    await passed(0.15)
    server.answer()
    assert await client.answer() == b"re: one"
    assert await client.rest() == 0  # now it is


async def small_buffers(port):
    """Connect without room for much that is not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return Client(*await asyncio.open_connection(sock=sock, limit=1))


MOST_IN_KERNEL = 8 << 20
"""Octets that lie in buffers of the kernel, both sides together; a lot of them."""


@pytest_asyncio.fixture
async def unread(loopback, server):
    """A client that leaves more unread than the kernel holds, less than is too much."""
    server.make = lambda message: bytes(60_000)
    client = await small_buffers(loopback.port)
    transport = client.writer.transport
    transport.pause_reading()
    (connection,) = await until_connected(loopback)
    while not 1 <= connection._transport.get_write_buffer_size() <= MOST_UNREAD:
        client.ask(b"more")
        arrived = asyncio.Event()
        server.on_question = arrived.set
        await arrived.wait()
    yield client
    client.writer.close()


async def until_connected(loopback):
    while not loopback._connections:
        await asyncio.sleep(0)
    return loopback._connections


@pytest.mark.parametrize("end", ["idle", "end of file"])
async def test_who_reads_nothing_does_not_hold_an_idle_connection(
    loopback, server, unread, monkeypatch, end
):
    monkeypatch.setattr(module, "IDLE", 0.05)
    arrived = asyncio.Event()
    server.on_question = arrived.set
    unread.ask(b"more")
    if end == "end of file":
        unread.writer.write_eof()
    await arrived.wait()
    async with asyncio.timeout(10):
        while loopback._connections:
            await asyncio.sleep(0.01)


# Bounds


async def test_so_many_connections_and_no_more(loopback, server, tcp):
    clients = [await tcp() for _ in range(MOST_CONNECTIONS)]
    for client in clients:
        client.ask(b"here")
        assert await client.answer() == b"re: here"
    assert await (await tcp()).rest() == 0
    clients[0].ask(b"still here")
    assert await clients[0].answer() == b"re: still here"
    # One that goes makes room for one.
    clients[0].writer.write_eof()
    assert await clients[0].rest() == 0
    another = await tcp()
    another.ask(b"me too")
    assert await another.answer() == b"re: me too"


async def test_so_many_unanswered_questions_and_no_more(tcp, server):
    server.hold = True
    client, another = await tcp(), await tcp()
    arrived = asyncio.Event()
    server.on_question = lambda: len(server.asked) == MOST_ANSWERS + 1 and arrived.set()
    client.ask(*[b"?"] * (MOST_ANSWERS - 1), NONSENSE, b"?")
    await arrived.wait()
    server.answer()
    for _ in range(MOST_ANSWERS):
        assert await client.answer() == b"re: ?"
    client.ask(*[b"?"] * MOST_ANSWERS, b"?")
    assert await client.rest() == 0
    server.answer()  # nobody is there to hear it
    server.hold = False
    another.ask(b"one")
    assert await another.answer() == b"re: one"


async def test_who_does_not_read_is_cut_off(loopback, server):
    server.make = lambda message: bytes(60_000)
    asked = (MOST_IN_KERNEL + MOST_UNREAD) // 60_000
    client = await small_buffers(loopback.port)
    client.writer.transport.pause_reading()
    await until_connected(loopback)
    client.ask(*[b"more"] * asked)
    async with asyncio.timeout(10):
        while loopback._connections:
            await asyncio.sleep(0.01)
    client.writer.transport.resume_reading()
    assert await client.rest() < asked * 60_002
    client.writer.close()


async def test_who_reads_may_have_more_than_lies_unread(tcp, server):
    server.make = lambda message: bytes(60_000)
    client = await tcp()
    for _ in range(2 * MOST_UNREAD // 60_000):
        client.ask(b"more")
        assert len(await client.answer()) == 60_000


# The beginning and the end


async def test_the_end_frees_the_port_and_ends_connections(loopback, tcp, udp):
    client = await tcp()
    client.ask(b"one")
    assert await client.answer() == b"re: one"
    loopback.close()
    assert await client.rest() == 0
    for host in HOSTS:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, loopback.port))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, loopback.port)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_answers_after_the_end_are_no_trouble(
    loopback, server, udp, tcp, transport, caplog
):
    server.hold = True
    arrived = asyncio.Event()
    server.on_question = arrived.set
    if transport == "udp":
        (await udp("127.0.0.1", loopback.port)).ask(b"one")
    else:
        (await tcp()).ask(b"one")
    await arrived.wait()
    loopback.close()
    await passed(0)
    server.answer()
    await passed(0)
    assert caplog.messages == []


@needs_ipv6
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("host", HOSTS)
async def test_a_port_that_somebody_has_is_passed_over(
    stack, server, udp, monkeypatch, host, kind
):
    """Also where only one of the four is taken: questions would go to a stranger."""
    loop = asyncio.get_running_loop()
    taken, create = [], loop.create_datagram_endpoint

    async def create_datagram_endpoint(protocol, local_addr, family):
        if not taken:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
            stack.callback(sock.close)
            sock.bind((host, local_addr[1]))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            taken.append(local_addr[1])
        return await create(protocol, local_addr, family=family)

    monkeypatch.setattr(loop, "create_datagram_endpoint", create_datagram_endpoint)
    made = await Loopback.start(server)
    stack.callback(made.close)
    monkeypatch.undo()
    assert made.port != taken[0]
    for each in HOSTS:
        asker = await udp(each, made.port)
        asker.ask(b"one")
        assert await asker.answers.get() == b"re: one"
    # What was bound of the first is free again, once the loop has let go of it.
    other = next(each for each in HOSTS if each != host)
    family = socket.AF_INET6 if ":" in other else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((other, taken[0]))


async def test_without_ipv6_the_other_family_is_served(stack, server, udp, monkeypatch):
    monkeypatch.setitem(module._ADDRESSES, socket.AF_INET6, "2001:db8::1")  # not here
    made = await Loopback.start(server)
    stack.callback(made.close)
    asker = await udp("127.0.0.1", made.port)
    asker.ask(b"one")
    assert await asker.answers.get() == b"re: one"


async def test_no_port_at_all_is_the_host_s_fault(stack, server, monkeypatch):
    loop = asyncio.get_running_loop()

    async def create_server(*args, **settings):
        raise OSError("somebody has it")

    monkeypatch.setattr(loop, "create_server", create_server)
    with pytest.raises(HostError, match="no port of loopback is free"):
        await Loopback.start(server)


async def test_the_name_server_of_a_session_is_asked(stack, udp):
    config = DnsConfig(mappings=(NameMapping("printer.lan", "192.0.2.7"),))
    rules = Rules(Names(config=config))
    server = NameServer(None, config, rules, None, lambda: None)
    made = await Loopback.start(server)
    stack.callback(made.close)
    asker = await udp("127.0.0.1", made.port)
    asker.ask(query("printer.lan", number=99))
    client = Client(*await asyncio.open_connection("127.0.0.1", made.port))
    client.ask(b"nonsense", query("printer.lan", number=99))
    for reply in (await asker.answers.get(), await client.answer()):
        assert read(reply).id == 99
        assert str(read(reply).answer[0][0]) == "192.0.2.7"
    client.writer.close()
