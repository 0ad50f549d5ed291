"""Names of the cluster for programs that use the library without a device."""

import asyncio
import ipaddress
import socket

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from tunstack.engine.link import Cluster
from tunstack.engine.links import Links
from tunstack.errors import TunnelError

_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)


def candidates(name: str, cluster: Cluster) -> list[str]:
    """Give the absolute names that ``name`` may mean, the likeliest first.

    ``echo.default`` and ``echo.default.svc`` are completed to services of the cluster;
    a name that ends in a dot is absolute already. Without a list of namespaces any
    second label may be one.
    """
    if name.endswith("."):
        return [name]
    rest, _, last = name.rpartition(".")
    absolute = f"{name}."
    if not rest or not cluster.domain:
        return [absolute]
    if last == "svc":
        return [f"{name}.{cluster.domain}.", absolute]
    if last in cluster.namespaces or (not cluster.namespaces and "." not in rest):
        return [f"{name}.svc.{cluster.domain}.", absolute]
    return [absolute]


async def resolve(links: Links, name: str, timeout: float) -> list[str]:
    """Ask the cluster's resolver for the addresses of a name, IPv4 first.

    Args:
        links: the sessions.
        name: see :func:`candidates`. An address stands for itself.
        timeout: seconds for each question.

    Raises:
        socket.gaierror: ``EAI_NONAME`` when there is no such name or it has no address,
            ``EAI_AGAIN`` when there is no answer.
    """
    try:
        return [str(ipaddress.ip_address(name))]
    except ValueError:
        pass
    for candidate in candidates(name, links.cluster):
        answers = await asyncio.gather(
            *(_ask(links, candidate, kind, timeout) for kind in _TYPES),
            return_exceptions=True,
        )
        addresses: list[str] = []
        failure: BaseException | None = None
        for answer in answers:
            if isinstance(answer, BaseException):
                failure = answer
            else:
                addresses += answer
        if addresses:
            return addresses
        if failure is not None:
            raise failure
    raise socket.gaierror(socket.EAI_NONAME, f"{name}: no such name in the cluster")


async def _ask(
    links: Links, name: str, kind: dns.rdatatype.RdataType, timeout: float
) -> list[str]:
    """Ask one question; gives the addresses, none if there is no such name."""
    try:
        query = dns.message.make_query(name, kind)
    except dns.exception.DNSException as exc:
        raise socket.gaierror(socket.EAI_NONAME, f"{name!r} is not a name") from exc
    query.flags |= dns.flags.RD
    try:
        reply = dns.message.from_wire((await links.ask(query.to_wire(), timeout)).message)
    except (TunnelError, dns.exception.DNSException) as exc:
        raise socket.gaierror(socket.EAI_AGAIN, f"{name}: {exc}") from exc
    if not query.is_response(reply):
        raise socket.gaierror(
            socket.EAI_AGAIN, f"{name}: the answer is to another question"
        )
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        text = f"{name}: the resolver says {dns.rcode.to_text(reply.rcode())}"
        raise socket.gaierror(socket.EAI_AGAIN, text)
    return [str(rdata) for rrset in reply.answer if rrset.rdtype == kind for rdata in rrset]
