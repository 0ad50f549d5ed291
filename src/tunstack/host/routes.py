"""What to route into the device: a pure decision, made before anything is touched.

One rule decides each address: the most specific network it lies in, among the cluster's
subnets, also-proxy and never-proxy, says whether it is proxied; at equal length
never-proxy wins, and an address that must stay out counts as never-proxy of full length.

What the host routes already is weighed against it. The kernel prefers the longest
match, so a broader route of the host's (a VPN's ``10.0.0.0/8``) stays in force around
ours and is only reported; one equal to or inside a network we want would be taken from
its owner or take ours from us: a conflict.

Prefix length 0 (``--also-proxy 0.0.0.0/0``) is no such claim. It means whatever nobody
else routes: the host's own routes are subtracted like never-proxy, so that its local
networks and the way to its default gateway stay what they were.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
    summarize_address_range,
)
from typing import NamedTuple

from tunstack.config import Network
from tunstack.errors import HostError

Address = IPv4Address | IPv6Address

_HOST_ONLY: tuple[Network, ...] = (
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/4"),
    IPv6Network("::1/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)
"""Loopback, link-local, multicast: never beyond the link, so never a conflict."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route that this host has."""

    network: Network

    interface: str
    """The device it leads to."""

    metric: int = 0
    """The kernel's priority, lower wins; 0 when it has none."""

    gateway: Address | None = None
    """The next hop; ``None`` when the network is on the link."""


class RouteConflict(HostError):
    """A network that is to be proxied already leads somewhere else.

    Raised while planning, before any route is touched.
    """

    def __init__(self, wanted: Network, existing: Network, interface: str) -> None:
        super().__init__(
            f"{wanted} overlaps {existing}, which goes to {interface}; "
            "no route was touched",
            hint=f"add {existing} to routing.never_proxy, or disconnect {interface}",
        )
        self.wanted = wanted
        self.existing = existing
        self.interface = interface


class Overlap(NamedTuple):
    """Two networks share addresses and the more specific one has them."""

    wanted: Network
    existing: Route


@dataclass(frozen=True, slots=True)
class Plan:
    """What to route into the device."""

    proxied: tuple[Network, ...] = ()
    """The fewest networks that hold exactly the proxied addresses, IPv4 first, in
    order of address. None is a default route: that would compete with the host's."""

    overlaps: tuple[Overlap, ...] = ()
    """For the user to know; nothing is wrong with them."""


class _Span(NamedTuple):
    """Addresses ``first`` to ``last``, which ``network`` decides on."""

    first: int
    last: int
    network: Network
    proxied: bool


def plan(
    *,
    cluster: Iterable[Network],
    also_proxy: Iterable[Network],
    never_proxy: Iterable[Network],
    keep_out: Iterable[Address],
    existing: Iterable[Route],
    device: str,
) -> Plan:
    """Choose the routes; see the top of this module for the rule.

    Args:
        cluster: the subnets of the cluster.
        also_proxy: networks beside them.
        never_proxy: networks that stay out.
        keep_out: addresses that the tunnel itself needs: the manager's, the API
            server's, an HTTP proxy's.
        existing: what this host routes.
        device: the name of our device, whose own routes do not count as existing.

    Raises:
        RouteConflict: an existing route is equal to or inside one of the cluster's
            subnets or also-proxy, and some of its addresses would be proxied.
    """
    rules: dict[Network, bool] = dict.fromkeys((*cluster, *also_proxy), True)
    rules |= dict.fromkeys((*never_proxy, *map(ip_network, keep_out)), False)
    theirs = [
        route
        for route in existing
        if route.interface != device and not _is_host_only(route.network)
    ]
    proxied: list[Network] = []
    overlaps: dict[Overlap, None] = {}
    for version in (4, 6):
        decided = {net: rule for net, rule in rules.items() if net.version == version}
        routes = [route for route in theirs if route.network.version == version]
        spans = _decide(decided)
        for route in routes:
            overlaps |= dict.fromkeys(_overlaps(spans, route))
        if any(rule and net.prefixlen == 0 for net, rule in decided.items()):
            others = (*_HOST_ONLY, *(route.network for route in routes))
            unclaimed: dict[Network, bool] = dict.fromkeys(
                (net for net in others if net.version == version and net.prefixlen),
                False,
            )
            spans = _decide(unclaimed | decided)
        proxied += _cover(spans)
    return Plan(tuple(proxied), tuple(overlaps))


