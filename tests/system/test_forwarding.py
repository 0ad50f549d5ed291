"""What the kernel forwards into the device is served like the host's own."""

import random
import socket
import subprocess

import pytest

from tests.support.curl import download
from tests.support.lab import Lab, Site
from tests.support.servers import ECHO_PORT


def test_a_namespace_behind_the_client_downloads(lab: Lab, site: Site) -> None:
    download(lab.pod, site, 20_000_000)


@pytest.mark.parametrize("size", [1, 1400, 20_000], ids="{}B".format)
def test_a_namespace_behind_the_client_exchanges_datagrams(
    lab: Lab, site: Site, size: int
) -> None:
    question = random.Random(size).randbytes(size)
    near = lab.pod.new_socket(site, kind=socket.SOCK_DGRAM)
    near.connect((site.server, ECHO_PORT))
    near.send(question)
    assert near.recv(65_536) == question


def test_a_namespace_behind_the_client_is_refused(lab: Lab, site: Site) -> None:
    with pytest.raises(ConnectionRefusedError):
        lab.pod.connect(site, site.server, 7999)


def test_a_namespace_behind_the_client_pings(lab: Lab, site: Site) -> None:
    ping = lab.pod.inside("ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", site.server)
    subprocess.run(ping, check=True, timeout=10, capture_output=True)
