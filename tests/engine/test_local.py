"""The address in the device that is this computer's own, as the host sees it."""

import asyncio
import socket
from ipaddress import ip_address

import pytest
import pytest_asyncio
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6,
)
from scapy.packet import Raw

from tests.support.answers import NONSENSE, Answers
from tests.support.questions import query, read
from tunstack.config import Config, DnsConfig, NameMapping
from tunstack.dns.rules import Names, Rules
from tunstack.engine import local as module
from tunstack.engine.bridge import Bridge
from tunstack.engine.framing import MOST_ANSWERS, MOST_UNREAD, Framing
from tunstack.engine.links import Links
from tunstack.engine.local import MOST_CONNECTIONS
from tunstack.engine.nameserver import NameServer
from tunstack.host.device import Device
from tunstack.wire import key as flow_key

MTU = 65_535
"""An answer of any size fits one packet, which scapy need not join."""

HOST = {4: "198.18.0.1", 6: "fd00::1"}
OWN = {4: "198.18.0.2", 6: "fd00::2"}
CLOSED = {4: "198.18.0.3", 6: "fd00::3"}
NETWORK = {4: IP, 6: IPv6}
UNREACHABLE = {4: (ICMP, 3), 6: (ICMPv6DestUnreach, 1)}
PORT_CODE, HOST_CODE = {4: 3, 6: 4}, {4: 1, 6: 3}


@pytest.fixture(params=[4, 6])
def family(request):
    return request.param


class Wire:
    """The host's side of the device."""

    def __init__(self, sock, bridge):
        self.bridge = bridge
        self.local = bridge.local
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, packet):
        await self._loop.sock_sendall(self._sock, bytes(packet))

    async def receive(self):
        async with asyncio.timeout(10):
            packet = await self._loop.sock_recv(self._sock, 65_536)
        return (IPv6 if packet[0] >> 4 == 6 else IP)(packet)

    async def ping(self, number=1):
        packet = IP(src=HOST[4], dst=OWN[4]) / ICMP(id=9, seq=number) / Raw(b"!")
        await self.send(packet)

    async def nothing_came(self):
        """Whatever was due before a ping comes before the answer to it."""
        await self.ping(4711)
        reply = await self.receive()
        assert ICMP in reply, reply
        assert reply[ICMP].seq == 4711


