"""The rule of the contract, row by row, and against a naive reading of it."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunstack.errors import HostError
from tunstack.host.routes import Plan, Route, RouteConflict, free_subnet, plan


def networks(text: str):
    return [ip_network(word) for word in text.split()]


def routes(text: str) -> list[Route]:
    """Read ``NETWORK=INTERFACE ...``."""
    pairs = (word.split("=") for word in text.split())
    return [Route(ip_network(network), interface) for network, interface in pairs]


def planned(cluster="", also="", never="", out="", existing="") -> Plan:
    return plan(
        cluster=networks(cluster),
        also_proxy=networks(also),
        never_proxy=networks(never),
        keep_out=[ip_address(word) for word in out.split()],
        existing=routes(existing),
        device="ts0",
    )


PROXIED = [
    # what it shows, arguments, what is routed
    ("nothing", {}, ""),
    ("one subnet", {"cluster": "10.96.0.0/12"}, "10.96.0.0/12"),
    ("IPv6", {"cluster": "fd00:10::/108"}, "fd00:10::/108"),
    ("both versions", {"cluster": "fd00::/64 10.0.0.0/8"}, "10.0.0.0/8 fd00::/64"),
    ("duplicates", {"cluster": "10.0.0.0/8", "also": "10.0.0.0/8"}, "10.0.0.0/8"),
    ("also outside", {"cluster": "10.0.0.0/9", "also": "172.16.0.0/12"},
     "10.0.0.0/9 172.16.0.0/12"),
    ("also inside", {"cluster": "10.0.0.0/8", "also": "10.1.0.0/16"}, "10.0.0.0/8"),
    ("also around", {"cluster": "10.1.0.0/16", "also": "10.0.0.0/8"}, "10.0.0.0/8"),
    ("adjacent subnets", {"cluster": "10.0.0.0/9 10.128.0.0/9"}, "10.0.0.0/8"),
    ("adjacent, not aligned", {"cluster": "10.1.0.0/16 10.2.0.0/16"},
     "10.1.0.0/16 10.2.0.0/16"),
    ("four become one", {"cluster": "10.0.2.0/24 10.0.0.0/24 10.0.3.0/24 10.0.1.0/24"},
     "10.0.0.0/22"),
    ("adjacent in IPv6", {"cluster": "fd00::/65 fd00:0:0:0:8000::/65"}, "fd00::/64"),
    ("never inside", {"cluster": "10.0.0.0/8", "never": "10.128.0.0/9"}, "10.0.0.0/9"),
    ("never inside, in the middle", {"cluster": "10.0.0.0/30", "never": "10.0.0.1/32"},
     "10.0.0.0/32 10.0.0.2/31"),
    ("never outside", {"cluster": "10.0.0.0/8", "never": "192.168.0.0/16"}, "10.0.0.0/8"),
    ("never around", {"cluster": "10.1.0.0/16", "never": "10.0.0.0/8"}, "10.1.0.0/16"),
    ("never equal to cluster", {"cluster": "10.0.0.0/8", "never": "10.0.0.0/8"}, ""),
    ("never equal to also", {"also": "10.0.0.0/8", "never": "10.0.0.0/8"}, ""),
    ("also inside never inside cluster",
     {"cluster": "10.0.0.0/8", "never": "10.128.0.0/9", "also": "10.192.0.0/10"},
     "10.0.0.0/9 10.192.0.0/10"),
    ("four deep",
     {"cluster": "10.0.0.0/8", "never": "10.0.0.0/9 10.0.0.0/11", "also": "10.0.0.0/10"},
     "10.32.0.0/11 10.128.0.0/9"),
    ("never in IPv6", {"cluster": "fd00::/64", "never": "fd00::/65"},
     "fd00:0:0:0:8000::/65"),
    ("never of the other version", {"cluster": "10.0.0.0/8", "never": "::/0"},
     "10.0.0.0/8"),
    ("the manager inside", {"cluster": "10.0.0.0/30", "out": "10.0.0.3"},
     "10.0.0.0/31 10.0.0.2/32"),
    ("kept out though also-proxied", {"also": "10.0.0.3/32", "out": "10.0.0.3"}, ""),
    ("kept out in IPv6", {"cluster": "fd00::/127", "out": "fd00::1"}, "fd00::/128"),
    ("kept out elsewhere", {"cluster": "10.0.0.0/8", "out": "192.0.2.1"}, "10.0.0.0/8"),
    ("all of IPv4", {"also": "0.0.0.0/1 128.0.0.0/1", "never": "0.0.0.0/1"}, "128.0.0.0/1"),
    ("two halves", {"also": "0.0.0.0/1 128.0.0.0/1"}, "0.0.0.0/1 128.0.0.0/1"),
    ("two halves in IPv6", {"also": "::/1 8000::/1"}, "::/1 8000::/1"),
    ("beside a default route", {"cluster": "10.0.0.0/8", "existing": "0.0.0.0/0=eth0"},
     "10.0.0.0/8"),
    ("inside a VPN", {"cluster": "10.96.0.0/12", "existing": "10.0.0.0/8=wg0"},
     "10.96.0.0/12"),
    ("beside a neighbour", {"cluster": "10.0.0.0/9", "existing": "10.128.0.0/9=wg0"},
     "10.0.0.0/9"),
    ("our own route", {"cluster": "10.0.0.0/8", "existing": "10.0.0.0/8=ts0"},
     "10.0.0.0/8"),
    ("loopback does not count", {"also": "127.0.0.0/8", "existing": "127.0.0.0/8=lo"},
     "127.0.0.0/8"),
    ("link-local does not count",
     {"also": "fe80::/10", "existing": "fe80::/64=eth0 fe80::/64=eth1"}, "fe80::/10"),
    ("multicast does not count", {"also": "224.0.0.0/4", "existing": "224.0.0.0/4=eth0"},
     "224.0.0.0/4"),
    ("never saves from a conflict, equal",
     {"cluster": "10.0.0.0/8", "never": "10.128.0.0/9", "existing": "10.128.0.0/9=wg0"},
     "10.0.0.0/9"),
    ("never saves from a conflict, around",
     {"cluster": "10.0.0.0/8", "never": "10.128.0.0/9", "existing": "10.200.0.0/16=wg0"},
     "10.0.0.0/9"),
    ("also inside never inside a VPN",
     {"cluster": "10.0.0.0/8", "never": "10.128.0.0/9", "also": "10.200.0.0/16",
      "existing": "10.128.0.0/9=wg0"},
     "10.0.0.0/9 10.200.0.0/16"),
    ("the manager's own host route",
     {"cluster": "10.0.0.0/31", "out": "10.0.0.1", "existing": "10.0.0.1/32=eth0"},
     "10.0.0.0/32"),
    ("the manager on the link around us",
     {"also": "10.0.1.0/30", "out": "10.0.1.2", "existing": "10.0.0.0/16=eth0"},
     "10.0.1.0/31 10.0.1.3/32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"), [row[1:] for row in PROXIED], ids=[row[0] for row in PROXIED]
)
def test_routes_the_fewest_networks_that_the_rule_gives(arguments, expected):
    assert list(planned(**arguments).proxied) == networks(expected)


CONFLICTS = [
    ("equal", {"cluster": "10.0.0.0/8", "existing": "10.0.0.0/8=wg0"}),
    ("inside", {"cluster": "10.0.0.0/8", "existing": "10.1.0.0/16=wg0"}),
    ("a host inside", {"cluster": "10.0.0.0/8", "existing": "10.1.2.3/32=wg0"}),
    ("inside also-proxy", {"also": "172.16.0.0/12", "existing": "172.17.0.0/16=docker0"}),
    ("IPv6", {"cluster": "fd00::/48", "existing": "fd00::/64=wg0"}),
    ("among others", {"cluster": "10.0.0.0/8 172.16.0.0/12",
                      "existing": "0.0.0.0/0=eth0 192.168.0.0/16=eth0 172.16.0.0/12=br0"}),
    ("never-proxy frees only a part",
     {"cluster": "10.0.0.0/8", "never": "10.1.0.0/17", "existing": "10.1.0.0/16=wg0"}),
    ("the manager frees only itself",
     {"cluster": "10.0.0.0/16", "out": "10.0.1.2", "existing": "10.0.1.0/24=eth0"}),
    ("of the cluster's, beside everything else",
     {"cluster": "10.0.0.0/8", "also": "0.0.0.0/0", "existing": "10.1.0.0/16=wg0"}),
]  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [row[1] for row in CONFLICTS], ids=[row[0] for row in CONFLICTS]
)
def test_an_existing_route_equal_or_inside_is_a_conflict(arguments):
    with pytest.raises(RouteConflict):
        planned(**arguments)


def test_a_conflict_says_who_has_the_network_and_what_to_do():
    with pytest.raises(RouteConflict) as caught:
        planned(cluster="10.96.0.0/12", existing="10.100.0.0/16=wg0")
    assert caught.value.exit_code == 5
    assert "10.96.0.0/12 overlaps 10.100.0.0/16, which goes to wg0" in str(caught.value)
    assert "add 10.100.0.0/16 to routing.never_proxy" in caught.value.hint


def test_following_the_hint_of_a_conflict_resolves_it():
    existing = "10.100.0.0/16=wg0"
    assert planned(cluster="10.96.0.0/12", never="10.100.0.0/16", existing=existing).proxied


def test_a_broader_route_is_shown_as_an_overlap_and_a_default_route_is_not():
    found = planned(cluster="10.96.0.0/12", existing="0.0.0.0/0=eth0 10.0.0.0/8=wg0")
    assert found.overlaps == ((ip_network("10.96.0.0/12"), *routes("10.0.0.0/8=wg0")),)


def routed(found: Plan, address: str) -> bool:
    return any(ip_address(address) in network for network in found.proxied)


def test_everything_leaves_what_the_host_routes_itself_to_the_host():
    existing = "0.0.0.0/0=eth0 192.168.1.0/24=eth0 10.0.0.0/8=wg0"
    found = planned(also="0.0.0.0/0", out="192.168.1.10 203.0.113.5", existing=existing)
    for inside in ("8.8.8.8", "203.0.113.4", "203.0.113.6", "192.168.0.255", "11.0.0.0"):
        assert routed(found, inside), inside
    stays = "203.0.113.5 192.168.1.1 192.168.1.10 192.168.1.11 10.1.2.3"
    never = "127.0.0.1 169.254.169.254 224.0.0.251"
    for outside in (*stays.split(), *never.split()):
        assert not routed(found, outside), outside
    assert {overlap.existing.interface for overlap in found.overlaps} == {"eth0", "wg0"}


def test_everything_of_ipv6_leaves_ipv4_alone():
    found = planned(also="::/0", out="2001:db8::5", existing="::/0=eth0 fd00::/64=eth0")
    assert routed(found, "2001:db8::4")
    for outside in ("2001:db8::5", "fd00::1", "::1", "fe80::1", "ff02::1"):
        assert not routed(found, outside), outside
    assert {network.version for network in found.proxied} == {6}


def test_a_cluster_inside_a_vpn_is_reached_though_everything_is_asked_for():
    found = planned(cluster="10.96.0.0/12", also="0.0.0.0/0", existing="10.0.0.0/8=wg0")
    assert routed(found, "10.96.0.1")
    assert not routed(found, "10.1.0.1")


def test_no_default_route_is_ever_planned():
    found = planned(also="0.0.0.0/1 128.0.0.0/1 ::/0 ::/1 8000::/1")
    assert all(network.prefixlen for network in found.proxied)


SPACE = ip_network("10.0.0.0/24")
small = st.integers(24, 32).flatmap(
    lambda length: st.sampled_from(list(SPACE.subnets(new_prefix=length)))
)
some = st.lists(small, max_size=6)


few = st.lists(st.sampled_from(list(SPACE)), max_size=3)


@given(cluster=some, also=some, never=some, out=few)
def test_each_address_is_routed_if_and_only_if_the_rule_says_so(cluster, also, never, out):
    found = plan(
        cluster=cluster, also_proxy=also, never_proxy=never, keep_out=out, existing=(),
        device="ts0",
    )  # fmt: skip

    def rule(address: IPv4Address) -> bool:
        def longest(those):
            return max((net.prefixlen for net in those if address in net), default=-1)

        return address not in out and longest([*cluster, *also]) > longest(never)

    for address in SPACE:
        times = sum(address in network for network in found.proxied)
        assert times == rule(address), address


@given(cluster=some, never=some, existing=some)
def test_a_plan_never_takes_a_route_from_its_owner(cluster, never, existing):
    try:
        found = plan(
            cluster=cluster, also_proxy=(), never_proxy=never, keep_out=(), device="ts0",
            existing=[Route(network, "wg0") for network in existing],
        )  # fmt: skip
    except RouteConflict as conflict:
        claimed = conflict.existing in existing
        assert claimed and conflict.existing.subnet_of(conflict.wanted)  # noqa: PT017, PT018
        return
    for theirs in existing:
        assert not any(theirs.subnet_of(ours) for ours in found.proxied)


def test_thousands_of_networks_are_planned():
    subnets = list(ip_network("10.0.0.0/8").subnets(new_prefix=20))
    others = ip_network("11.0.0.0/8").subnets(new_prefix=20)
    found = plan(
        cluster=subnets[::2], also_proxy=subnets[1::2], never_proxy=(), keep_out=(),
        existing=[Route(network, "wg0") for network in others],
        device="ts0",
    )  # fmt: skip
    assert found.proxied == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("pool", "length", "existing", "wanted", "expected"),
    [
        ("198.18.0.0/15", 30, "", "", "198.18.0.0/30"),
        ("198.18.0.0/15", 30, "198.18.0.0/30=ts1", "", "198.18.0.4/30"),
        ("198.18.0.0/15", 30, "198.18.0.0/16=wg0", "", "198.19.0.0/30"),
        ("198.18.0.0/15", 30, "198.18.0.5/32=wg0 198.18.0.0/30=ts1", "", "198.18.0.8/30"),
        ("198.18.0.0/15", 30, "", "198.18.0.0/24", "198.18.1.0/30"),
        (
            "198.18.0.0/15",
            30,
            "0.0.0.0/0=eth0 128.0.0.0/1=tun0",
            "0.0.0.0/0",
            "198.18.0.0/30",
        ),
        ("198.18.0.0/30", 32, "198.18.0.0/31=a 198.18.0.2/32=b", "", "198.18.0.3/32"),
        ("fd74::/48", 126, "fd74::/64=wg0 198.18.0.0/30=ts1", "", "fd74:0:0:1::/126"),
    ],
)
def test_free_subnet_gives_the_first_that_overlaps_nothing(
    pool, length, existing, wanted, expected
):
    found = free_subnet(ip_network(pool), length, routes(existing), networks(wanted))
    assert found == ip_network(expected)


def test_free_subnet_says_which_setting_to_change_when_all_is_taken():
    existing = routes("198.18.0.0/30=a 198.18.0.4/30=b")
    with pytest.raises(HostError, match=r"198\.18\.0\.0/29") as caught:
        free_subnet(ip_network("198.18.0.0/29"), 30, existing, [])
    assert "routing.device_subnet" in caught.value.hint
