"""The tunnel by other settings than the usual ones."""

import random
import socket
from collections.abc import Iterator

import pytest

from tests.support import lab as labs
from tests.support.curl import download, upload
from tests.support.lab import Lab, Site
from tests.support.servers import ECHO_PORT

MB = 1_000_000

OTHER_TRANSPORT = "stock" if labs.TRANSPORT == "lean" else "lean"
"""Than the manager's."""

VARIANTS = {
    "no offload": (("--no-offload",), {}),
    "no offload, small packets": (("--no-offload", "--mtu", "1500"), {}),
    "small packets": (("--mtu", "1280"), {}),
    "eager": ((), {"TUNSTACK_TCP_ACCEPT": "eager"}),
    "the other transport": ((), {"TUNSTACK_TUNNEL_TRANSPORT": OTHER_TRANSPORT}),
}


@pytest.fixture(scope="module")
def place(_made_only: Lab, tunnel_only: None) -> Lab:
    """A lab whose manager runs, and whose client is not connected."""
    _made_only.manage()
    return _made_only


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys(), scope="module")
def variant(place: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The same lab, connected by other settings."""
    options, environment = request.param
    place.connect(*options, **environment)
    yield place
    place.quit()


def test_transfers_are_intact(variant: Lab, site: Site) -> None:
    upload(variant, site, 20 * MB)
    download(variant.client, site, 20 * MB)


@pytest.mark.parametrize("size", [0, 1200, 1473, 25_000])
def test_a_datagram_is_echoed(variant: Lab, site: Site, size: int) -> None:
    question = random.Random(size).randbytes(size)
    near = variant.client.new_socket(site, kind=socket.SOCK_DGRAM)
    near.connect((site.server, ECHO_PORT))
    near.send(question)
    assert near.recv(65_536) == question


def test_a_closed_port_is_said_at_once_or_right_after(
    variant: Lab, site: Site, request: pytest.FixtureRequest
) -> None:
    near = variant.client.new_socket(site)
    try:
        near.connect((site.server, 7999))
    except ConnectionRefusedError:
        return
    except ConnectionResetError:
        # Accepted and reset before this process woke up.
        assert "eager" in request.node.name
        return
    with pytest.raises(ConnectionResetError):
        near.recv(1)
