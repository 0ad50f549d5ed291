"""Links, addresses and routes of Linux by netlink (rtnetlink(7))."""

import socket
from collections.abc import Iterable
from ipaddress import ip_interface, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tunstack.config import Network
from tunstack.errors import HostError
from tunstack.host.routes import Route

_MAIN, _DEFAULT_TABLE = 254, 253  # linux/rtnetlink.h: RT_TABLE_MAIN, RT_TABLE_DEFAULT
_UNICAST = 1  # RTN_UNICAST
_MODE_NONE = 1  # IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h

_DEFAULT: dict[int, str] = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}


def read_routes() -> list[Route]:
    """Read this host's routes, of both IP versions. Needs no privilege."""
    with IPRoute() as netlink:
        names = {
            link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()
        }
        found = []
        for family in _DEFAULT:
            for message in netlink.get_routes(family=family, table=_MAIN):
                if message["type"] == _UNICAST:
                    interface = names.get(_interface(message), "nowhere")
                    found.append(Route(_network(message, family), interface))
        return found


def _interface(message: Any) -> int | None:
    """Give the index of the interface, for a multipath route that of the first hop."""
    hops = message.get_attr("RTA_MULTIPATH")
    index: int | None = hops[0]["oif"] if hops else message.get_attr("RTA_OIF")
    return index


def _network(message: Any, family: int) -> Network:
    destination = message.get_attr("RTA_DST")
    if destination is None:
        return ip_network(_DEFAULT[family])
    return ip_network(f"{destination}/{message['dst_len']}")


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
    with IPRoute() as netlink:
        try:
            index = _index(netlink, device)
            netlink.link("set", index=index, mtu=mtu, txqlen=txqueuelen)
            _no_link_local(netlink, index)
            netlink.link("set", index=index, state="up")
            for text in addresses:
                address = ip_interface(text)
                flags = {"flags": _NODAD} if address.version == 6 else {}
                try:
                    netlink.addr(
                        "add",
                        index=index,
                        address=str(address.ip),
                        prefixlen=address.network.prefixlen,
                        **flags,
                    )
                except NetlinkError:
                    if address.version == 4:
                        raise
        except NetlinkError as exc:
            raise HostError(f"{device} cannot be set up: {exc.args[-1]}") from exc


def _no_link_local(netlink: IPRoute, index: int) -> None:
    attributes = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _MODE_NONE]]}
    spec = {"attrs": [["AF_INET6", attributes]]}
    try:
        netlink.link("set", index=index, IFLA_AF_SPEC=spec)
    except NetlinkError:
        return  # IPv6 is switched off


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
    with IPRoute() as netlink:
        index = _index(netlink, device)
        own = {
            ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            for message in netlink.get_addr(index=index)
        }
        keep = {address.network for address in own}
        source = {
            address.version: str(address.ip) for address in own if not address.is_link_local
        }
        for table, wanted in ((_MAIN, networks), (_DEFAULT_TABLE, last_resort)):
            present = {
                _network(message, family)
                for family in _DEFAULT
                for message in netlink.get_routes(family=family, table=table, oif=index)
            } - keep
            usable = {network for network in wanted if network.version in source}
            for network in sorted(usable - present, key=str):
                prefsrc = {"prefsrc": source[4]} if network.version == 4 else {}
                _change(netlink, "add", network, device, index, table, **prefsrc)
            for network in present - usable:
                _change(netlink, "del", network, device, index, table)


def _change(
    netlink: IPRoute,
    command: str,
    network: Network,
    device: str,
    index: int,
    table: int,
    **more: str,
) -> None:
    try:
        netlink.route(command, dst=str(network), oif=index, table=table, **more)
    except NetlinkError as exc:
        what = "cannot be routed" if command == "add" else "stays routed"
        raise HostError(f"{network} {what} to {device}: {exc.args[-1]}") from exc


def _index(netlink: IPRoute, device: str) -> int:
    found: list[int] = list(netlink.link_lookup(ifname=device))
    if not found:
        raise HostError(f"there is no device {device}")
    return found[0]
