"""What the kernel tells of links, addresses and routes, and what it refuses."""

import errno
import socket
import subprocess
from contextlib import closing
from ipaddress import ip_network

import pytest

from tunstack.host import routes_linux, rtnetlink
from tunstack.host.routes import Route
from tunstack.host.rtnetlink import RouteSocket

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("namespace")]

LOCAL = 2  # IFA_LOCAL, linux/if_addr.h


def ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def test_a_route_is_known_by_its_network_and_its_first_device():
    ip(
        "link add one type veth peer name two",
        "link set one up",
        "link set two up",
        "address add 192.0.2.1/32 dev one",
        "route add default dev one",
        "route add 10.0.0.0/8 nexthop dev two weight 1 nexthop dev one weight 9",
        "route add fd00::/64 dev two",
        "route add unreachable 10.9.0.0/16",
        "route add 10.8.0.0/16 dev one table 100",
    )
    found = [each for each in routes_linux.read_routes() if each.network.prefixlen != 64]
    assert found == [
        Route(ip_network("0.0.0.0/0"), "one"),
        Route(ip_network("10.0.0.0/8"), "two"),
    ]
    assert Route(ip_network("fd00::/64"), "two") in routes_linux.read_routes()


def test_a_list_is_whole_though_it_changes_while_it_is_read(monkeypatch):
    goes = [f"127.1.{n // 250}.{n % 250}" for n in range(1000)]
    stays = [f"127.2.{n // 250}.{n % 250}" for n in range(2000)]
    ip(*(f"address add {each}/32 dev lo" for each in goes + stays))

    class Meanwhile(socket.socket):
        """What the list begins with goes when a part of it has been read."""

        def recv(self, size: int) -> bytes:
            octets = super().recv(size)
            ip(*(f"address delete {each}/32 dev lo" for each in goes))
            goes.clear()
            return octets

    monkeypatch.setattr(socket, "socket", Meanwhile)
    with closing(RouteSocket()) as kernel:
        found = kernel.dump(rtnetlink.GET_ADDRESS, rtnetlink.ADDRESS, socket.AF_INET)
    assert [socket.inet_ntoa(each.attributes[LOCAL]) for each in found] == stays


def test_what_the_kernel_refuses_is_an_error_of_the_system():
    head = rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, 4711, 0, 0)
    with closing(RouteSocket()) as kernel:
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                kernel.change(rtnetlink.NEW_LINK, head, [])
            assert caught.value.errno == errno.ENODEV
