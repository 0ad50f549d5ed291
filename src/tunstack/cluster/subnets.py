"""Which networks hold a cluster's services and pods, from what its objects say."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_address, ip_network

from tunstack.config import Network

Address = IPv4Address | IPv6Address

MOST = 32
"""Networks of each IP version. Many nodes are covered by fewer, broader ones."""

_FINEST = {4: 24, 6: 64}
"""What a lone address stands for: a node's usual share."""

_BROADEST = {4: 12, 6: 32}
"""No cover is broader, however many networks that takes."""


def cover(networks: Iterable[Network], most: int = MOST) -> tuple[Network, ...]:
    """Cover networks by no more than ``most`` of each version, and as few as that takes.

    They are merged where they are neighbours. Where there are too many, all are widened,
    one bit at a time.
    """
    found: list[Network] = []
    given = list(networks)
    for version in (4, 6):
        chosen = _collapse([net for net in given if net.version == version])
        while len(chosen) > most:
            finest = max(net.prefixlen for net in chosen)
            if finest <= _BROADEST[version]:
                break
            chosen = _collapse(
                [n.supernet(new_prefix=min(n.prefixlen, finest - 1)) for n in chosen]
            )
        found += chosen
    return tuple(found)


def around(addresses: Iterable[Address]) -> tuple[Network, ...]:
    """Guess at the networks of addresses that nothing else is known of."""
    nets = {ip_network((a, _FINEST[a.version]), strict=False) for a in addresses}
    return cover(nets)


def pod_networks(
    node_networks: Iterable[Network], pods: Iterable[Address]
) -> tuple[Network, ...]:
    """Say where pods are: the nodes' networks, and around pods that are in none of them.

    Not every network plugin takes addresses from what Kubernetes has given the node.
    """
    known = cover(node_networks)
    strays = [a for a in pods if not within(a, known)]
    return cover((*known, *around(strays)))


def within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds an address."""
    return any(address in net for net in networks)


def parse_networks(texts: Iterable[str]) -> list[Network]:
    """Read what an object says; what is no network is passed over."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return found


def parse_addresses(texts: Iterable[str]) -> list[Address]:
    """Read what an object says; what is no address (``None``, empty) is passed over."""
    found = []
    for text in texts:
        try:
            found.append(ip_address(text))
        except ValueError:
            continue
    return found


def _collapse(networks: list[Network]) -> list[Network]:
    return list(collapse_addresses(networks))  # type: ignore[type-var]