def free_subnet(
    pool: Network,
    prefix_length: int,
    existing: Iterable[Route],
    wanted: Iterable[Network],
) -> Network:
    """Give the first subnet of ``pool`` that overlaps nothing.

    Args:
        pool: where to look.
        prefix_length: of the subnet.
        existing: what this host routes.
        wanted: what will be routed.

    A network that holds the whole pool cannot be avoided and does not count: the subnet
    is more specific.

    Raises:
        HostError: all of it is taken.
    """
    size = 1 << (pool.max_prefixlen - prefix_length)
    at, end = _ends(pool)
    taken = sorted(
        _ends(network)
        for network in (*(route.network for route in existing), *wanted)
        if network.version == pool.version and not _contains(network, pool)
    )
    for first, last in taken:
        if first < at + size and at <= last:
            at = (last // size + 1) * size
    if at <= end:
        return ip_network((at, prefix_length))
    raise HostError(
        f"every /{prefix_length} of {pool} is in use on this host",
        hint="set routing.device_subnet to a network that is free",
    )


def is_plausible(network: Network) -> bool:
    """Whether a network can be one of a cluster's: a manager says what it likes.

    No default route and nothing nearly as broad, and nothing that is this host's own.
    """
    broadest = 8 if network.version == 4 else 16
    return network.prefixlen >= broadest and not any(
        network.overlaps(other) for other in _HOST_ONLY if other.version == network.version
    )


def _is_host_only(network: Network) -> bool:
    return any(
        network.version == other.version and _contains(other, network)
        for other in _HOST_ONLY
    )


def _contains(outer: Network, inner: Network) -> bool:
    first, last = _ends(outer)
    return first <= _ends(inner)[0] and _ends(inner)[1] <= last


def _ends(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _decide(rules: dict[Network, bool]) -> list[_Span]:
    """Cut the addresses of one IP version into spans that one network decides on.

    Networks nest or are disjoint, so one pass in order of address, a broader one first,
    with the networks that are open on a stack, meets each span once.
    """
    spans: list[_Span] = []
    open_networks: list[tuple[int, Network]] = []
    at = 0

    def advance(to: int) -> None:
        """Give what lies between ``at`` and ``to`` to the innermost open network."""
        nonlocal at
        if open_networks and at < to:
            network = open_networks[-1][1]
            spans.append(_Span(at, to - 1, network, rules[network]))
        at = max(at, to)

    def close(before: int) -> None:
        while open_networks and open_networks[-1][0] < before:
            advance(open_networks[-1][0] + 1)
            open_networks.pop()

    for network in sorted(rules, key=lambda net: (_ends(net)[0], net.prefixlen)):
        first, last = _ends(network)
        close(first)
        advance(first)
        open_networks.append((last, network))
    close(1 << 129)
    return spans


def _overlaps(spans: list[_Span], route: Route) -> list[Overlap]:
    """Weigh one existing route against what is to be proxied.

    Raises:
        RouteConflict: it would be taken from its owner, or take ours from us.
    """
    first, last = _ends(route.network)
    found = []
    start = bisect_left(spans, first, key=lambda span: span.last)
    for span in spans[start:]:
        if span.first > last:
            break
        if not span.proxied:
            continue
        if span.network.prefixlen and _contains(span.network, route.network):
            raise RouteConflict(span.network, route.network, route.interface)
        if route.network.prefixlen or not span.network.prefixlen:
            # Every network is inside a default route: no news.
            found.append(Overlap(span.network, route))
    return found


def _cover(spans: list[_Span]) -> list[Network]:
    """Give the fewest networks that hold exactly the proxied spans."""
    networks: list[Network] = []
    run: tuple[int, int] | None = None
    bits = spans[0].network.max_prefixlen if spans else 0
    for span in spans:
        if not span.proxied:
            continue
        if run is not None and run[1] + 1 == span.first:
            run = run[0], span.last
            continue
        if run is not None:
            networks += _summarize(*run, bits)
        run = span.first, span.last
    if run is not None:
        networks += _summarize(*run, bits)
    return networks


def _summarize(first: int, last: int, bits: int) -> list[Network]:
    """Give the networks that make up a range; halves where that is everything."""
    kind = IPv4Address if bits == 32 else IPv6Address
    half = 1 << (bits - 1)
    if first == 0 and last == 2 * half - 1:
        return [*_summarize(0, half - 1, bits), *_summarize(half, last, bits)]
    return list(summarize_address_range(kind(first), kind(last)))
