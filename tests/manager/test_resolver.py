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

from tunstack.manager.resolver import NoAnswer, Resolver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for port 53")

FIRST, SECOND = "127.83.7.1", "127.83.7.2"
QUESTION = dns.message.make_query("echo.default.svc.cluster.local", "A").to_wire()


class NameServer:
    """Answers over UDP and TCP with what the test's function makes of a question."""

    def __init__(self, function):
        self.function = function
        self.asked = []

    async def start(self, address):
        loop = asyncio.get_running_loop()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
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


def addresses(wire):
    return [str(data) for rrset in dns.message.from_wire(wire).answer for data in rrset]


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
    return Resolver(path)


async def test_the_answer_bears_the_identifier_of_the_question(name_server, resolver):
    """On the way to the name server it is another one each time."""
    server = await name_server(FIRST, lambda _, question: [answer(question).to_wire()])
    for _ in range(20):
        wire = await resolver.ask(QUESTION, 5)
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
    wire = await resolver.ask(QUESTION, 5)
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
    assert addresses(await Resolver(path).ask(QUESTION, 0.4)) == ["10.96.0.7"]
    assert silent.asked


async def test_a_changed_file_counts_at_once(name_server, tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver {FIRST}\n")
    resolver = Resolver(path)
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
        await Resolver(path).ask(QUESTION, 5)


async def test_a_question_that_is_none_is_no_answer(resolver):
    with pytest.raises(NoAnswer, match="not a DNS message"):
        await resolver.ask(b"what?", 5)
