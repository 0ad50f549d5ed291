"""Who attacks the stack costs it bounded memory, is counted, and disturbs no other flow."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import (
    ACK,
    NOBODY,
    PSH,
    SYN,
    TCP,
    UDP,
    Injector,
    datagram,
    garbage,
    keys,
    mend,
    open_raw,
)
from tests.support.host import make_key, make_segment
from tests.support.lab import TRANSPORT, V4, V6, Lab, wait_until
from tests.support.servers import ECHO_PORT, HTTP_PORT

pytestmark = pytest.mark.skipif(
    TRANSPORT != "lean", reason="what is attacked is the stack, not gRPC"
)

MiB = 1024 * 1024

EVERYWHERE = "10.97.0.0/16"
"""A network of 65 536 addresses that never answer."""

GARBAGE = 1_000_000
WARM_UP = 300_000
"""Packets of them after which everything that is bounded has reached its bound."""

FLAT = 16 * MiB
"""What a process may grow by when nothing grows: the allocator's arenas fill unevenly."""

SEND_BUFFER = 256 * 1024
"""tcp.send_buffer for readers that read nothing: what is held for each."""

MAX_PENDING = 4096
MAX_ASSOCIATIONS = 8192
"""The defaults of tcp.max_pending and udp.max_associations."""


@dataclass(frozen=True)
class Attack:
    """A session of a test's own, to be attacked."""

    lab: Lab
    injector: Injector

    def dropped(self, reason: str) -> int:
        """How often something was refused for that reason."""
        drops: dict[str, int] = self.lab.status()["drops"]
        return drops.get(reason, 0)

    def flows(self, kind: str) -> int:
        """How many flows there are."""
        flows: dict[str, int] = self.lab.status()["flows"]
        return flows[kind]

    def engine(self) -> int:
        """Octets resident in the engine."""
        return self.lab.memory()[0]


@pytest.fixture(scope="module")
def place(bare: Lab) -> Lab:
    """A lab whose client is not connected; nobody answers in :data:`EVERYWHERE`."""
    bare.manage()
    bare.client.ip(f"route add blackhole {NOBODY}")
    bare.gateway.ip(f"route add {EVERYWHERE} via {V4.server}")
    bare.server.ip(f"route add blackhole {EVERYWHERE}")
    return bare


@pytest.fixture
def options() -> dict[str, str]:
    """Settings of the session, as variables."""
    return {}


@pytest.fixture
def attack(place: Lab, options: dict[str, str]) -> Iterator[Attack]:
    """A new session. In the end the engine is alive, and nothing surprised it."""
    place.connect("--also-proxy", EVERYWHERE, **options)
    log = Path(place.status()["log"])
    try:
        with Injector(place) as injector:
            yield Attack(place, injector)
        assert place.status()["state"] == "connected"
        assert "Traceback" not in log.read_text()
    finally:
        place.quit()


@pytest.fixture
def bystanders(attack: Attack) -> Iterator[Callable[[], None]]:
    """Asks whether flows that were there before go on; asks once more in the end."""
    with ExitStack() as flows:
        others = []
        for site in (V4, V6):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                near = attack.lab.client.new_socket(site, kind=kind)
                flows.enter_context(near)
                near.connect((site.server, ECHO_PORT))
                others.append(near)

        def ask() -> None:
            for near in others:
                near.send(b"still here?")
                assert near.recv(100) == b"still here?"

        ask()
        yield ask
        ask()


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Print a line of numbers, whether or not output is captured."""
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.timeout(300)
def test_a_million_packets_of_garbage(
    attack: Attack, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [
        address
        for site in (V4, V6)
        for address in (site.server, site.dead, site.unreachable, site.routeless)
    ]
    with ExitStack() as flows:
        near = {}
        for site in (V4, V6):
            near[site] = attack.lab.client.connect(site, site.server, ECHO_PORT)
            flows.enter_context(near[site])
        victims = [
            make_key(
                TCP, sock.getsockname()[0], sock.getsockname()[1], site.server, ECHO_PORT
            )
            for site, sock in near.items()
        ]
        packets = garbage(1, targets, victims)
        attack.injector.send(islice(packets, WARM_UP))
        before = attack.lab.memory()
        arrived = 0
        while arrived < GARBAGE - WARM_UP:
            arrived += attack.injector.send(islice(packets, 100_000))
            for sock in near.values():
                sock.sendall(b"still here?")
                assert sock.recv(100) == b"still here?"
        grown = [now - then for now, then in zip(attack.lab.memory(), before, strict=True)]

    status = attack.lab.status()
    show(
        capsys,
        f"garbage: {grown[0] / MiB:.1f} MiB more in the engine, {grown[1] / MiB:.1f} MiB"
        f" in the manager; {status['flows']}, {status['drops']}",
    )
    with attack.lab.client.connect(V4, V4.server, ECHO_PORT) as late:
        late.sendall(b"and now?")
        assert late.recv(100) == b"and now?"
    assert status["traffic"]["outbound_packets"] >= GARBAGE
    assert status["drops"]["icmp-rate-limit"] > 0
    assert max(grown) < FLAT


def test_a_syn_to_each_address_of_a_16(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    grown = survive_syns(attack, bystanders, keys(TCP, EVERYWHERE, 80), 65_536)
    show(capsys, f"65 536 SYNs: {grown / MiB:.1f} MiB more; {attack.lab.status()['drops']}")


def test_connections_that_stay_half_open(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    listening = keys(TCP, f"{V4.server}/32", ECHO_PORT)
    grown = survive_syns(attack, bystanders, listening, 20_000)
    show(capsys, f"20 000 half open: {grown / MiB:.1f} MiB; {attack.lab.status()['drops']}")


def survive_syns(
    attack: Attack, bystanders: Callable[[], None], flows: Iterator[bytes], count: int
) -> int:
    """Send so many SYNs, of which most may not count; gives the octets grown by."""
    before = attack.engine()

    attack.injector.send(make_segment(key, 1, 0, SYN) for key in islice(flows, count))

    bystanders()
    grown = attack.engine() - before
    assert attack.flows("tcp") <= MAX_PENDING + 2
    assert attack.dropped("too-many-pending") >= count - MAX_PENDING - 2
    assert grown < FLAT + MAX_PENDING * 4096
    return grown


def test_segments_of_one_octet_out_of_order(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    connections = open_raw(attack.lab, attack.injector, V4, ECHO_PORT, 50)
    before = attack.engine()

    attack.injector.send(
        make_segment(raw.key, raw.seq + at, raw.ack, ACK | PSH, b"x")
        for raw in connections
        for at in range(1, 2000, 2)
    )

    bystanders()
    grown = attack.engine() - before
    show(capsys, f"50 000 octets: {grown / MiB:.1f} MiB; {attack.lab.status()['drops']}")
    assert attack.dropped("out-of-order-limit") > 0
    assert grown < FLAT + len(connections) * MiB // 4


def test_windows_of_one_octet(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the target sends waits in the engine, and leaves in no storm of packets."""
    before = attack.engine()
    question = b"GET /bytes/10000000 HTTP/1.1\r\nHost: server\r\n\r\n"
    connections = open_raw(attack.lab, attack.injector, V4, HTTP_PORT, 20, window=1, mss=1)
    written = attack.lab.status()["traffic"]["inbound_packets"]

    attack.injector.send(
        make_segment(raw.key, raw.seq, raw.ack, ACK | PSH, question, window=1)
        for raw in connections
    )
    for number in range(1, 200):
        attack.injector.send(
            make_segment(raw.key, raw.seq + len(question), raw.ack + number, ACK, window=1)
            for raw in connections
        )

    bystanders()
    grown = attack.engine() - before
    written = attack.lab.status()["traffic"]["inbound_packets"] - written
    show(capsys, f"tiny windows: {grown / MiB:.1f} MiB more; {written} packets")
    assert grown < FLAT + len(connections) * 2 * MiB
    assert written < 3 * 200 * len(connections)


