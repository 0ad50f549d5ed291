"""Requests about links, addresses and routes (rtnetlink(7))."""

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tunstack.host import netlink

# linux/rtnetlink.h
NEW_LINK = 16
NEW_ADDRESS, GET_ADDRESS = 20, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
_NEW = {NEW_ADDRESS, NEW_ROUTE}

LINK = struct.Struct("=BxHiII")
"""``ifinfomsg``: family, type, index, flags, which flags to change."""

ADDRESS = struct.Struct("=BBBBI")
"""``ifaddrmsg``: family, length of the prefix, flags, scope, index."""

ROUTE = struct.Struct("=BBBBBBBBI")
"""``rtmsg``: family, destination's and source's length, TOS, table, protocol, scope, type,
flags."""

_TIMEOUT = 3.0
"""Seconds for an answer, which the kernel has ready when a request is sent."""

_ATTEMPTS = 10
"""At a list that changes while it is read."""


class Item(NamedTuple):
    """One thing of a list."""

    head: tuple[int, ...]
    """The fields of its structure."""

    attributes: dict[int, bytes]


class RouteSocket:
    """A conversation with the kernel about this network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE
        )
        self._socket.settimeout(_TIMEOUT)

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def change(self, kind: int, head: bytes, attributes: netlink.Attributes) -> None:
        """Have something changed, made or removed. What is made must not exist.

        Args:
            kind: of the message, as :data:`NEW_ROUTE`.
            head: its structure, packed.
            attributes: what follows.

        Raises:
            OSError: the kernel refused.
        """
        flags = netlink.CREATE | netlink.EXCLUSIVE if kind in _NEW else 0
        for _ in self._ask(kind, flags | netlink.ACK, head + netlink.pack(attributes)):
            pass

    def dump(self, kind: int, structure: struct.Struct, family: int) -> list[Item]:
        """Read all there is of a kind.

        Args:
            kind: of the request, as :data:`GET_ROUTE`.
            structure: of each answer.
            family: AF_INET or AF_INET6.

        Raises:
            OSError: the kernel refused, or it changed all the time.
        """
        head = bytes([family]).ljust(structure.size, b"\0")
        for _ in range(_ATTEMPTS):
            answers = list(self._ask(kind, netlink.DUMP, head))
            if not any(answer.flags & netlink.DUMP_INTERRUPTED for answer in answers):
                return [
                    Item(
                        structure.unpack_from(answer.body),
                        netlink.unpack(answer.body[structure.size :]),
                    )
                    for answer in answers
                ]
        raise OSError("it does not stop to change")

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[netlink.Message]:
        """Send a request; gives each answer before the last one."""
        self._socket.send(netlink.message(kind, flags, body))
        while True:
            for answer in netlink.messages(self._socket.recv(1 << 16)):
                if answer.kind in (netlink.ERROR, netlink.DONE):
                    answer.check()
                    return
                yield answer
