"""What does an application get through a real API server, beside kr8s's port-forward?

Both reach the same echo server of the Kubernetes lab (``KUBE_LAB``) from the same laptop,
by turns: round trips of 64 octets, then 64 MiB there and back at once. kr8s forwards a port
to the server's pod; tunstack to its manager, which dials that pod. Needs root, the lab, and
the manager's image (``make kube-image``).
"""

import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest

from tests.support.kube import Kube, why_not

PORT = 7007
LOCAL = 17_007
OCTETS = 64 << 20
ROUND_TRIPS = 300
TURNS = 3
FLOWS = 4

ANSWERS = (("round trip, us", 1e6), ("1 flow, MB/s", 1e-6), ("4 flows, MB/s", 1e-6))

KR8S = f"""
import asyncio, sys
import kr8s.asyncio

async def main():
    pod = await kr8s.asyncio.objects.Pod.get(sys.argv[1], namespace="testserver")
    async with pod.portforward(remote_port={PORT}, local_port={LOCAL}):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def kube():
    if reason := why_not():
        pytest.skip(reason)
    kube = Kube()
    try:
        kube.serve()
        kube.install()
        yield kube
        kube.tunstack("uninstall", "--everything")
    finally:
        kube.close()


def round_trip(sock):
    """Seconds, the median."""
    times = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        sock.sendall(bytes(64))
        left = 64
        while left:
            left -= len(sock.recv(left))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def bulk(sockets):
    """Octets a second, each way, over all of them."""
    share = OCTETS // len(sockets)
    chunk = bytes(1 << 18)

    def up(sock):
        for _ in range(share // len(chunk)):
            sock.sendall(chunk)

    def down(sock):
        room, left = bytearray(1 << 20), share
        while left:
            left -= sock.recv_into(room, min(left, len(room)))

    threads = [threading.Thread(target=f, args=(s,)) for s in sockets for f in (up, down)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return OCTETS / (time.perf_counter() - began)


def measure(kube, host, port):
    """Round trip, throughput with one connection, with several."""
    with kube.tcp(host, port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        values = [round_trip(sock), bulk([sock])]
    sockets = [kube.tcp(host, port) for _ in range(FLOWS)]
    values.append(bulk(sockets))
    for sock in sockets:
        sock.close()
    return values


@pytest.mark.parametrize("forwards", [1, 2, 4])
@pytest.mark.parametrize("delay", [0, 0.02], ids=["", "20 ms"])
def bench_port_forward(kube, forwards, delay):
    kube.relay(delay / 2)
    pod = kube.pods("testserver", "app=testserver")[0]
    other = subprocess.Popen(
        kube.laptop.inside(sys.executable, "-c", KR8S, pod["metadata"]["name"]),
        env=kube.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert other.stdout.readline() == "ready\n"
        kube.connect(TUNSTACK_CLUSTER_PORT_FORWARDS=str(forwards))
        turns = [
            (
                measure(kube, "127.0.0.1", LOCAL),
                measure(kube, pod["status"]["podIP"], PORT),
            )
            for _ in range(TURNS)
        ]
    finally:
        other.kill()
        other.wait()
        kube.tunstack("quit")
    print(f"\n{forwards} port-forwards, {delay * 1000:.0f} ms away; kr8s, tunstack, ratio")
    for at, (name, unit) in enumerate(ANSWERS):
        their, our = (statistics.median(turn[who][at] for turn in turns) for who in (0, 1))
        print(f"  {name:15} {their * unit:8.0f} {our * unit:8.0f} {our / their:6.2f}")
