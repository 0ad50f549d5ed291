"""Questions to name servers of the tests' own, on port 53 of loopback addresses."""

import asyncio
import os
import socket
import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import pytest_asyncio

from tunstack.upstream.upstream import NoAnswer, ResolvConf, Upstream, plain_socket

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for port 53")

FIRST, SECOND, THIRD = "127.83.7.1", "127.83.7.2", "127.83.7.3"
QUESTION = dns.message.make_query("echo.default.svc.cluster.local", "A").to_wire()


class NameServer:
    """Answers over UDP and TCP with what the test's function makes of a question."""

    def __init__(self, function):
        self.function = function
        self.asked = []

    async def start(self, address):
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        loop.add_reader(self._udp, self._datagram)
        self._tcp = await asyncio.start_server(self._connection, address, 53)

    def close(self):
        asyncio.get_running_loop().remove_reader(self._udp)
        self._udp.close()
        self._tcp.close()

    def _datagram(self):
        question, address = self._udp.recvfrom(65_536)
        self.asked.append(("udp", question))
        for answer in self.function("udp", question):
            self._udp.sendto(answer, address)

    async def _connection(self, reader, writer):
        question = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        self.asked.append(("tcp", question))
        for answer in self.function("tcp", question):
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()


def answer(question, address="10.96.0.7"):
    response = dns.message.make_response(dns.message.from_wire(question))
    name = response.question[0].name
    response.answer.append(dns.rrset.from_text(name, 5, "IN", "A", address))
    return response


def addresses(answered):
    message = getattr(answered, "message", answered)
    return [str(data) for rrset in dns.message.from_wire(message).answer for data in rrset]


def reading(path):
    return Upstream(ResolvConf(path).name_servers, chase=True, where=str(path))


@pytest_asyncio.fixture
async def name_server():
    """Start a name server with a function that answers."""
    servers = []

    async def start(address, function):
        server = NameServer(function)
        await server.start(address)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def resolver(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(f"search svc.cluster.local\nnameserver {FIRST}\noptions ndots:5\n")
    return reading(path)


async def test_the_answer_bears_the_identifier_of_the_question(name_server, resolver):
    """On the way to the name server it is another one each time."""
    server = await name_server(FIRST, lambda _, question: [answer(question).to_wire()])
    for _ in range(20):
        wire = (await resolver.ask(QUESTION, 5)).message
        assert wire[:2] == QUESTION[:2]
        assert addresses(wire) == ["10.96.0.7"]
    assert len({question[:2] for _, question in server.asked}) > 10
    assert {question[2:] for _, question in server.asked} == {QUESTION[2:]}


async def test_an_answer_that_was_cut_is_fetched_over_tcp(name_server, resolver):
    def function(transport, question):
        response = answer(question)
        if transport == "udp":
            response.answer.clear()
            response.flags |= dns.flags.TC
        return [response.to_wire()]

    server = await name_server(FIRST, function)
    assert addresses(await resolver.ask(QUESTION, 5)) == ["10.96.0.7"]
    assert [transport for transport, _ in server.asked] == ["udp", "tcp"]


async def test_what_is_no_answer_to_the_question_is_passed_over(name_server, resolver):
    def function(_, question):
        forged = answer(question, "10.6.6.6").to_wire()
        other_id = struct.pack("!H", (question[0] << 8 | question[1]) ^ 1)
        return [b"", b"short", question, other_id + forged[2:], answer(question).to_wire()]

    await name_server(FIRST, function)
    assert addresses(await resolver.ask(QUESTION, 5)) == ["10.96.0.7"]


async def test_refusals_and_missing_names_are_answers(name_server, resolver):
    def function(_, question):
        response = dns.message.make_response(dns.message.from_wire(question))
        response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire()]

    await name_server(FIRST, function)
    wire = (await resolver.ask(QUESTION, 5)).message
    assert dns.message.from_wire(wire).rcode() == dns.rcode.NXDOMAIN


async def test_a_lost_question_is_asked_again(name_server, resolver):
    def function(_, question):
        return [answer(question).to_wire()] if len(server.asked) > 1 else []

    server = await name_server(FIRST, function)
    assert addresses(await resolver.ask(QUESTION, 0.4)) == ["10.96.0.7"]


