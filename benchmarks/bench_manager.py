"""The manager alone: a client that speaks the mux, and a target, all on loopback.

The question: what does the cluster's side cost without engine, stack and device? The
target is ``load.c``, the client an event loop that does nothing but to pass on frames.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter

import pytest
import uvloop

from benchmarks.load import cpu_seconds, program
from tests.support.lab import tunstack
from tunstack._version import PROTOCOL, PROTOCOL_MINIMUM
from tunstack.mux.session import TCP, Flow, Mux
from tunstack.rpc import envelope, lean
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import Endpoint
from tunstack.wire.frame import MAX_PAYLOAD, Kind

LOOPBACK = bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1])
CREDIT = 4 << 20
BLOCK = bytes(4 * MAX_PAYLOAD)
"""What one message is filled with."""
OCTETS = 64 << 20
ASK = b"a" * 64


class Client:
    """The engine's end of a session, without an engine."""

    def __init__(self, channel) -> None:
        self.channel = channel
        self.mux = Mux(client=True)
        hello = pb.Hello(protocol=PROTOCOL, protocol_minimum=PROTOCOL_MINIMUM)
        self.hello = pb.FromClient(hello=hello).SerializeToString()
        self.loop = asyncio.get_running_loop()
        self.welcome = self.loop.create_future()
        self.changed = asyncio.Event()
        self.received: Counter[Flow] = Counter()
        self.over: set[Flow] = set()
        self.upload: Flow | None = None
        self.left = 0
        """Octets to upload on it."""

    def next_message(self):
        if self.hello:
            hello, self.hello = self.hello, b""
            return hello
        if self.upload is not None:
            self.go_on(self.upload)
        frames = self.mux.next_frames() if self.welcome.done() else None
        return None if frames is None else envelope.frames(frames)

    def message_received(self, message) -> None:
        frames = envelope.unwrap(message)
        if frames is None:
            if pb.FromManager.FromString(bytes(message)).WhichOneof("body") == "welcome":
                self.welcome.set_result(None)
            return
        for kind, flow, value in self.mux.receive(frames):
            assert kind is not Kind.REFUSED, value
            if kind is Kind.DATA:
                self.received[flow] += len(value)
                self.mux.consumed(flow, len(value))
            elif kind is Kind.FIN:
                self.over.add(flow)
        self.changed.set()

    def turn_ended(self) -> None:
        if self.mux.pending or self.upload is not None:
            self.channel.wake()

    def channel_lost(self, loss) -> None:
        pass

    async def until(self, condition) -> None:
        self.channel.wake()
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def open(self, port: int) -> Flow:
        flow = self.mux.open(TCP, LOOPBACK, port, CREDIT)
        await self.until(lambda: flow.open)
        return flow

    def say(self, flow: Flow, text: bytes) -> None:
        self.mux.send(text, [Kind.DATA, flow.id, 0, len(text)])

    async def ask(self, flows: list[Flow]) -> None:
        """One round trip on each."""
        before = [self.received[flow] for flow in flows]
        for flow in flows:
            self.say(flow, ASK)
        await self.until(
            lambda: all(
                self.received[flow] == seen + len(ASK)
                for flow, seen in zip(flows, before, strict=True)
            )
        )

    def go_on(self, flow: Flow) -> None:
        """Say as much of an upload as a message holds and the manager takes."""
        size = min(self.left, flow.send_credit, len(BLOCK))
        spans: list[int] = []
        for start in range(0, size, MAX_PAYLOAD):
            spans += (Kind.DATA, flow.id, start, min(start + MAX_PAYLOAD, size))
        self.mux.send(BLOCK, spans)
        self.left -= size
        if self.left == 0:
            self.upload = None
            self.mux.finish(flow)

    async def up(self, flow: Flow, octets: int) -> None:
        """Upload so many octets, and wait for the target's count of them."""
        self.say(flow, b"u")
        self.upload, self.left = flow, octets - 1
        await self.until(lambda: flow in self.over)
        assert self.received[flow] == 8

    async def down(self, flow: Flow, octets: int) -> None:
        """Download so many octets."""
        self.say(flow, b"d" + octets.to_bytes(8, sys.byteorder))
        await self.until(lambda: self.received[flow] == octets)

    async def exchange(self, port: int) -> None:
        """Open a flow, ask for one octet, and close it behind the target."""
        flow = await self.open(port)
        self.say(flow, b"c")
        await self.until(lambda: flow in self.over)
        assert self.received[flow] == 1
        self.mux.finish(flow)


class Rig:
    """A manager, a target, and the client with its loop."""

    def __init__(self) -> None:
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        command = tunstack("manager", "--listen", "127.0.0.1:0")
        self.manager = subprocess.Popen(command, **quiet)
        self.target = subprocess.Popen([program(), "serve"], **quiet)
        self.port = int(self.target.stdout.readline().split()[1])
        address = self.manager.stdout.readline().split()[1]
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.client = self.runner.run(self.connect(int(address.rpartition(":")[2])))

    async def connect(self, port: int) -> Client:
        made: list[Client] = []

        def make(channel) -> Client:
            made.append(Client(channel))
            return made[0]

        endpoint = Endpoint(host="127.0.0.1", port=port, tls=False)
        await lean.connect(endpoint, make, keepalive=10, timeout=10)
        made[0].channel.wake()
        await made[0].welcome
        return made[0]

    def open(self, count: int) -> list[Flow]:
        return [self.run(self.client.open(self.port)) for _ in range(count)]

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def close(self) -> None:
        self.manager.terminate()
        self.target.kill()
        self.manager.wait()
        self.target.wait()
        self.runner.close()


@pytest.fixture(scope="module")
def rig():
    rig = Rig()
    yield rig
    rig.close()


@pytest.mark.parametrize("way", ["up", "down"])
def bench_bulk(benchmark, rig, way):
    def transfer() -> None:
        (flow,) = rig.open(1)
        rig.run(getattr(rig.client, way)(flow, OCTETS))

    before = cpu_seconds(rig.manager.pid)
    benchmark.pedantic(transfer, rounds=5)
    spent = cpu_seconds(rig.manager.pid) - before
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["Gbit/s"] = round(OCTETS * 8 / seconds / 1e9, 2)
    benchmark.extra_info["CPU s/GB"] = round(spent / 5 / OCTETS * 1e9, 3)


@pytest.mark.parametrize("count", [1, 64], ids="{} flows".format)
def bench_round_trip(benchmark, rig, count):
    flows = rig.open(count)
    client = rig.client

    async def many(rounds: int) -> float:
        began = time.perf_counter()
        for _ in range(rounds):
            await client.ask(flows)
        return (time.perf_counter() - began) / rounds / count

    rig.run(many(200))
    each = benchmark.pedantic(lambda: rig.run(many(500)), rounds=5)
    benchmark.extra_info["us per round trip"] = round(each * 1e6, 1)
    for flow in flows:
        client.mux.reset(flow)


def bench_connect_request_close(benchmark, rig):
    async def many() -> None:
        for _ in range(200):
            await rig.client.exchange(rig.port)

    benchmark.pedantic(lambda: rig.run(many()), rounds=5, warmup_rounds=1)
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["per second"] = round(200 / seconds)
