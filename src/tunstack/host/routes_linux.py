"""Links, addresses and routes of Linux."""

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_interface

from tunstack.config import Network
from tunstack.errors import HostError
from tunstack.host import netlink, rtnetlink
from tunstack.host.routes import Route
from tunstack.host.rtnetlink import Item, RouteSocket

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

# linux/rtnetlink.h
_MAIN, _DEFAULT_TABLE = 254, 253
_UNICAST, _STATIC, _UNIVERSE = 1, 4, 0  # type, protocol, scope
_ANY, _NOWHERE = 0, 255
_DESTINATION, _DEVICE, _PREFERRED_SOURCE, _MULTIPATH, _TABLE = 1, 4, 7, 9, 15
_NEXT_HOP = struct.Struct("=HBBi")
"""``rtnexthop``: length, flags, hops, index of the interface."""

_UP = 0x1  # IFF_UP, linux/if.h
_MTU, _TX_QUEUE, _AF_SPEC = 4, 13, 26  # linux/if_link.h
_ADDR_GEN_MODE, _MODE_NONE = 8, b"\1"

# linux/if_addr.h
_ADDRESS, _LOCAL = 1, 2
_NODAD = 0x02

_NUMBER = struct.Struct("=I")


def read_routes() -> list[Route]:
    """Read this host's routes, of both IP versions. Needs no privilege.

    Raises:
        HostError: they cannot be read.
    """
    with _asking("the routes cannot be read") as kernel:
        names = dict(socket.if_nameindex())
        return [
            Route(_network(item), names.get(_interface(item), "nowhere"))
            for item in _routes(kernel, _MAIN)
            if item.head[7] == _UNICAST
        ]


@contextmanager
def _asking(complaint: str) -> Iterator[RouteSocket]:
    """Talk to the kernel; what it refuses is a HostError that begins with a complaint."""
    try:
        with closing(RouteSocket()) as kernel:
            yield kernel
    except OSError as exc:
        raise HostError(f"{complaint}: {exc.strerror or exc}") from exc


def _routes(kernel: RouteSocket, table: int) -> list[Item]:
    return [
        item
        for family in _FAMILY.values()
        for item in kernel.dump(rtnetlink.GET_ROUTE, rtnetlink.ROUTE, family)
        if _number(item, _TABLE) == table
    ]


def _number(item: Item, attribute: int) -> int:
    """Give the number that an attribute is; 0 when it is not there."""
    value = item.attributes.get(attribute)
    return 0 if value is None else int(_NUMBER.unpack(value)[0])


def _interface(item: Item) -> int:
    """Give the index of the interface, for a multipath route that of the first hop."""
    hops = item.attributes.get(_MULTIPATH)
    return _NEXT_HOP.unpack_from(hops)[3] if hops else _number(item, _DEVICE)


def _network(item: Item) -> Network:
    family, length = item.head[:2]
    destination = item.attributes.get(_DESTINATION)
    if family == socket.AF_INET:
        return IPv4Network((destination or bytes(4), length))
    return IPv6Network((destination or bytes(16), length))


def configure(device: str, *, mtu: int, txqueuelen: int, addresses: list[str]) -> None:
    """Set a device up.

    Args:
        device: its name.
        mtu: octets.
        txqueuelen: packets.
        addresses: ``ADDRESS/LENGTH`` each.

    No link-local address is made, as nobody is there to be asked for routers: the
    device carries only what is routed into it. Where IPv6 is switched off, IPv6
    addresses are left out.

    Raises:
        HostError: the kernel refused.
    """
    index = _index(device)
    limits = [(_MTU, _NUMBER.pack(mtu)), (_TX_QUEUE, _NUMBER.pack(txqueuelen))]
    with _asking(f"{device} cannot be set up") as kernel:
        _set_link(kernel, index, 0, limits)
        _no_link_local(kernel, index)
        _set_link(kernel, index, _UP, [])
        for text in addresses:
            _add_address(kernel, index, text)


def _set_link(
    kernel: RouteSocket, index: int, flags: int, attributes: netlink.Attributes
) -> None:
    head = rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)
    kernel.change(rtnetlink.NEW_LINK, head, attributes)