async def test_another_name_server_is_asked_when_one_is_dead(name_server, tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver {FIRST}\nnameserver {SECOND}\n")
    silent = await name_server(FIRST, lambda *_: [])
    await name_server(SECOND, lambda _, question: [answer(question).to_wire()])
    assert addresses(await reading(path).ask(QUESTION, 0.4)) == ["10.96.0.7"]
    assert silent.asked


async def test_a_changed_file_counts_at_once(name_server, tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver {FIRST}\n")
    resolver = reading(path)
    await name_server(FIRST, lambda _, question: [answer(question, "10.0.0.1").to_wire()])
    await name_server(SECOND, lambda _, question: [answer(question, "10.0.0.2").to_wire()])
    assert addresses(await resolver.ask(QUESTION, 5)) == ["10.0.0.1"]
    path.write_text(f"nameserver {SECOND}\n")
    assert addresses(await resolver.ask(QUESTION, 5)) == ["10.0.0.2"]


async def test_silence_is_no_answer(name_server, resolver):
    await name_server(FIRST, lambda *_: [])
    with pytest.raises(NoAnswer, match=f"{FIRST} did not answer within 0.2 s"):
        await resolver.ask(QUESTION, 0.2)


async def test_a_dead_name_server_is_no_answer(resolver):
    with pytest.raises(NoAnswer, match=f"{FIRST}: Connection refused"):
        await resolver.ask(QUESTION, 0.2)


@pytest.mark.parametrize("content", [None, "", "search example\n", "nameserver\n"])
async def test_nobody_to_ask_is_no_answer(tmp_path, content):
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NoAnswer, match=r"resolv\.conf"):
        await reading(path).ask(QUESTION, 5)


async def test_a_question_that_is_none_is_no_answer(resolver):
    with pytest.raises(NoAnswer, match="not a DNS message"):
        await resolver.ask(b"what?", 5)


def refusal(rcode):
    """Make a function that says that it cannot."""

    def function(_, question):
        response = dns.message.make_response(dns.message.from_wire(question))
        response.set_rcode(dns.rcode.from_text(rcode))
        return [response.to_wire()]

    return function


def answering(*addresses):
    """Make a function that gives an address, another one each time."""
    given = iter(addresses * 100)
    return lambda _, question: [answer(question, next(given)).to_wire()]


def rcode_of(answered):
    return dns.rcode.to_text(dns.message.from_wire(answered.message).rcode())


@pytest.mark.parametrize("rcode", ["SERVFAIL", "NOTIMP", "REFUSED"])
@pytest.mark.parametrize("bare", [True, False])
async def test_another_name_server_is_asked_when_one_cannot(name_server, rcode, bare):
    """What it cannot read it may answer without the question (RFC 1035, 4.1.1)."""

    def cannot(transport, question):
        (response,) = refusal(rcode)(transport, question)
        return [response[:4] + bytes(8) if bare else response]

    first = await name_server(FIRST, cannot)
    await name_server(SECOND, answering("10.0.0.2"))
    answered = await Upstream(lambda: [FIRST, SECOND]).ask(QUESTION, 5)
    assert (addresses(answered), answered.server) == (["10.0.0.2"], SECOND)
    assert 0 < answered.seconds < 5
    assert len(first.asked) == 1


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "FORMERR", "YXDOMAIN"])
async def test_what_is_said_of_the_question_is_the_answer(name_server, rcode):
    await name_server(FIRST, refusal(rcode))
    second = await name_server(SECOND, answering("10.0.0.2"))
    answered = await Upstream(lambda: [FIRST, SECOND]).ask(QUESTION, 5)
    assert (rcode_of(answered), answered.server) == (rcode, FIRST)
    assert second.asked == []


async def test_when_all_cannot_one_says_so(name_server):
    first = await name_server(FIRST, refusal("SERVFAIL"))
    second = await name_server(SECOND, refusal("REFUSED"))
    answered = await Upstream(lambda: [FIRST, SECOND]).ask(QUESTION, 5)
    assert (rcode_of(answered), answered.server) == ("REFUSED", SECOND)
    assert answered.message[:2] == QUESTION[:2]
    assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_that_one_cannot_is_more_than_that_another_is_silent(name_server):
    await name_server(FIRST, refusal("SERVFAIL"))
    silent = await name_server(SECOND, lambda *_: [])
    answered = await Upstream(lambda: [FIRST, SECOND]).ask(QUESTION, 0.4)
    assert (rcode_of(answered), answered.server) == ("SERVFAIL", FIRST)
    assert len(silent.asked) == 2


async def test_who_answered_last_is_asked_first(name_server):
    silent = await name_server(FIRST, lambda *_: [])
    await name_server(SECOND, refusal("SERVFAIL"))
    third = await name_server(THIRD, answering("10.0.0.3"))
    servers = [FIRST, SECOND, THIRD]
    upstream = Upstream(lambda: servers, patience=0.1)
    for _ in range(5):
        assert addresses(await upstream.ask(QUESTION, 5)) == ["10.0.0.3"]
    assert (len(silent.asked), len(third.asked)) == (1, 5)
    # It is not named any more: the order is the one of the others again.
    servers.pop()
    assert rcode_of(await upstream.ask(QUESTION, 1)) == "SERVFAIL"
    assert len(third.asked) == 5


async def test_a_silent_name_server_has_only_its_share_of_the_time(name_server):
    await name_server(FIRST, lambda *_: [])
    await name_server(SECOND, answering("10.0.0.2"))
    for patience, timeout, share in ((0.05, 60, 0.05), (30, 1.2, 0.3)):
        upstream = Upstream(lambda: [FIRST, SECOND], patience=patience)
        answered = await upstream.ask(QUESTION, timeout)
        assert answered.server == SECOND
        assert share <= answered.seconds < 1


