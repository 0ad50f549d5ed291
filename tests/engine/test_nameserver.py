"""The name server of a session, with a manager and name servers that tests script."""

import asyncio
import os

import pytest
import pytest_asyncio

from tests.support.questions import answer, query, read, said
from tunstack.config import Config, DnsConfig, NameMapping
from tunstack.dns.rules import Names, Rules
from tunstack.engine.link import parse_endpoint
from tunstack.engine.links import Links
from tunstack.engine.nameserver import MOST_ASKED, NameServer
from tunstack.engine.way import Direct
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.upstream.upstream import Upstream

SERVICE = "echo.default.svc.cluster.local"
"""Only the cluster knows it."""

FOREIGN = "www.example.com"
"""Only this host's name servers know it."""

ADDRESS = "@ 30 A 10.96.0.7"
RESOLVER = "10.96.0.10"

needs_port_53 = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for port 53")
FIRST = "127.83.9.1"


def service(number):
    return f"s{number}.default.svc.cluster.local"


class Resolver:
    """The manager's side: says what ``function`` makes of a question.

    Args:
        function: gives fields of the answer; ``None`` for silence.
    """

    def __init__(self, function=lambda question: None):
        self.function = function
        self.heard = asyncio.Queue()
        self._pong = asyncio.Event()
        self._writing = asyncio.Lock()  # grpcio takes one message after the other

    async def __call__(self, manager):
        self._manager = manager
        await manager.welcome()
        while True:
            message = await manager.hear()
            body = message.WhichOneof("body")
            if body == "pong":
                self._pong.set()
            elif body == "dns_question":
                question = message.dns_question
                self.heard.put_nowait(question)
                fields = self.function(question.message)
                if fields is not None:
                    await self.say(question, **fields)

    async def say(self, question, **fields):
        async with self._writing:
            await self._manager.say(dns_answer=pb.DnsAnswer(id=question.id, **fields))

    async def hear(self, count):
        return [await self.heard.get() for _ in range(count)]

    async def caught_up(self):
        """Wait until both sides have heard what the other has said so far."""
        self._pong.clear()
        async with self._writing:
            await self._manager.say(ping=pb.Ping(number=1))
        await self._pong.wait()


class Client:
    """Whoever asks."""

    def __init__(self):
        self.answers = asyncio.Queue()
        self.reply = self.answers.put_nowait

    async def answer(self):
        async with asyncio.timeout(10):
            return read(await self.answers.get())


def knows(question):
    return {"message": answer(question, ADDRESS), "server": RESOLVER, "elapsed": 1500}


@pytest_asyncio.fixture
async def start(fake_manager, stack):
    """Start a name server whose cluster is a function or a :class:`Resolver`."""

    async def start(resolver, *, upstream=None, flush=lambda: None, **dns):
        if not isinstance(resolver, Resolver):
            resolver = Resolver(resolver)
        config = DnsConfig(**dns)
        address = await fake_manager(resolver)
        way = Direct(parse_endpoint(address, tls_ca=None, insecure=True))
        links = Links(way, token=None, config=Config(dns=config))
        await links.start()
        stack.push_async_callback(links.close)
        names = Names(config=config, domain="cluster.local", namespaces=("default",))
        server = NameServer(links, config, Rules(names), upstream, flush)
        stack.callback(server.close)
        return server

    return start


class HostServer(asyncio.DatagramProtocol):
    """A name server of this host, over UDP and TCP."""

    def __init__(self):
        self.asked = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(self.answer("udp", data), address)

    async def serve(self, reader, writer):
        question = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        reply = self.answer("tcp", question)
        writer.write(len(reply).to_bytes(2) + reply)
        writer.close()

    def answer(self, transport, question):
        self.asked.append((transport, str(read(question).question[0].name)))
        return answer(question, "@ 60 A 192.0.2.1")


@pytest_asyncio.fixture
async def host_server(stack):
    server = HostServer()
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: server, local_addr=(FIRST, 53))
    stack.callback(server.transport.close)
    listening = await asyncio.start_server(server.serve, FIRST, 53)
    stack.callback(listening.close)
    return server


def rcode(message):
    return message.rcode().name


