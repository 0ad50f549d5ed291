"""Datagrams arrive as they were sent, or their sender is told."""

import random
import select
import socket

import pytest

from tests.support.lab import Lab, Site
from tests.support.servers import ECHO_PORT

CLOSED_PORT = 7999


@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 25_000, 65_507], ids="{}B".format)
def test_a_datagram_is_echoed(lab: Lab, site: Site, size: int) -> None:
    question = random.Random(size).randbytes(size)
    near = lab.client.new_socket(site, kind=socket.SOCK_DGRAM)
    near.connect((site.server, ECHO_PORT))
    near.send(question)
    assert near.recv(65_536) == question


def test_1000_sockets_get_each_its_own_answer(lab: Lab, site: Site) -> None:
    sockets = [lab.client.new_socket(site, kind=socket.SOCK_DGRAM) for _ in range(1000)]
    for number, near in enumerate(sockets):
        near.connect((site.server, ECHO_PORT))
        near.send(b"%d" % number)
    assert [int(near.recv(100)) for near in sockets] == list(range(1000))
    for near in sockets:
        near.close()


def test_a_closed_port_refuses_a_connected_socket(lab: Lab, site: Site) -> None:
    near = lab.client.new_socket(site, kind=socket.SOCK_DGRAM)
    near.connect((site.server, CLOSED_PORT))
    near.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        near.recv(100)


def test_a_refusal_ends_nothing_for_good(lab: Lab, site: Site) -> None:
    near = lab.client.new_socket(site, kind=socket.SOCK_DGRAM)
    near.connect((site.server, CLOSED_PORT))
    near.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        near.recv(100)

    with lab.server:
        far = socket.socket(site.family, socket.SOCK_DGRAM)
    with far:
        far.bind(("", CLOSED_PORT))
        far.settimeout(10)
        near.send(b"now?")
        question, asker = far.recvfrom(100)
        far.sendto(question.upper(), asker)
        assert near.recv(100) == b"NOW?"


def test_a_burst_arrives_in_order(lab: Lab, site: Site) -> None:
    with lab.server.listen(site, kind=socket.SOCK_DGRAM) as far:
        near = lab.client.new_socket(site, kind=socket.SOCK_DGRAM)
        near.connect((site.server, far.getsockname()[1]))
        for number in range(100):
            near.send(b"%d" % number)
        assert [int(far.recv(100)) for _ in range(100)] == list(range(100))


def test_an_unconnected_socket_talks_to_two_ports(lab: Lab, site: Site) -> None:
    near = lab.client.new_socket(site, kind=socket.SOCK_DGRAM)
    with lab.server.listen(site, kind=socket.SOCK_DGRAM) as far:
        near.sendto(b"to the echo", (site.server, ECHO_PORT))
        assert near.recvfrom(100)[1][:2] == (site.server, ECHO_PORT)
        near.sendto(b"to the other", (site.server, far.getsockname()[1]))
        assert far.recv(100) == b"to the other"
        assert not select.select([near], [], [], 0)[0]