async def test_nobody_s_answer_is_named_with_who_was_asked(name_server):
    await name_server(FIRST, lambda *_: [])
    with pytest.raises(NoAnswer) as caught:
        await Upstream(lambda: [FIRST], where="the settings").ask(QUESTION, 0.1)
    assert caught.value.server == FIRST
    with pytest.raises(NoAnswer, match="the settings names no name server") as caught:
        await Upstream(list, where="the settings").ask(QUESTION, 0.1)
    assert caught.value.server == ""


async def test_over_tcp_when_that_is_wanted(name_server):
    server = await name_server(FIRST, answering("10.0.0.1"))
    answered = await Upstream(lambda: [FIRST]).ask(QUESTION, 5, tcp=True)
    assert addresses(answered) == ["10.0.0.1"]
    assert answered.message[:2] == QUESTION[:2]
    ((transport, question),) = server.asked
    assert (transport, question[2:]) == ("tcp", QUESTION[2:])


async def test_an_answer_of_64_kib_comes_over_tcp(name_server):
    def function(transport, question):
        response = answer(question)
        name = response.question[0].name
        text = " ".join(["x" * 255] * 252)
        response.answer.append(dns.rrset.from_text(name, 5, "IN", "TXT", text))
        return [response.to_wire(max_size=65_535)]

    await name_server(FIRST, function)
    answered = await Upstream(lambda: [FIRST]).ask(QUESTION, 5, tcp=True)
    assert len(answered.message) > 64_000


async def test_an_answer_that_was_cut_passes_when_nobody_chases(name_server):
    def function(transport, question):
        response = answer(question)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    server = await name_server(FIRST, function)
    answered = await Upstream(lambda: [FIRST]).ask(QUESTION, 5)
    assert dns.message.from_wire(answered.message).flags & dns.flags.TC
    assert [transport for transport, _ in server.asked] == ["udp"]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda _, question: [], "the answer over TCP was cut short"),
        (lambda _, question: [question], "the answer over TCP is to another question"),
    ],
)
async def test_what_comes_over_tcp_may_be_no_answer(name_server, function, why):
    await name_server(FIRST, function)
    with pytest.raises(NoAnswer, match=f"{FIRST}: {why}"):
        await Upstream(lambda: [FIRST]).ask(QUESTION, 5, tcp=True)


async def test_silence_over_tcp_is_no_answer():
    why = f"{FIRST} did not answer within 0.2 s"
    with socket.create_server((FIRST, 53)), pytest.raises(NoAnswer, match=why):
        await Upstream(lambda: [FIRST]).ask(QUESTION, 0.2, tcp=True)


@pytest.mark.parametrize("server", ["::1", "::1%lo", "::1%1"])
@pytest.mark.parametrize("tcp", [True, False])
async def test_a_name_server_may_have_an_ipv6_address(name_server, server, tcp):
    await name_server("::1", answering("10.0.0.6"))
    answered = await Upstream(lambda: [server]).ask(QUESTION, 5, tcp=tcp)
    assert (addresses(answered), answered.server) == (["10.0.0.6"], server)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ("fe80::1%nowhere", "there is no interface nowhere"),
        ("ns.example", "it is not an address"),
        ("fe80::x", "it is not an address"),
        ("127.1", "it is not an address"),
    ],
)
@pytest.mark.parametrize("tcp", [True, False])
async def test_what_is_no_address_is_passed_over(name_server, server, why, tcp):
    """It is not looked up: by whom? That might be us."""
    with pytest.raises(NoAnswer, match=f"{server}: {why}"):
        await Upstream(lambda: [server]).ask(QUESTION, 5, tcp=tcp)
    await name_server(FIRST, answering("10.0.0.1"))
    answered = await Upstream(lambda: [server, FIRST]).ask(QUESTION, 5, tcp=tcp)
    assert answered.server == FIRST


async def test_sockets_are_made_as_it_was_said(name_server):
    """A mark, say, so that questions do not come back to us."""
    made = []

    async def make_socket(family, kind):
        made.append((family, kind))
        return await plain_socket(family, kind)

    await name_server(FIRST, answering("10.0.0.1"))
    upstream = Upstream(lambda: [FIRST], make_socket=make_socket)
    await upstream.ask(QUESTION, 5)
    await upstream.ask(QUESTION, 5, tcp=True)
    assert made == [
        (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_INET, socket.SOCK_STREAM),
    ]


@pytest.mark.parametrize("tcp", [True, False])
async def test_who_does_not_wait_any_more_leaves_nothing_open(name_server, tcp):
    await name_server(FIRST, lambda *_: [])
    with socket.create_server((SECOND, 53)):
        before = os.listdir("/proc/self/fd")
        servers = [SECOND if tcp else FIRST]
        task = asyncio.create_task(Upstream(lambda: servers).ask(QUESTION, 60, tcp=tcp))
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert os.listdir("/proc/self/fd") == before
