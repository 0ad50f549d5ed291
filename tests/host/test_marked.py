"""Sockets of our own server: their mark, and ports that nobody is given."""

import socket

import pytest

from tunstack.host.marked import free_ports, open_marked
from tunstack.host.rewrites import MARK

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("namespace")]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_they_are_marked_and_their_ports_are_given_to_nobody(family, kind):
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first, last = map(int, file.read().split())
    sockets = [open_marked(family, kind) for _ in range(64)]
    try:
        ports = {sock.getsockname()[1] for sock in sockets}
        assert len(ports) > 32
        assert not any(port == 0 or first <= port <= last for port in ports)
        for sock in sockets:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
            assert not sock.getblocking()
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize(
    ("local", "ports"),
    [
        ("32768\t60999\n", range(61_000, 65_536)),
        ("10000 65000", range(1024, 10_000)),
        ("1024 65535", range(0)),
        ("2000 64000", range(0)),
    ],
)
def test_ports_are_above_those_that_the_kernel_gives_else_below(local, ports):
    assert free_ports(local) == ports
