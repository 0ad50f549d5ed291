"""Sockets whose questions are not overridden: those of our own server.

They have :data:`~tunstack.host.rewrites.MARK`, and a port that the kernel gives to nobody
who does not ask for it. For conntrack remembers each conversation by its addresses and
ports for a while, with what was done to it: a program whose question came from the port of
a socket of ours would have it sent on as if it were ours, and the other way round.
"""

import errno
import random
import socket
from pathlib import Path

from tunstack.errors import HostError
from tunstack.host.rewrites import MARK

_LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The first and the last that the kernel gives (Documentation/networking/ip-sysctl)."""

ENOUGH = 2048
"""Ports that make a guess at one hopeless, together with the identifier (RFC 5452)."""

_TRIES = 32

_chance = random.SystemRandom()


def open_marked(family: int, kind: int) -> socket.socket:
    """Open one, which does not block.

    Args:
        family: AF_INET or AF_INET6.
        kind: SOCK_DGRAM or SOCK_STREAM.

    Raises:
        HostError: the kernel gives none.
    """
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        if kind == socket.SOCK_STREAM:
            # Ports of conversations that are over are of use (RFC 6191).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(sock)
    except OSError as exc:
        sock.close()
        raise HostError(f"no socket for our server: {exc.strerror}") from exc
    return sock


def _bind(sock: socket.socket) -> None:
    ports = free_ports(_LOCAL_PORTS.read_text())
    if not ports:
        return  # the kernel chooses
    for tries in range(1, _TRIES + 1):
        try:
            sock.bind(("", _chance.choice(ports)))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or tries == _TRIES:
                raise
        else:
            return


def free_ports(local: str) -> range:
    """Choose ports beside those that the kernel gives; none where too few are left.

    Above them first, where services seldom are.

    Args:
        local: the contents of ``ip_local_port_range``.
    """
    first, last = map(int, local.split())
    for ports in (range(last + 1, 65_536), range(1024, first)):
        if len(ports) >= ENOUGH:
            return ports
    return range(0)
