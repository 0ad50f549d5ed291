"""Traffic goes where the contract says, and the tunnel never swallows itself.

Every address of 10.98.6.0/24 to 10.98.8.0/24 is the gateway's own, and the client's
default route leads there. A server in the gateway sees the client's address when a
connection came outside of the tunnel, and one of the gateway's own when the manager
dialled it.
"""

import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.curl import download
from tests.support.lab import MANAGER_PORT, V4, V6, Lab, Site

TUNNEL, OUTSIDE = "through the tunnel", "outside"

Way = Callable[[str], str]


@pytest.fixture(scope="module")
def network(bare: Lab) -> Lab:
    """The lab with its default routes, and a manager that serves 10.98.6.0/24."""
    for site, version in ((V4, "-4"), (V6, "-6")):
        bare.client.ip(f"{version} route add default via {site.gateway}")
    for number in (6, 7, 8):
        bare.gateway.ip(f"route add local 10.98.{number}.0/24 dev lo")
        bare.gateway.ip(f"-6 route add local fd98:{number}::/64 dev lo")
    bare.manage(
        "--insecure", f"--listen=[::]:{MANAGER_PORT}",
        "--subnet=10.98.6.0/24", "--subnet=fd98:6::/64",
        "--subnet=10.98.2.0/24", "--subnet=fd98:2::/64",
    )  # fmt: skip
    return bare


@pytest.fixture
def way(network: Lab) -> Iterator[Way]:
    """Tells which way a connection to an address goes."""
    listeners = {site: network.gateway.listen(site) for site in (V4, V6)}

    def ask(address: str) -> str:
        site = V6 if ":" in address else V4
        port = listeners[site].getsockname()[1]
        with network.client.connect(site, address, port):
            far, (peer, *_) = listeners[site].accept()
            far.close()
        asked = network.client.ip(f"route get {address}")
        assert (peer == site.client) == (" dev gateway " in asked), (peer, asked)
        return OUTSIDE if peer == site.client else TUNNEL

    try:
        yield ask
    finally:
        network.quit()
        for listener in listeners.values():
            listener.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"10.98.6.1": TUNNEL, "fd98:6::1": TUNNEL, "10.98.7.1": OUTSIDE}),
        (
            ["--never-proxy=10.98.6.128/25", "--never-proxy=fd98:6::8000/113"],
            {
                "10.98.6.127": TUNNEL,
                "10.98.6.128": OUTSIDE,
                "10.98.6.255": OUTSIDE,
                "fd98:6::7fff": TUNNEL,
                "fd98:6::8000": OUTSIDE,
            },
        ),
        (
            ["--also-proxy=10.98.7.0/24,fd98:7::/64"],
            {"10.98.6.1": TUNNEL, "10.98.7.1": TUNNEL, "fd98:7::1": TUNNEL},
        ),
        (
            ["--also-proxy=10.98.7.0/24", "--never-proxy=10.98.7.64/26"],
            {"10.98.7.63": TUNNEL, "10.98.7.64": OUTSIDE, "10.98.7.128": TUNNEL},
        ),
        (
            [
                "--never-proxy=10.98.6.0/25",
                "--also-proxy=10.98.6.16/28",
                "--never-proxy=10.98.6.20/32",
            ],
            {
                "10.98.6.1": OUTSIDE,
                "10.98.6.16": TUNNEL,
                "10.98.6.20": OUTSIDE,
                "10.98.6.21": TUNNEL,
                "10.98.6.32": OUTSIDE,
                "10.98.6.129": TUNNEL,
            },
        ),
        (
            ["--also-proxy=10.98.7.0/24", "--never-proxy=10.98.7.0/24"],
            {"10.98.6.1": TUNNEL, "10.98.7.1": OUTSIDE},
        ),
        (
            ["--never-proxy=10.98.6.0/24,fd98:6::/64"],
            {"10.98.6.1": OUTSIDE, "fd98:6::1": OUTSIDE},
        ),
        (
            ["--also-proxy=0.0.0.0/0", "--never-proxy=10.98.8.0/24"],
            {"10.98.6.1": TUNNEL, "10.98.7.1": TUNNEL, "10.98.8.1": OUTSIDE},
        ),
        (
            ["--also-proxy=::/0", "--never-proxy=fd98:8::/64"],
            {"fd98:6::1": TUNNEL, "fd98:7::1": TUNNEL, "fd98:8::1": OUTSIDE},
        ),
    ],
    ids=[
        "the cluster's", "never inside", "also outside", "never inside also", "nested",
        "equal, also", "equal, cluster's", "everything", "everything of IPv6",
    ],
)  # fmt: skip
def test_the_most_specific_network_wins(
    network: Lab, way: Way, options: list[str], expected: dict[str, str]
) -> None:
    network.connect(*options)
    assert {address: way(address) for address in expected} == expected


@pytest.mark.parametrize("site", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("everything", [False, True], ids=["subnet", "everything"])
def test_a_manager_inside_a_proxied_network_stays_out(
    network: Lab, way: Way, site: Site, everything: bool
) -> None:
    """Here the manager is reached at an address of the server's own network."""
    host = f"[{site.inner}]" if site is V6 else site.inner
    options = ["--also-proxy=0.0.0.0/0,::/0"] if everything else []
    network.connect(*options, manager=f"{host}:{MANAGER_PORT}")
    assert " dev gateway " in network.client.ip(f"route get {site.inner}")
    for target in (V4, V6):
        download(network.client, target, 20_000_000)


@pytest.mark.parametrize("existing", ["10.98.6.0/24", "10.98.6.64/26"])
def test_an_existing_route_is_a_conflict_and_nothing_is_touched(
    network: Lab, existing: str
) -> None:
    network.client.ip(f"route add {existing} via {V4.gateway}")
    before = network.client.state()
    try:
        result = network.connect_once()
        assert result.returncode == 5
        assert re.fullmatch(r"error: .*\nhint: .*\n", result.stderr), result.stderr
        assert existing in result.stderr
        assert network.client.state() == before
        assert network.client.pids() == []
    finally:
        network.client.ip(f"route del {existing}")


def test_never_proxy_settles_a_conflict(network: Lab, way: Way) -> None:
    network.client.ip(f"route add 10.98.6.64/26 via {V4.gateway}")
    try:
        network.connect("--never-proxy=10.98.6.64/26")
        assert way("10.98.6.65") == OUTSIDE
        assert way("10.98.6.1") == TUNNEL
    finally:
        network.client.ip("route del 10.98.6.64/26")


def test_a_broader_route_is_none(network: Lab, way: Way) -> None:
    network.client.ip(f"route add 10.98.0.0/16 via {V4.gateway}")
    try:
        network.connect()
        assert way("10.98.6.1") == TUNNEL
        assert way("10.98.7.1") == OUTSIDE
    finally:
        network.client.ip("route del 10.98.0.0/16")


def test_status_tells_what_is_routed(network: Lab, way: Way) -> None:
    network.connect("--also-proxy=10.98.7.0/24", "--never-proxy=10.98.6.128/25")
    routes = network.status()["routes"]
    assert {"10.98.6.0/25", "10.98.7.0/24"} <= set(routes["proxied"])
    assert routes["also_proxy"] == ["10.98.7.0/24"]
    assert routes["never_proxy"] == ["10.98.6.128/25"]
