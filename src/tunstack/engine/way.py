"""Ways to a manager: each stream of a session asks for a new connection.

:class:`Direct` is an address; :mod:`.kubernetes` has the way through an API server.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from tunstack.errors import TunnelError
from tunstack.rpc.channel import Endpoint, Pair, Unix

Address = IPv4Address | IPv6Address


class Way(Protocol):
    """How to get to a manager."""

    elsewhere: bool
    """There may be another manager when one is about to go."""

    sessions: int
    """How many sessions share the load."""

    async def open(self, last: str | None) -> Endpoint | Unix | Pair:
        """Give what the transport is to connect to, for one stream.

        Args:
            last: the ``peer`` of the stream before, whose session is to go on.

        Raises:
            TunstackError: there is none now.
        """

    async def addresses(self) -> frozenset[Address]:
        """Look up what the way itself needs: the tunnel must not swallow it.

        Raises:
            TunstackError: a name has no address.
        """

    async def close(self) -> None:
        """Let go of everything."""


class Direct:
    """A manager at an address. Nobody stands in for it."""

    elsewhere = False
    sessions = 1

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def open(self, last: str | None) -> Endpoint:
        """Give the address."""
        return self._endpoint

    async def addresses(self) -> frozenset[Address]:
        """Look the manager's host up."""
        try:
            return await look_up(self._endpoint.host, self._endpoint.port)
        except OSError as exc:
            raise TunnelError(
                f"the manager's host {self._endpoint.host} has no address: {exc}"
            ) from exc

    async def close(self) -> None:
        """Nothing is held."""


async def look_up(host: str, port: int) -> frozenset[Address]:
    """Find every address of a host.

    Raises:
        OSError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    )
    # A link-local address carries its zone behind a percent sign.
    return frozenset(ip_address(str(a[4][0]).partition("%")[0]) for a in found)
