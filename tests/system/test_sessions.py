"""Sessions beside each other do not meet."""

import random
import socket
from collections.abc import Iterator

import pytest

from tests.support.lab import V4, Lab, Namespace, Site, link
from tests.support.servers import ECHO_PORT

SHARED = {socket.AF_INET: "10.98.50.1", socket.AF_INET6: "fd98:50::1"}
"""An address that both clients have."""


@pytest.fixture(scope="module")
def clients(_connected: Lab, tunnel_only: None) -> Iterator[list[Namespace]]:
    """The lab's client, and another with a session of its own."""
    lab = _connected
    other = Namespace(f"{lab.name}-c2", lab.logs)
    name = f"{lab.name}-c2"
    try:
        link(other, "gateway", "10.98.10.1", lab.gateway, "client2", "10.98.10.2")
        other.ip(f"route add {V4.gateway} via 10.98.10.2")
        for client in (lab.client, other):
            for address in SHARED.values():
                client.ip(f"address add {address} dev lo")
        lab.connect(where=other, name=name)
        yield [lab.client, other]
        lab.quit(name)
    finally:
        other.close()


def test_the_server_sees_the_manager(tunnel: Lab, site: Site) -> None:
    """So it is the tunnel that these tests are about, and not the kernel."""
    with (
        tunnel.server.listen(site) as listener,
        tunnel.client.connect(site, site.server, listener.getsockname()[1]),
    ):
        _, (peer, *_) = listener.accept()
    assert peer == site.inner


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_same_address_and_port_on_two_computers_do_not_meet(
    clients: list[Namespace], site: Site, kind: socket.SocketKind
) -> None:
    sockets = [client.new_socket(site, kind=kind) for client in clients]
    for sock in sockets:
        sock.bind((SHARED[site.family], 40_000))
        sock.connect((site.server, ECHO_PORT))
    for turn in range(20):
        asked = [random.Random(f"{turn} {n}").randbytes(1000) for n in range(2)]
        for sock, question in zip(sockets, asked, strict=True):
            sock.sendall(question)
        for sock, question in zip(sockets, asked, strict=True):
            assert sock.recv(1000, socket.MSG_WAITALL) == question
    for sock in sockets:
        sock.close()