def _no_link_local(kernel: RouteSocket, index: int) -> None:
    mode = netlink.pack([(_ADDR_GEN_MODE, _MODE_NONE)])
    family = netlink.pack([(socket.AF_INET6 | netlink.NESTED, mode)])
    try:
        _set_link(kernel, index, 0, [(_AF_SPEC | netlink.NESTED, family)])
    except OSError:
        return  # IPv6 is switched off


def _add_address(kernel: RouteSocket, index: int, text: str) -> None:
    address = ip_interface(text)
    # Nobody else is on the link who could have it, and it is of use at once.
    flags = _NODAD if address.version == 6 else 0
    family, length = _FAMILY[address.version], address.network.prefixlen
    head = rtnetlink.ADDRESS.pack(family, length, flags, 0, index)
    attributes = [(_LOCAL, address.packed), (_ADDRESS, address.packed)]
    try:
        kernel.change(rtnetlink.NEW_ADDRESS, head, attributes)
    except OSError:
        if address.version == 4:
            raise


def set_routes(
    device: str, networks: Iterable[Network], last_resort: Iterable[Network] = ()
) -> None:
    """Route exactly these networks into a device, and no others. Idempotent.

    The networks of the device's own addresses stay: the kernel made those routes. An IP
    version that the device has no address of is switched off here, and left out.

    Args:
        device: its name.
        networks: whose packets shall go there.
        last_resort: those that shall when no other route leads to them: in the table
            that the kernel looks at last, which it does for IPv4 only (ip-rule(8)).

    Raises:
        HostError: the kernel refused one; those before it are set.
    """
    index = _index(device)
    with _asking(f"the routes to {device} cannot be read") as kernel:
        own = [
            ip_interface((item.attributes[_ADDRESS], item.head[1]))
            for family in _FAMILY.values()
            for item in kernel.dump(rtnetlink.GET_ADDRESS, rtnetlink.ADDRESS, family)
            if item.head[4] == index
        ]
        keep = {address.network for address in own}
        source = {
            address.version: address.packed for address in own if not address.is_link_local
        }
        for table, wanted in ((_MAIN, networks), (_DEFAULT_TABLE, last_resort)):
            present = {
                _network(item)
                for item in _routes(kernel, table)
                if _number(item, _DEVICE) == index
            } - keep
            usable = {network for network in wanted if network.version in source}
            for network in sorted(usable - present, key=str):
                prefer = [(_PREFERRED_SOURCE, source[4])] if network.version == 4 else []
                _add_route(kernel, table, network, device, index, prefer)
            for network in present - usable:
                _delete_route(kernel, table, network, device, index)


def _add_route(
    kernel: RouteSocket,
    table: int,
    network: Network,
    device: str,
    index: int,
    more: list[tuple[int, bytes]],
) -> None:
    head = _route(network, table, _STATIC, _UNIVERSE, _UNICAST)
    try:
        kernel.change(rtnetlink.NEW_ROUTE, head, _to(network, index) + more)
    except OSError as exc:
        raise HostError(f"{network} cannot be routed to {device}: {exc.strerror}") from exc


def _delete_route(
    kernel: RouteSocket, table: int, network: Network, device: str, index: int
) -> None:
    head = _route(network, table, _ANY, _NOWHERE, _ANY)  # whoever made it
    try:
        kernel.change(rtnetlink.DELETE_ROUTE, head, _to(network, index))
    except OSError as exc:
        raise HostError(f"{network} stays routed to {device}: {exc.strerror}") from exc


def _route(network: Network, table: int, protocol: int, scope: int, kind: int) -> bytes:
    family, length = _FAMILY[network.version], network.prefixlen
    return rtnetlink.ROUTE.pack(family, length, 0, 0, table, protocol, scope, kind, 0)


def _to(network: Network, index: int) -> list[tuple[int, bytes]]:
    destination = network.network_address.packed
    return [(_DESTINATION, destination), (_DEVICE, _NUMBER.pack(index))]


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as exc:
        raise HostError(f"there is no device {device}") from exc