def addresses(message):
    return [str(data) for rrset in message.answer for data in rrset]


# Questions to the cluster


async def test_the_cluster_s_answer_goes_to_who_asked(start):
    flushed = asyncio.Event()
    server = await start(knows, flush=flushed.set)
    client = Client()
    assert server.receive(query(SERVICE, number=77), client, tcp=False)
    reply = await client.answer()
    assert (reply.id, rcode(reply), addresses(reply)) == (77, "NOERROR", ["10.96.0.7"])
    # It came in nobody's turn: whoever writes is told.
    await flushed.wait()


async def test_what_is_known_is_answered_at_once(start):
    server = await start(knows)
    first, second = Client(), Client()
    server.receive(query(SERVICE), first, tcp=False)
    await first.answer()
    server.receive(query(SERVICE), second, tcp=False)
    assert not second.answers.empty()


async def test_why_there_is_no_answer_is_said(start):
    why = "10.96.0.10 is unreachable"
    server = await start(lambda question: {"error": why, "server": RESOLVER})
    client = Client()
    server.receive(query(SERVICE), client, tcp=False)
    message = await client.answers.get()
    assert rcode(read(message)) == "SERVFAIL"
    assert why in said(message)[0]
    health = server.health.document()
    assert (health["address"], health["last_failure"]) == (RESOLVER, why)
    assert (health["asked"], health["failures"], health["p50"]) == (1, 1, None)


async def test_silence_is_a_failure_after_the_lookup_timeout(start):
    flushed = asyncio.Event()
    server = await start(Resolver(), lookup_timeout=0.1, flush=flushed.set)
    loop = asyncio.get_running_loop()
    client, began = Client(), loop.time()
    server.receive(query(SERVICE), client, tcp=False)
    message = await client.answers.get()
    assert 0.09 < loop.time() - began < 5
    assert rcode(read(message)) == "SERVFAIL"
    assert "did not answer within 0.1 s" in said(message)[0]
    await flushed.wait()


async def test_the_next_silence_is_timed_like_the_first(start):
    flushed = asyncio.Event()
    server = await start(Resolver(), lookup_timeout=0.05, flush=flushed.set)
    server._timeout = 30  # what the tunnel does meanwhile is another matter
    for number in range(3):
        client = Client()
        server.receive(query(service(number)), client, tcp=False)
        assert rcode(await client.answer()) == "SERVFAIL"
        await flushed.wait()
        flushed.clear()


async def test_a_session_that_is_over_is_a_failure(start, stack):
    server = await start(knows)
    await server._links.close()
    report = await server.query(SERVICE, 1)
    assert report["rcode"] == "SERVFAIL"
    assert report["steps"][0]["outcome"] == "the session is closed"


@pytest.mark.parametrize(
    ("message", "answered"),
    [
        (b"", False),
        (b"short", False),
        (answer(query(SERVICE)), False),  # nobody answers answers
        (query(SERVICE)[:20], True),
        (query(SERVICE)[:2] + b"\x28\x00" + query(SERVICE)[4:], True),  # an update
    ],
)
async def test_it_is_said_whether_there_will_be_an_answer(start, message, answered):
    server = await start(knows)
    client = Client()
    assert server.receive(message, client, tcp=True) is answered
    assert client.answers.empty() is not answered


def flood(server, count):
    """Ask so many questions at once, each of a client of its own; gives those."""
    clients = [Client() for _ in range(count)]
    for number, client in enumerate(clients):
        server.receive(query(service(number)), client, tcp=False)
    return clients


async def test_no_more_are_asked_at_once_than_the_manager_takes(start):
    resolver = Resolver()
    server = await start(resolver, lookup_timeout=30)
    clients = flood(server, MOST_ASKED + 44)
    waiting = await resolver.hear(MOST_ASKED)
    await resolver.caught_up()
    assert resolver.heard.empty()
    # One that is answered makes room for one.
    question = waiting.pop(0)
    await resolver.say(question, **knows(question.message))
    waiting += await resolver.hear(1)
    await resolver.caught_up()
    assert resolver.heard.empty()
    resolver.function = knows
    for question in waiting:
        await resolver.say(question, **knows(question.message))
    for client in clients:
        assert addresses(await client.answer()) == ["10.96.0.7"]
    heard = len(waiting) + 1 + resolver.heard.qsize()
    assert heard == len(clients)  # each once