@pytest_asyncio.fixture
async def wire(stack):
    """A device, a bridge, and a name server that says questions back."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    for sock in (ours, theirs):
        sock.setblocking(False)
    links = Links(None, token=None, config=Config())
    bridge = Bridge(
        links,
        Device(theirs.detach(), name="none", mtu=MTU, vnet=0),
        Config(),
        secret=bytes(16),
        on_lost=lambda: None,
        local=map(ip_address, HOST.values()),
        own=map(ip_address, OWN.values()),
    )
    stack.callback(bridge.close)
    bridge.local.closed = frozenset(
        flow_key.address(ip_address(each)) for each in CLOSED.values()
    )
    bridge.local.server = Answers(bridge.local.flush)
    return Wire(ours, bridge)


@pytest.fixture
def server(wire):
    return wire.local.server


class Client:
    """A connection of the host, made by hand."""

    def __init__(self, wire, *, port=40_000, target=OWN[4], dport=53, window=65_535):
        self.wire = wire
        self.seq, self.ack = 1000, 0
        self.window = window
        self._ports = port, dport
        self._target = target
        self._finished = False

    async def send(self, flags, payload=b""):
        network = IPv6(src=HOST[6]) if ":" in self._target else IP(src=HOST[4])
        network.dst = self._target
        sport, dport = self._ports
        segment = TCP(
            sport=sport,
            dport=dport,
            flags=flags,
            seq=self.seq,
            ack=self.ack,
            window=self.window,
            options=[("MSS", MTU - 40)] if flags == "S" else [],
        )
        await self.wire.send(network / segment / Raw(payload))
        self.seq += len(payload) + ("S" in flags) + ("F" in flags)

    async def receive(self):
        packet = await self.wire.receive()
        assert TCP in packet, packet
        segment = packet[TCP]
        assert segment.dport == self._ports[0]
        assert packet.src == self._target
        return segment

    async def open(self):
        await self.send("S")
        reply = await self.receive()
        assert reply.flags == "SA"
        self.ack = reply.seq + 1
        await self.send("A")
        return self

    async def ask(self, *messages):
        await self.send("PA", b"".join(map(Framing.frame, messages)))

    async def answers(self, count):
        """Take answers, and acknowledge them."""
        framing, found = Framing(), []
        while len(found) < count:
            segment = await self.receive()
            assert "R" not in segment.flags
            if segment.payload:
                assert segment.seq == self.ack
                self.ack += len(segment.payload)
                found += framing.take(bytes(segment.payload))
                self._finished = "F" in segment.flags
                self.ack += self._finished
                await self.send("A")
        return found

    async def end(self):
        """Wait for the end of file."""
        while not self._finished:
            segment = await self.receive()
            assert not segment.payload
            assert "R" not in segment.flags
            if "F" in segment.flags:
                assert segment.seq == self.ack
                self.ack += 1
                self._finished = True

    async def reset(self):
        """Wait for the reset."""
        segment = await self.receive()
        while "R" not in segment.flags:
            assert not segment.payload
            segment = await self.receive()


# Datagrams


async def test_a_question_is_answered_from_where_it_was_asked(wire, server, family):
    network = NETWORK[family](src=HOST[family], dst=OWN[family])
    await wire.send(network / UDP(sport=5353, dport=53) / Raw(b"who?"))
    reply = await wire.receive()
    assert (reply.src, reply.dst) == (OWN[family], HOST[family])
    assert (reply[UDP].sport, reply[UDP].dport) == (53, 5353)
    assert bytes(reply[UDP].payload) == b"re: who?"
    assert server.asked == [(b"who?", False)]


async def test_an_answer_may_take_its_time(wire, server):
    server.hold = True
    network = IP(src=HOST[4], dst=OWN[4])
    for port in (1111, 2222):
        await wire.send(network / UDP(sport=port, dport=53) / Raw(b"%d" % port))
    await wire.nothing_came()
    server.answer()
    replies = [(await wire.receive())[UDP] for _ in range(2)]
    said = [(reply.dport, bytes(reply.payload)) for reply in replies]
    assert said == [(1111, b"re: 1111"), (2222, b"re: 2222")]


async def refused_datagram(wire, family, target, port):
    """Whether a datagram is answered with port unreachable."""
    network = NETWORK[family](src=HOST[family], dst=target)
    await wire.send(network / UDP(sport=5353, dport=port) / Raw(b"who?"))
    reply = await wire.receive()
    layer, kind = UNREACHABLE[family]
    assert (reply.src, reply.dst) == (target, HOST[family])
    cited = reply[IPerror if family == 4 else IPerror6]
    assert (cited.src, cited.dst) == (HOST[family], target)
    assert (cited[UDPerror].sport, cited[UDPerror].dport) == (5353, port)
    assert reply[layer].type == kind
    return reply[layer].code == PORT_CODE[family]


async def test_other_ports_are_closed_to_datagrams(wire, server, family):
    assert await refused_datagram(wire, family, OWN[family], 54)
    assert server.asked == []


async def test_without_a_name_server_its_port_is_closed(wire):
    wire.local.server = None
    assert await refused_datagram(wire, 4, OWN[4], 53)
    client = Client(wire)
    await client.send("S")
    assert (await client.receive()).flags == "RA"


async def test_there_is_no_host_at_a_closed_address(wire, server, family):
    """Datagrams are refused like those to a closed port: that ends waiting everywhere."""
    target = CLOSED[family]
    assert await refused_datagram(wire, family, target, 53)
    client = Client(wire, target=target)
    await client.send("S")
    reply = await wire.receive()
    layer, kind = UNREACHABLE[family]
    assert (reply[layer].type, reply[layer].code) == (kind, HOST_CODE[family])
    assert reply[TCPerror].dport == 53
    echo = ICMP(id=1) if family == 4 else ICMPv6EchoRequest(id=1)
    await wire.send(NETWORK[family](src=HOST[family], dst=target) / echo)
    await wire.nothing_came()
    assert server.asked == []


async def test_the_address_answers_pings(wire, family):
    echo = ICMP if family == 4 else ICMPv6EchoRequest
    request = echo(id=77, seq=3)
    payload = b"abcdefgh" * 7
    if family == 4:
        request /= Raw(payload)
    else:
        request.data = payload
    await wire.send(NETWORK[family](src=HOST[family], dst=OWN[family]) / request)
    reply = await wire.receive()
    assert (reply.src, reply.dst) == (OWN[family], HOST[family])
    echoed = reply[ICMP if family == 4 else ICMPv6EchoReply]
    assert (echoed.id, echoed.seq) == (77, 3)
    assert (echoed.data if family == 6 else bytes(echoed.payload)) == payload
    if family == 4:
        assert echoed.type == 0


# Connections


async def test_questions_over_tcp_are_answered(wire, server, family):
    client = await Client(wire, target=OWN[family]).open()
    await client.ask(b"one")
    assert await client.answers(1) == [b"re: one"]
    await client.ask(b"two")
    assert await client.answers(1) == [b"re: two"]
    assert server.asked == [(b"one", True), (b"two", True)]


async def test_a_question_may_come_in_pieces_and_several_in_one(wire, server):
    client = await Client(wire).open()
    stream = b"".join(map(Framing.frame, (b"one", b"two", b"three")))
    await client.send("PA", stream[:1])
    await client.send("PA", stream[1:4])
    await client.send("PA", stream[4:])
    assert await client.answers(3) == [b"re: one", b"re: two", b"re: three"]


async def test_questions_are_taken_from_more_octets_than_are_taken_at_once(wire, server):
    client = await Client(wire).open()
    for number in range(16):
        question = bytes([number]) * 5000
        stream = Framing.frame(question)
        for at in range(0, len(stream), 1400):
            await client.send("A", stream[at : at + 1400])
        assert await client.answers(1) == [b"re: " + question]


async def test_other_ports_are_closed_to_connections(wire):
    client = Client(wire, dport=54)
    await client.send("S")
    reply = await client.receive()
    assert (reply.flags, reply.ack) == ("RA", client.seq)
    assert not wire.local.connections


async def test_who_asks_no_more_still_gets_the_answers(wire, server):
    server.hold = True
    client = await Client(wire).open()
    await client.send("FA", Framing.frame(b"one") + Framing.frame(b"two"))
    assert (await client.receive()).ack == client.seq
    await wire.nothing_came()
    server.answer()
    assert await client.answers(2) == [b"re: one", b"re: two"]
    await client.end()
    assert not wire.local.connections


@pytest.mark.parametrize("questions", [(), (b"one",), (NONSENSE,), (NONSENSE, b"two")])
async def test_the_end_follows_the_last_answer_at_once(wire, server, questions):
    client = await Client(wire).open()
    await client.ask(*questions)
    answered = [b"re: " + each for each in questions if each != NONSENSE]
    assert await client.answers(len(answered)) == answered
    await client.send("FA")
    await client.end()
    assert not wire.local.connections


async def test_an_idle_connection_is_closed_and_then_reset(wire, server, monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.05)
    client = await Client(wire).open()
    await client.ask(b"one", NONSENSE)
    assert await client.answers(1) == [b"re: one"]
    await client.end()
    await client.send("A")
    await client.reset()
    assert not wire.local.connections


async def test_a_closed_connection_ends_with_the_host_s_end(wire, monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.05)
    client = await Client(wire).open()
    await client.end()
    await client.send("FA")
    assert (await client.receive()).flags == "A"
    assert not wire.local.connections


async def test_a_question_after_the_end_is_refused(wire, server, monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.05)
    client = await Client(wire).open()
    await client.end()
    await client.ask(b"too late")
    await client.reset()
    assert server.asked == []


async def test_who_waits_for_an_answer_is_not_idle(wire, server, monkeypatch):
    """The cluster may have 30 s for it (``dns.lookup_timeout``)."""
    monkeypatch.setattr(module, "IDLE", 0.04)
    server.hold = True
    client = await Client(wire).open()
    await client.ask(b"one")
    assert (await client.receive()).ack == client.seq
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.15, later.set)
    await later.wait()
    await wire.nothing_came()
    monkeypatch.setattr(module, "IDLE", 10)
    server.answer()
    assert await client.answers(1) == [b"re: one"]
    later.clear()
    asyncio.get_running_loop().call_later(0.08, later.set)
    await later.wait()
    await wire.nothing_came()  # it has been idle only since the answer


# Bounds


async def test_so_many_connections_and_no_more(wire, server):
    clients = [Client(wire, port=40_000 + number) for number in range(MOST_CONNECTIONS)]
    for client in clients:
        await client.open()
    another = Client(wire, port=50_000)
    await another.send("S")
    assert (await another.receive()).flags == "RA"
    await clients[0].ask(b"still here")
    assert await clients[0].answers(1) == [b"re: still here"]
    # One that goes makes room for one.
    await clients[0].send("RA")
    another = await Client(wire, port=50_001).open()
    await another.ask(b"me too")
    assert await another.answers(1) == [b"re: me too"]


async def test_so_many_unanswered_questions_and_no_more(wire, server):
    server.hold = True
    client = await Client(wire).open()
    await client.ask(*[b"?"] * (MOST_ANSWERS - 1), NONSENSE)
    assert (await client.receive()).ack == client.seq
    await client.ask(b"?")
    assert (await client.receive()).ack == client.seq
    await wire.nothing_came()
    await client.ask(b"?", b"?")
    await client.reset()
    assert len(server.asked) == MOST_ANSWERS + 1
    server.answer()
    await wire.nothing_came()


async def test_answered_questions_do_not_count(wire, server):
    client = await Client(wire).open()
    for _ in range(3):
        await client.ask(*[b"?"] * MOST_ANSWERS)
        assert await client.answers(MOST_ANSWERS) == [b"re: ?"] * MOST_ANSWERS


SIZE = 60_000
FIT = MOST_UNREAD // (SIZE + 2)
"""Answers that may lie unread."""


async def test_who_does_not_read_is_reset(wire, server):
    server.make = lambda message: bytes(SIZE)
    client = await Client(wire, window=0).open()
    for _ in range(FIT):
        await client.ask(b"more")
        assert (await client.receive()).ack == client.seq
    assert len(wire.local.connections) == 1
    await client.ask(b"more")
    await client.reset()
    assert not wire.local.connections


async def test_who_reads_may_have_more_than_lies_unread(wire, server):
    server.make = lambda message: bytes(SIZE)
    client = await Client(wire).open()
    for _ in range(FIT + 2):
        await client.ask(b"more")
        (reply,) = await client.answers(1)
        assert len(reply) == SIZE


# The end


async def test_a_connection_that_the_host_resets_is_forgotten(wire, server):
    server.hold = True
    client = await Client(wire).open()
    await client.ask(b"one")
    assert (await client.receive()).ack == client.seq
    await client.send("RA")
    await wire.nothing_came()
    assert not wire.local.connections
    server.answer()
    await wire.nothing_came()


async def test_nothing_is_left_of_connections_when_the_device_goes(wire, monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.05)
    for port in (40_000, 40_001):
        await Client(wire, port=port).open()
    await wire.nothing_came()
    wire.bridge.close()
    assert not wire.local.connections
    later = asyncio.Event()  # a timer that were left would write to the device
    asyncio.get_running_loop().call_later(0.1, later.set)
    await later.wait()
    assert wire.bridge.drops()["device-write"] == 0


async def test_the_name_server_of_a_session_is_asked(wire):
    config = DnsConfig(mappings=(NameMapping("printer.lan", "192.0.2.7"),))
    rules = Rules(Names(config=config))
    wire.local.server = NameServer(None, config, rules, None, wire.local.flush)
    question = query("printer.lan", number=99)
    network = IP(src=HOST[4], dst=OWN[4])
    await wire.send(network / UDP(sport=5353, dport=53) / Raw(question))
    datagram = bytes((await wire.receive())[UDP].payload)
    client = await Client(wire).open()
    await client.ask(b"nonsense", question)
    for reply in (datagram, *await client.answers(1)):
        assert read(reply).id == 99
        assert str(read(reply).answer[0][0]) == "192.0.2.7"
