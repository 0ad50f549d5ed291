"""The tunnel comes back by itself, and says meanwhile that it is away."""

import hashlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.lab import MANAGER_PORT, V4, Lab, wait_until
from tests.support.servers import ECHO_PORT, content, digest

KEEPALIVE = 2.0
MB = 1_000_000


@pytest.fixture
def network(bare: Lab) -> Iterator[Lab]:
    """A connected lab whose session gives up on silence after :data:`KEEPALIVE`."""
    bare.manage()
    bare.connect(TUNSTACK_TUNNEL_KEEPALIVE=str(KEEPALIVE))
    try:
        yield bare
    finally:
        bare.quit()
        bare.manager.kill()
        bare.manager.wait()


def state(lab: Lab) -> str:
    """What ``status`` says."""
    word: str = lab.status()["state"]
    return word


def test_a_killed_manager_that_returns_is_found_again(network: Lab) -> None:
    established = network.client.connect(V4, V4.server, ECHO_PORT)
    network.manager.kill()
    network.manager.wait()
    wait_until(lambda: state(network) == "reconnecting", 5, "status says reconnecting")

    # Its flow cannot come back: it must hear so though the manager stays away.
    established.settimeout(KEEPALIVE + 2)
    with pytest.raises(ConnectionResetError):
        established.recv(1)

    meanwhile = network.client.new_socket(V4, timeout=20)
    connected = threading.Event()

    def connect() -> None:
        meanwhile.connect((V4.server, ECHO_PORT))
        connected.set()

    threading.Thread(target=connect, daemon=True).start()
    network.manage()
    wait_until(lambda: state(network) == "connected", 5, "reconnected")
    assert connected.wait(10), "a connection made meanwhile succeeds"
    meanwhile.sendall(b"hello")
    assert meanwhile.recv(100) == b"hello"


def test_a_frozen_manager_is_noticed(network: Lab) -> None:
    os.kill(network.manager.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state(network) == "reconnecting", 3 * KEEPALIVE + 2, "noticed")
    finally:
        os.kill(network.manager.pid, signal.SIGCONT)
    wait_until(lambda: state(network) == "connected", 10, "reconnected")


def test_flows_outlive_the_tunnels_own_connection(network: Lab) -> None:
    """The manager is well, only the way to it broke: nothing is lost."""
    with network.server.listen(V4) as listener:
        near = network.client.connect(V4, V4.server, listener.getsockname()[1])
        far, _ = listener.accept()
    length = 100 * MB

    def send() -> None:
        for piece in content(length):
            near.sendall(piece)
        near.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    total, arrived, cut = hashlib.sha256(), 0, 0
    far.settimeout(20)
    while piece := far.recv(1 << 20):
        total.update(piece)
        arrived += len(piece)
        if arrived > 20 * MB * (cut + 1) and cut < 3:
            cut += 1
            cut_tunnel(network)
    assert cut == 3
    assert total.hexdigest() == digest(length)


def cut_tunnel(lab: Lab) -> None:
    """Reset the tunnel's own TCP connection, as a middlebox does that forgot it."""
    rule = f"tcp dport {MANAGER_PORT} tcp flags & syn == 0 counter reject with tcp reset"
    with lab.gateway.firewall(rule, hook="input") as rejected:
        wait_until(lambda: lab.gateway.counted(rejected)[0], 10, "the tunnel was cut")