async def test_a_silent_cluster_holds_up_no_question_to_this_host(start):
    """No name server of this host is named: that is said at once."""
    server = await start(Resolver(), upstream=Upstream(list, where="the test"))
    flood(server, 2 * MOST_ASKED)
    client = Client()
    server.receive(query(FOREIGN), client, tcp=False)
    assert rcode(await client.answer()) == "SERVFAIL"
    assert server.machine.counts == {"nobody": 1}


async def test_what_nobody_waits_for_any_more_is_not_asked(start):
    """Else what is asked later would wait behind it, the longer the silence was."""
    resolver = Resolver()
    server = await start(resolver, lookup_timeout=0.5)
    clients = flood(server, MOST_ASKED + 44)
    for client in clients:
        assert rcode(await client.answer()) == "SERVFAIL"
    while tasks := tuple(server._sides["cluster"].tasks):
        await asyncio.wait(tasks)
    await resolver.caught_up()
    resolver.function = knows
    client = Client()
    server.receive(query(SERVICE), client, tcp=False)
    assert addresses(await client.answer()) == ["10.96.0.7"]
    # A clock of milliseconds may let one through.
    assert MOST_ASKED < resolver.heard.qsize() < MOST_ASKED + 10


# Questions to this host's name servers


@needs_port_53
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_this_host_s_name_servers_are_asked_as_the_client_asked(
    start, host_server, transport
):
    flushed = asyncio.Event()
    upstream = Upstream(lambda: [FIRST])
    server = await start(knows, upstream=upstream, flush=flushed.set)
    client = Client()
    server.receive(query(FOREIGN, number=5), client, tcp=transport == "tcp")
    reply = await client.answer()
    assert (reply.id, addresses(reply)) == (5, ["192.0.2.1"])
    assert host_server.asked == [(transport, f"{FOREIGN}.")]
    await flushed.wait()
    assert server.health.asked == 0  # that is the cluster's


@needs_port_53
async def test_each_side_has_its_names(start, host_server):
    server = await start(knows, upstream=Upstream(lambda: [FIRST]))
    reports = [await server.query(name, 1) for name in (SERVICE, FOREIGN)]
    assert [report["by"] for report in reports] == ["cluster", "host"]
    (step,) = reports[1]["steps"]
    assert (step["to"], step["server"], step["outcome"]) == ("host", FIRST, "NOERROR")


async def test_a_host_without_name_servers_has_no_answers(start):
    server = await start(knows, upstream=Upstream(list, where="the test"))
    client = Client()
    server.receive(query(FOREIGN), client, tcp=False)
    message = await client.answers.get()
    assert rcode(read(message)) == "SERVFAIL"
    assert said(message) == ["the test names no name server"]
    assert not (await start(knows)).machine.has_host


# Health


