"""Losses, full queues and readers that stop cost throughput, not bytes or memory."""

import json
import random
import select
import socket
from collections.abc import Iterator

import pytest

from tests.support.curl import download, upload
from tests.support.lab import Lab, Site

MB = 1_000_000
MiB = 1024 * 1024
STALLED = 4
BUFFER = 2 * MiB
"""What a connection may hold in each direction: tcp.receive_buffer, tcp.send_buffer."""


@pytest.fixture
def lossy(lab: Lab) -> Iterator[None]:
    """One packet in a hundred from the gateway to the server is lost."""
    lab.gateway.ip("link set server gso_max_segs 1 gso_max_size 1514")
    rule = "meta l4proto tcp numgen random mod 100 == 0 counter drop"
    try:
        with lab.server.firewall(rule) as dropped:
            yield
            assert lab.server.counted(dropped)[0] > 100
    finally:
        lab.gateway.ip("link set server gso_max_segs 65535 gso_max_size 65536")


def test_an_upload_over_a_lossy_network_is_intact(
    lossy: None, lab: Lab, site: Site
) -> None:
    upload(lab, site, 50 * MB)


def test_an_upload_through_a_short_queue_is_intact(tunnel: Lab, site: Site) -> None:
    device = tunnel.status()["device"]["name"]
    shown = json.loads(tunnel.client.ip(f"-json link show {device}"))
    usual = shown[0]["txqlen"]
    tunnel.client.ip(f"link set {device} txqueuelen 500")
    try:
        upload(tunnel, site, 100 * MB)
    finally:
        tunnel.client.ip(f"link set {device} txqueuelen {usual}")


def fill(writers: list[socket.socket], data: bytes) -> dict[socket.socket, int]:
    """Send to each until nothing more fits for a second; gives the octets sent."""
    sent = dict.fromkeys(writers, 0)
    for writer in writers:
        writer.setblocking(False)
    while ready := select.select([], writers, [], 1)[1]:
        for writer in ready:
            sent[writer] += writer.send(memoryview(data)[sent[writer] :])
    return sent


@pytest.mark.parametrize("direction", ["up", "down"])
def test_who_stops_reading_slows_nobody_and_takes_no_more_than_a_buffer(
    lab: Lab, site: Site, direction: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = download(lab.client, site, 50 * MB)
    before = lab.memory()
    data = random.Random(4).randbytes(64 * MiB)
    with lab.server.listen(site) as listener:
        ends = []
        for _ in range(STALLED):
            near = lab.client.connect(site, site.server, listener.getsockname()[1])
            far, _ = listener.accept()
            ends.append((near, far) if direction == "up" else (far, near))

    sent = fill([writer for writer, _ in ends], data)
    beside = download(lab.client, site, 50 * MB)
    grown = [after - then for after, then in zip(lab.memory(), before, strict=True)]

    with capsys.disabled():
        more = " and ".join(f"{octets / MiB:.1f} MiB" for octets in grown)
        print(f"\n{direction}: 50 MB in {clean:.2f} s, {beside:.2f} s beside; {more} more")
    assert max(sent.values()) < len(data), "nothing ever held the writer back"
    assert beside < 3 * clean + 0.5
    assert max(grown, default=0) < 2 * STALLED * BUFFER
    for writer, reader in ends:
        writer.close()
        reader.settimeout(10)
        assert received(reader) == data[: sent[writer]]


def received(sock: socket.socket) -> bytes:
    """Read up to the end of file."""
    return b"".join(iter(lambda: sock.recv(MiB), b""))
