"""Echoes by ping sockets and by raw ones, in a network namespace of the tests' own."""

import asyncio
import itertools
import os
import socket
import struct
from ipaddress import ip_address

import pytest

from tests.support import lab
from tunstack.manager import ping
from tunstack.manager.config import ManagerConfig
from tunstack.manager.dialer import Dialer
from tunstack.manager.poller import Poller
from tunstack.manager.session import Session, Shared
from tunstack.mux.session import Mux
from tunstack.rpc import envelope
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.upstream.upstream import Upstream
from tunstack.wire.frame import Kind, Refusal

PATIENCE = 10
ADDRESSES = ["127.0.0.1", "::1"]

pytestmark = pytest.mark.skipif(lab.missing() is not None, reason=lab.missing() or "")
_serial = itertools.count()


@pytest.fixture(params=["SOCK_DGRAM", "SOCK_RAW"])
def namespace(request, tmp_path):
    """A namespace in which echoes go by one kind of socket."""
    namespace = lab.Namespace(f"h3-{os.getpid()}-{next(_serial)}", tmp_path)
    groups = "0 2147483647" if request.param == "SOCK_DGRAM" else "1 0"
    namespace.sysctl("ipv4/ping_group_range", groups)
    namespace.kind = getattr(socket, request.param)
    yield namespace
    namespace.close()


class Ends:
    """A session without a transport, and the mux of its client."""

    def __init__(self, **settings):
        loop = asyncio.get_running_loop()
        config = ManagerConfig(**settings)
        self.poller = Poller(loop)
        self.session = Session(
            Shared(
                config=config,
                loop=loop,
                poller=self.poller,
                dialer=Dialer(config.flows, config.dial),
                resolver=Upstream(list),
            ),
            lambda session: None,
        )
        self.mux = Mux(client=True)
        self.events = asyncio.Queue()
        self.peer = "a test"
        self.session.attach(self, pb.Welcome())

    # The channel that the session sees

    def wake(self):
        while (message := self.session.next_message()) is not None:
            whole = b"".join(message) if isinstance(message, tuple) else message
            frames = envelope.unwrap(whole)
            if frames is not None:
                for kind, flow, value in self.mux.receive(frames):
                    value = bytes(value) if isinstance(value, memoryview) else value
                    self.events.put_nowait((kind, flow, value))

    def hand_over(self, handler):
        assert handler is self.session

    def close(self):
        self.poller.close()

    # What a test says

    def open(self, address):
        parsed = ip_address(address)
        if parsed.version == 6:
            return self.mux.open(58, parsed.packed, 4711, 0)
        return self.mux.open(1, bytes(10) + b"\xff\xff" + parsed.packed, 4711, 0)

    def echo(self, flow, sequence, data):
        payload = struct.pack("!H", sequence) + data
        self.mux.send(payload, [Kind.ECHO, flow.id, 0, len(payload)])
        frames = b"".join(envelope.frames(self.mux.next_frames()))
        self.session.message_received(frames)
        self.session.turn_ended()
        return payload

    async def event(self):
        return await asyncio.wait_for(self.events.get(), PATIENCE)


def run(namespace, scenario, **settings):
    """Run ``scenario(ends)`` in the namespace."""

    async def main():
        ends = Ends(**settings)
        await scenario(ends)
        ends.session.end(pb.CODE_CLOSED, "the test is over")

    with namespace:
        asyncio.run(main())


def test_the_kind_of_socket_is_the_least_that_works(namespace):
    with namespace:
        for family in (socket.AF_INET, socket.AF_INET6):
            assert ping.kind_of_socket(family) == namespace.kind


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("size", [0, 1, 56, 1472, 20_000])
def test_a_live_target_answers_with_what_it_was_sent(namespace, address, size):
    async def scenario(ends):
        flow = ends.open(address)
        payload = ends.echo(flow, 65_535, bytes(n % 251 for n in range(size)))
        assert await ends.event() == (Kind.ECHO, flow, payload)

    run(namespace, scenario)


@pytest.mark.parametrize("address", ADDRESSES)
def test_many_echoes_of_many_flows_find_home(namespace, address):
    async def scenario(ends):
        flows = [ends.open(address) for _ in range(10)]
        sent = {
            (flow.id, ends.echo(flow, sequence, b"%d" % flow.id))
            for sequence in range(20)
            for flow in flows
        }
        heard = set()
        for _ in range(len(sent)):
            kind, flow, payload = await ends.event()
            assert kind is Kind.ECHO
            heard.add((flow.id, payload))
        assert heard == sent

    run(namespace, scenario)


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        (
            "127.0.0.2",
            "ip daddr 127.0.0.2 icmp type echo-request"
            " reject with icmp type host-unreachable",
        ),
        (
            "fd98:2::2",
            "ip6 daddr fd98:2::2 icmpv6 type echo-request"
            " reject with icmpv6 type addr-unreachable",
        ),
    ],
    ids=["ipv4", "ipv6"],
)
def test_an_icmp_error_is_said_to_its_flow_only(namespace, address, rule):
    async def scenario(ends):
        other = ends.open("127.0.0.1")
        ends.echo(other, 1, b"")
        assert (await ends.event())[:2] == (Kind.ECHO, other)
        flow = ends.open(address)
        for _ in range(2):
            ends.echo(flow, 1, b"")
            heard = await ends.event()
            assert heard == (Kind.UNREACHABLE, flow, Refusal.HOST_UNREACHABLE)
        payload = ends.echo(other, 2, b"")
        assert await ends.event() == (Kind.ECHO, other, payload)

    namespace.ip("addr add fd98:2::2/128 dev lo")
    with namespace.firewall(rule, hook="input"):
        run(namespace, scenario)


def test_a_target_without_a_route_is_refused(namespace):
    async def scenario(ends):
        flow = ends.open("10.98.4.4")
        ends.echo(flow, 1, b"")
        kind, refused, (refusal, _) = await ends.event()
        assert (kind, refused, refusal) == (
            Kind.REFUSED,
            flow,
            Refusal.NETWORK_UNREACHABLE,
        )

    run(namespace, scenario)


def test_echoes_that_stop_end_their_flow(namespace):
    async def scenario(ends):
        flow = ends.open("127.0.0.1")
        ends.echo(flow, 1, b"")
        assert (await ends.event())[0] is Kind.ECHO
        assert await ends.event() == (Kind.RESET, flow, Refusal.TIMED_OUT)

    run(namespace, scenario, idle=0.2)
