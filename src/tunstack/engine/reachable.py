"""Does this computer reach the cluster without us: by a VPN, or from inside of it?

The manager names addresses of its own, of a pod and of a service, and what is answered
there. Whoever gets that answer beside the tunnel needs no route to those networks, and
would lose a better one.
"""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address

from tunstack.config import Network
from tunstack.engine.link import Cluster

MOST = 8
"""Probes that a manager may ask for."""

_LONGEST = 4096
"""Octets of an answer."""


async def reachable(cluster: Cluster, timeout: float) -> tuple[Network, ...]:
    """Give the cluster's subnets that need no route.

    Args:
        cluster: what the manager says of it.
        timeout: seconds (``timeouts.reachable``).
    """
    probes = cluster.probes[:MOST]
    answers = await asyncio.gather(
        *(_answers(*probe, cluster.identity, timeout) for probe in probes)
    )
    hosts = [host for (host, _), yes in zip(probes, answers, strict=True) if yes]
    return tuple(_holding(cluster.subnets, hosts))


def _holding(subnets: Iterable[Network], hosts: list[str]) -> Iterable[Network]:
    addresses = [ip_address(host) for host in hosts]
    return (net for net in subnets if any(address in net for address in addresses))


async def _answers(host: str, port: int, identity: str, timeout: float) -> bool:
    """Whether the manager answers there, and not somebody else at the same address."""
    writer = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, limit=_LONGEST)
            writer.write(f"GET /identity HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            answer = await reader.read(_LONGEST)
            while more := await reader.read(_LONGEST):
                answer += more
                if len(answer) > _LONGEST:
                    return False
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
    return bool(identity) and answer.endswith(b"\r\n\r\n" + identity.encode())