def test_fragments_that_never_end(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = attack.engine()
    whole = datagram(next(keys(UDP, f"{V4.server}/32", ECHO_PORT)), bytes(1368))

    def fragments() -> Iterator[bytes]:
        for number in range(200_000):
            fragment = bytearray(whole)
            fragment[4:6] = (number & 0xFFFF).to_bytes(2, "big")
            fragment[6:8] = b"\x20\x00"  # more come
            fragment[15] = number >> 16
            yield mend(fragment)

    attack.injector.send(fragments())

    bystanders()
    grown = attack.engine() - before
    show(capsys, f"fragments: {grown / MiB:.1f} MiB more; {attack.lab.status()['drops']}")
    assert attack.dropped("too-many-fragments") > 190_000
    assert grown < FLAT + 4 * MiB
    with attack.lab.client.new_socket(V4, kind=socket.SOCK_DGRAM) as near:
        near.connect((V4.server, ECHO_PORT))
        near.send(bytes(65_507))  # more than the MTU of 65 520: the kernel cuts it
        assert near.recv(65_536) == bytes(65_507)


@pytest.mark.parametrize("options", [{"TUNSTACK_TCP_SEND_BUFFER": str(SEND_BUFFER)}])
def test_readers_that_never_read(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = attack.engine()
    with ExitStack() as readers:
        for _ in range(200):
            near = attack.lab.client.connect(V4, V4.server, HTTP_PORT)
            readers.enter_context(near)
            near.sendall(b"GET /bytes/100000000 HTTP/1.1\r\nHost: server\r\n\r\n")
        wait_until(lambda: settled(attack), 20, "nothing is carried any more")
        bystanders()
        grown = attack.engine() - before
    show(capsys, f"200 readers: {grown / MiB:.1f} MiB more")
    assert grown < FLAT + 200 * SEND_BUFFER


def test_100_000_destinations_of_datagrams(
    attack: Attack, bystanders: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = attack.engine()
    destinations = keys(UDP, EVERYWHERE, 53)

    for _ in range(10):
        attack.injector.send(datagram(key, b"?") for key in islice(destinations, 10_000))
        bystanders()

    grown = attack.engine() - before
    show(
        capsys,
        f"100 000 destinations: {grown / MiB:.1f} MiB; {attack.lab.status()['drops']}",
    )
    assert attack.flows("udp") <= MAX_ASSOCIATIONS
    assert attack.dropped("too-many-associations") > 90_000
    with attack.lab.client.connect(V4, V4.server, ECHO_PORT) as late:
        late.sendall(b"and now?")
        assert late.recv(100) == b"and now?"
    assert grown < FLAT + MAX_ASSOCIATIONS * 4096


def settled(attack: Attack) -> bool:
    """Whether two looks at the traffic to the host show the same."""

    def look() -> Any:
        return attack.lab.status()["traffic"]["inbound_octets"]

    return bool(look() == look())
