"""What is wanted of the host's resolver: said by the engine, checked for the helper."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from tunstack.errors import HostError
from tunstack.host.routes import Address

MODES = ("resolved", "overriding", "files", "none")

MOST_DOMAINS = 1024
"""Domains and search domains together: what fits a message to the helper.

systemd-resolved takes fewer, see :data:`tunstack.host.resolved.MOST_DOMAINS`.
"""

MOST_NAME_SERVERS = 32

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverState:
    """All that is wanted of the host's resolver.

    Raises:
        HostError: a mode, address, domain, port or number of them that cannot be. Half
            of this is checked for root's sake: :meth:`from_request` is the engine's word.
    """

    mode: str
    """One of :data:`MODES`."""

    servers: tuple[Address, ...] = ()
    """Where our server answers port 53: in the device, at most one an IP version."""

    domains: tuple[str, ...] = ()
    """Names below these are ours. As ``cluster.local``, without ``~``."""

    search: tuple[str, ...] = ()
    """What a name without dots is completed with."""

    name_servers: tuple[Address, ...] = ()
    """The host's own, which ``overriding`` takes the questions of."""

    port: int | None = None
    """Where our server answers on 127.0.0.1 and ::1, for name servers on loopback."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise HostError(f"there is no resolver mode {self.mode!r}")
        if len({server.version for server in self.servers}) != len(self.servers):
            raise HostError("our DNS server has at most one address an IP version")
        if self.mode != "none" and not self.servers:
            raise HostError(f"resolver mode {self.mode} needs an address of our server")
        if len(self.name_servers) > MOST_NAME_SERVERS:
            raise HostError(f"{len(self.name_servers)} name servers are too many")
        for address in (*self.servers, *self.name_servers):
            # A scope may be any text, and this goes into files and rules.
            scoped = isinstance(address, IPv6Address) and address.scope_id is not None
            if (
                address.is_multicast
                or address.is_unspecified
                or (scoped and (address in self.servers or not address.is_link_local))
            ):
                raise HostError(f"{address} is no address of a name server")
        names = (*self.domains, *self.search)
        if len(names) > MOST_DOMAINS:
            raise HostError(f"{len(names)} domains are more than {MOST_DOMAINS}")
        for name in names:
            if len(name) > 253 or not _NAME.fullmatch(name):
                raise HostError(f"{name!r} is no domain (RFC 1035, section 2.3.1, and _)")
        if self.port is not None and not 0 < self.port < 1 << 16:
            raise HostError(f"there is no port {self.port}")

    def as_request(self) -> dict[str, Any]:
        """Give the arguments of the helper's verb ``set_resolver``."""
        return {
            "mode": self.mode,
            "servers": [str(server) for server in self.servers],
            "domains": list(self.domains),
            "search": list(self.search),
            "name_servers": [str(server) for server in self.name_servers],
            "port": self.port,
        }

    @classmethod
    def from_request(
        cls,
        mode: str,
        servers: list[str],
        domains: list[str],
        search: list[str],
        name_servers: list[str],
        port: int | None,
    ) -> "ResolverState":
        """Take the arguments of the helper's verb; the reverse of :meth:`as_request`.

        Raises:
            TypeError, ValueError: an argument is of the wrong kind.
            HostError: as the class.
        """
        for given in (servers, domains, search, name_servers):
            if not isinstance(given, list) or not all(isinstance(x, str) for x in given):
                raise TypeError(f"want a list of text, not {given!r}")
        if not isinstance(port, int | None) or isinstance(port, bool):
            raise TypeError(f"want a port, not {port!r}")
        return cls(
            mode=mode,
            servers=tuple(map(ip_address, servers)),
            domains=tuple(domains),
            search=tuple(search),
            name_servers=tuple(map(ip_address, name_servers)),
            port=port,
        )
