"""Few networks that hold all addresses, and not many others."""

from ipaddress import collapse_addresses, ip_address, ip_network
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunstack.cluster.subnets import (
    _BROADEST,
    MOST,
    around,
    cover,
    parse_addresses,
    parse_networks,
    pod_networks,
    within,
)


def networks_of(*texts):
    return tuple(map(ip_network, texts))


def addresses_of(*texts):
    return tuple(map(ip_address, texts))


# Networks that are neighbours now and then, and overlap now and then.
_V4 = st.builds(
    lambda number, length: ip_network(((10 << 24) + number * 4096, length), strict=False),
    st.integers(0, 4095),
    st.integers(8, 32),
)
_V6 = st.builds(
    lambda number, length: ip_network(((0xFD << 120) + (number << 60), length), False),
    st.integers(0, 4095),
    st.integers(24, 128),
)
NETWORKS = st.lists(st.one_of(_V4, _V6), max_size=40)
ADDRESSES = st.lists(
    st.one_of(st.ip_addresses(network="10.0.0.0/12"), st.ip_addresses(network="fd00::/32")),
    max_size=40,
)
examples = settings(max_examples=40, deadline=None)


def holds(found, network):
    return any(
        network.version == each.version and network.subnet_of(each) for each in found
    )


def size(found):
    return sum(each.num_addresses for each in found)


# Covering


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["10.244.0.0/24"], ["10.244.0.0/24"]),
        (["10.244.0.0/24", "10.244.0.0/24"], ["10.244.0.0/24"]),
        (["10.244.0.0/24", "10.244.1.0/24"], ["10.244.0.0/23"]),
        (["10.244.1.0/24", "10.244.2.0/24"], ["10.244.1.0/24", "10.244.2.0/24"]),
        (["10.244.0.0/16", "10.244.7.0/24"], ["10.244.0.0/16"]),
        (["fd00::/64", "10.96.0.0/12"], ["10.96.0.0/12", "fd00::/64"]),
    ],
)
def test_few_networks_are_merged_where_they_meet(given, expected):
    assert cover(networks_of(*given)) == networks_of(*expected)


@pytest.mark.parametrize(
    ("given", "most", "expected"),
    [
        (["10.244.1.0/24", "10.244.2.0/24"], 1, ["10.244.0.0/22"]),
        (
            ["10.244.0.0/24", "10.244.3.0/24", "10.250.0.0/24"],
            2,
            ["10.244.0.0/22", "10.250.0.0/23"],
        ),
        (["10.1.0.0/16", "10.2.0.0/24"], 1, ["10.0.0.0/14"]),
        (["10.0.0.0/12", "10.64.0.0/12"], 1, ["10.0.0.0/12", "10.64.0.0/12"]),
        (["10.0.0.0/8", "192.168.0.0/24"], 1, ["10.0.0.0/8", "192.160.0.0/12"]),
        (["fd00::/64", "fd01::/64"], 1, ["fd00::/32", "fd01::/32"]),
        (["fd00:0:1::/64", "fd00:0:2::/64"], 1, ["fd00::/46"]),
    ],
)
def test_too_many_networks_become_broader_and_fewer(given, most, expected):
    assert cover(networks_of(*given), most) == networks_of(*expected)


def test_a_cluster_of_many_nodes_becomes_one_network():
    nodes = [ip_network(f"10.244.{number}.0/24") for number in range(256)]
    assert cover(nodes) == networks_of("10.244.0.0/16")
    assert len(cover(nodes[::2])) <= MOST


@given(NETWORKS, st.integers(1, 5))
@examples
def test_a_cover_holds_every_network_and_no_two_overlap(given, most):
    found = cover(given, most)
    assert all(holds(found, network) for network in given)
    for one, other in combinations(found, 2):
        assert not one.overlaps(other)


@given(NETWORKS, st.integers(1, 5))
@examples
def test_a_cover_is_small_or_as_broad_as_it_may_be(given, most):
    for version in (4, 6):
        found = [net for net in cover(given, most) if net.version == version]
        assert len(found) <= most or all(
            net.prefixlen <= _BROADEST[version] for net in found
        )


