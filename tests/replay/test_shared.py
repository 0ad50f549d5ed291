"""Every shared capture: the same as ever, the same as tshark's, and nothing breaks."""

import hashlib
import json
import random
import shutil

import pytest

from tests.replay import golden, oracle
from tunstack import _fastpath
from tunstack.capture.link import ip_packet
from tunstack.capture.reader import frames
from tunstack.config import TcpConfig
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.wire.frame import Refusal
from tunstack.wire.record import Verdict

pytestmark = pytest.mark.skipif(not golden.FILES, reason=golden.REASON)

KEPT = json.loads(oracle.KEPT.read_text())

DIFFERENT = {
    "suricata-verify__tcp-session-decode-malformed-ipv4__input.pcap": (
        "one segment is behind IP options that Linux takes and tshark does not"
    ),
    "suricata-verify__tcp-split-handshake-02-5whs__split-handshake-5whs.pcap": (
        "the server's SYN is another stream for tshark, and a part of this one for TCP"
    ),
}
"""Where tshark's streams are not TCP's, and why."""

STRIDE = 262_144
BATCH = 64
LONG = 3 * 3600
"""Seconds after which no host that says nothing is known any more."""


@pytest.fixture(scope="module")
def reports():
    document = json.loads(golden.run("--json"))
    return {report["file"]: report for report in document["files"]}


def test_the_results_are_the_golden_ones():
    changed = golden.difference(golden.GOLDEN.read_text(), golden.result())
    if changed:
        pytest.fail(
            f"{changed}\nif this is right: python -m tests.replay.golden", pytrace=False
        )


def test_the_captures_are_those_that_tshark_has_read():
    read = {
        name: hashlib.sha256((golden.CAPTURES / name).read_bytes()).hexdigest()[:16]
        for name in golden.FILES
    }
    assert read == {name: kept["sha256"] for name, kept in KEPT.items()}, (
        "python -m tests.replay.oracle reads them anew"
    )


@pytest.mark.parametrize(
    "name",
    [name for name, kept in KEPT.items() if kept["streams"] and name not in DIFFERENT],
)
def test_a_complete_stream_has_tsharks_octets(reports, name):
    ours = list(reports[name]["streams"])
    for theirs in KEPT[name]["streams"]:
        ends = theirs["client"], theirs["server"]
        same = next(each for each in ours if (each["client"], each["server"]) == ends)
        ours.remove(same)
        assert same["complete"], same
        assert same["to_cluster"] == theirs["to_cluster"], same
        if same["end"] == "finished" and theirs["to_host"] is not None:
            assert same["to_host"] == theirs["to_host"], same


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
@pytest.mark.parametrize(
    "name",
    [
        "pcapplusplus__many-protocols.pcap",
        "suricata-verify__mqtt-limit-2__input.pcap",
        "zeek__ssh-dups.pcap",
    ],
)
def test_what_is_kept_of_tshark_is_what_it_says(name):
    assert oracle.complete(golden.CAPTURES / name) == KEPT[name]["streams"]


class Cluster:
    """Serves a stack that is fed anything: checks what it says, and answers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.now = 0.0
        self.stack = Stack(
            mtu=1500, vnet=0, config=TcpConfig(), secret=bytes(16), local=frozenset()
        )

    def feed(self, packets: list[bytes]) -> None:
        arena = bytearray(STRIDE * len(packets))
        for slot, packet in enumerate(packets):
            arena[slot * STRIDE : slot * STRIDE + len(packet)] = packet
        self.stack.receive(arena, STRIDE, [len(packet) for packet in packets], self.now)
        self._turn()
        self.now += 0.01

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (at := self.stack.deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.stack.expire(self.now)
            self._turn()
        self.now = end

    def _turn(self) -> None:
        for what, about, *rest in self.stack.take_events():
            self._handle(what, about, rest)
        for pieces in self.stack.output(self.now):
            packet = b"".join(pieces)
            (record,) = _fastpath.parse_batch(packet, len(packet), [len(packet)], 0)
            assert record[8] in (Verdict.DELIVER, Verdict.FRAGMENT), packet.hex()

    def _handle(self, what: What, about, rest) -> None:
        stack = self.stack
        if what is What.OPEN:
            if self._rng.random() < 0.2:
                stack.refuse(about, Refusal.REFUSED)
            else:
                stack.opened(about, 1 << 20)
        elif what is What.DATA:
            memory, start, end = rest
            assert 0 <= start < end <= len(memory)
            stack.grant(about, end - start)
            stack.send(about, memoryview(bytes(memory[start:end])))
        elif what is What.FIN:
            stack.finish(about)
        elif what is What.DATAGRAM:
            memory, start, end, packet = rest
            assert 0 <= packet < start <= end <= len(memory)
            stack.datagram(about, bytes(memory[start:end]))
        elif what is What.ECHO:
            sequence, memory, start, end, packet = rest
            assert 0 <= packet < start <= end <= len(memory)
            stack.echo_reply(about, sequence, bytes(memory[start:end]))
        else:
            assert what in (What.RESET, What.ACKED)


def packets_of(name: str) -> list[bytes]:
    read = (ip_packet(each.link, each.octets) for each in frames(golden.CAPTURES / name))
    return [packet for packet in read if packet is not None]


@pytest.mark.parametrize("name", golden.FILES)
def test_a_host_may_send_all_of_it_in_any_order_and_is_forgotten(name):
    packets = packets_of(name)
    rng = random.Random(name)
    for shuffled in (False, True):
        if shuffled:
            rng.shuffle(packets)
        cluster = Cluster(rng)
        for at in range(0, len(packets), BATCH):
            cluster.feed(packets[at : at + BATCH])
        cluster.wait(LONG)
        assert not cluster.stack.connections
        assert cluster.stack.deadline() is None