async def test_health_has_percentiles_of_the_times_that_the_manager_says(start):
    def function(question):
        number = int(str(read(question).question[0].name).partition(".")[0][1:])
        return {**knows(question), "elapsed": number * 1000}

    server = await start(function)
    assert server.health.document() == {
        "address": None,
        "asked": 0,
        "failures": 0,
        "last_failure": None,
        "p50": None,
        "p99": None,
    }
    for number in range(100):
        await server.query(service(99 - number), 1)
    health = server.health.document()
    assert (health["address"], health["asked"], health["failures"]) == (RESOLVER, 100, 0)
    assert health["p50"] == pytest.approx(0.050)
    assert health["p99"] == pytest.approx(0.099)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda question: {"message": b"?"}, "it says what is no DNS message"),
        (lambda question: {"message": answer(question, rcode="REFUSED")}, "says REFUSED"),
        (lambda question: {"message": answer(question, rcode="SERVFAIL")}, "SERVFAIL"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure(start, function, why):
    server = await start(lambda question: {**function(question), "server": RESOLVER})
    assert (await server.query(SERVICE, 1))["rcode"] == "SERVFAIL"
    health = server.health.document()
    assert (health["failures"], health["asked"]) == (1, 1)
    assert health["address"] == RESOLVER
    assert why in health["last_failure"]


async def test_that_a_name_does_not_exist_is_an_answer(start):
    server = await start(lambda question: {"message": answer(question, rcode="NXDOMAIN")})
    assert (await server.query(SERVICE, 1))["rcode"] == "NXDOMAIN"
    health = server.health.document()
    assert (health["asked"], health["failures"], health["p50"]) == (1, 0, 0)


# Our own questions, and who looks on


async def test_a_query_says_how_it_was_answered(start):
    server = await start(knows)
    report = await server.query(f"{SERVICE}.", 1)
    assert (report["name"], report["type"], report["rcode"]) == (SERVICE, 1, "NOERROR")
    assert (report["by"], report["rule"]) == ("cluster", "cluster domain")
    assert report["seconds"] > 0
    (step,) = report["steps"]
    assert (step["to"], step["name"], step["outcome"]) == ("cluster", SERVICE, "NOERROR")
    assert step["server"] == RESOLVER
    assert addresses(read(bytes.fromhex(report["message"]))) == ["10.96.0.7"]
    again = await server.query(SERVICE, 1)
    assert (again["by"], again["steps"]) == ("cache", [])


async def test_what_is_no_name_is_not_asked(start):
    server = await start(knows)
    with pytest.raises(ValueError, match="is not a name"):
        await server.query("two..dots", 1)


async def test_the_answer_to_a_query_that_was_given_up_is_no_trouble(start):
    resolver = Resolver()
    server = await start(resolver)
    asking = asyncio.ensure_future(server.query(SERVICE, 1))
    (question,) = await resolver.hear(1)
    asking.cancel()
    await asyncio.wait((asking,))
    client = Client()
    server.receive(query(SERVICE), client, tcp=False)  # the same, asked once
    await resolver.say(question, **knows(question.message))
    assert addresses(await client.answer()) == ["10.96.0.7"]
    assert resolver.heard.empty()


PRINTER = NameMapping("printer.lan", "192.0.2.7")


async def test_who_does_not_keep_up_misses_some_and_is_told_how_many(start):
    server = await start(knows, mappings=(PRINTER,))
    client, message = Client(), query("printer.lan")
    log = server.log()
    first = asyncio.ensure_future(anext(log))
    while not server.observers:
        await asyncio.sleep(0)

    def ask(count):
        for _ in range(count):
            server.receive(message, client, tcp=False)
        server.receive(b"nonsense", client, tcp=False)  # no question, no report

    ask(1005)
    reports = [await first] + [await anext(log) for _ in range(999)]
    assert {report["missed"] for report in reports} == {0}
    ask(2)
    assert [(await anext(log))["missed"] for _ in range(2)] == [5, 0]
    await log.aclose()
    assert not server.observers
    ask(1)


async def test_a_log_shows_the_questions_of_others_with_their_steps(start):
    server = await start(knows)
    log = server.log()
    first = asyncio.ensure_future(anext(log))
    while not server.observers:
        await asyncio.sleep(0)
    server.receive(query(SERVICE, "AAAA"), Client(), tcp=False)
    report = await first
    assert (report["name"], report["type"], report["by"]) == (SERVICE, 28, "cluster")
    assert report["steps"][0]["server"] == RESOLVER
    await log.aclose()


# The end


async def test_nobody_is_asked_or_answered_after_the_end(start):
    resolver = Resolver()
    server = await start(resolver, lookup_timeout=30)
    clients = flood(server, MOST_ASKED + 1)
    waiting = await resolver.hear(MOST_ASKED)
    tasks = tuple(server._sides["cluster"].tasks)
    server.close()
    await asyncio.wait(tasks)
    for question in waiting:
        await resolver.say(question, **knows(question.message))
    await resolver.caught_up()
    assert all(client.answers.empty() for client in clients)
    assert resolver.heard.empty()


async def test_nothing_is_timed_after_the_end(start):
    server = await start(Resolver(), lookup_timeout=0.02)
    client = Client()
    server.receive(query(SERVICE), client, tcp=False)
    server.close()
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, later.set)
    await later.wait()
    assert client.answers.empty()