@given(NETWORKS, st.integers(1, 5))
@examples
def test_nothing_is_widened_beyond_the_broadest(given, most):
    for version in (4, 6):
        mine = [net for net in given if net.version == version]
        found = [net for net in cover(mine, most) if net.version == version]
        if len(list(collapse_addresses(mine))) <= most:
            assert size(found) == size(collapse_addresses(mine))
        widest = {
            net if net.prefixlen <= _BROADEST[version]
            else net.supernet(new_prefix=_BROADEST[version])
            for net in mine
        }  # fmt: skip
        assert size(found) <= size(collapse_addresses(widest))


@given(NETWORKS, st.integers(1, 5))
@examples
def test_the_order_does_not_matter_and_a_cover_covers_itself(given, most):
    found = cover(given, most)
    assert cover(reversed(given), most) == found
    assert cover(found, most) == found


# Around addresses


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["10.96.0.10"], ["10.96.0.0/24"]),
        (["10.96.0.10", "10.96.0.1"], ["10.96.0.0/24"]),
        (["10.96.0.10", "10.96.1.1"], ["10.96.0.0/23"]),
        (["fd00::a"], ["fd00::/64"]),
    ],
)
def test_a_lone_address_stands_for_its_neighbours(given, expected):
    assert around(addresses_of(*given)) == networks_of(*expected)


@given(ADDRESSES)
@examples
def test_around_addresses_is_every_one_of_them(given):
    found = around(given)
    assert all(within(address, found) for address in given)


# Pods


@pytest.mark.parametrize(
    ("nodes", "pods", "expected"),
    [
        ([], [], []),
        (["10.244.0.0/24"], ["10.244.0.7"], ["10.244.0.0/24"]),
        (["10.244.0.0/24"], ["10.50.3.7"], ["10.50.3.0/24", "10.244.0.0/24"]),
        (["10.244.0.0/26"], ["10.244.0.7"], ["10.244.0.0/26"]),
        (["10.244.0.0/26"], ["10.244.0.100"], ["10.244.0.0/24"]),
        ([], ["10.50.3.7", "fd00::7"], ["10.50.3.0/24", "fd00::/64"]),
    ],
)
def test_pods_are_in_their_nodes_networks_or_stray(nodes, pods, expected):
    found = pod_networks(networks_of(*nodes), addresses_of(*pods))
    assert found == networks_of(*expected)


@given(NETWORKS, ADDRESSES)
@examples
def test_every_node_and_every_pod_is_somewhere(nodes, pods):
    found = pod_networks(nodes, pods)
    assert all(holds(found, network) for network in nodes)
    assert all(within(address, found) for address in pods)


@given(NETWORKS, ADDRESSES)
@examples
def test_pods_within_their_nodes_networks_change_nothing(nodes, pods):
    inside = [address for address in pods if within(address, nodes)]
    assert pod_networks(nodes, inside) == cover(nodes)


# What objects say


def test_what_is_no_network_is_passed_over():
    texts = ["10.96.0.0/12", "", "None", "10.0.0.1/8", "fd00::/64", "10.0.0.0/33", "x/y"]
    found = parse_networks(texts)
    assert found == list(networks_of("10.96.0.0/12", "10.0.0.0/8", "fd00::/64"))


def test_what_is_no_address_is_passed_over():
    texts = ["10.96.0.1", "", "None", "10.96.0.0/12", "fd00::1", "256.0.0.1"]
    assert parse_addresses(texts) == list(addresses_of("10.96.0.1", "fd00::1"))


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("10.0.0.1", [], False),
        ("10.0.0.1", ["10.0.0.0/31"], True),
        ("10.0.0.1", ["10.0.0.2/31"], False),
        ("10.0.0.1", ["fd00::/8", "10.0.0.0/8"], True),
        ("fd00::1", ["0.0.0.0/0"], False),
    ],
)
def test_an_address_is_within_or_not(address, networks, expected):
    assert within(ip_address(address), networks_of(*networks)) is expected
