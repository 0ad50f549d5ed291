"""Messages to and from the kernel: a header, a structure, attributes (netlink(7)).

A library that knows all of them takes longer to load than all else that happens before a
session works, and we need few.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# linux/netlink.h
REQUEST, ACK, DUMP = 0x001, 0x004, 0x300
EXCLUSIVE, CREATE, APPEND = 0x200, 0x400, 0x800
DUMP_INTERRUPTED = 0x010
ERROR, DONE = 2, 3

NESTED = 0x8000
"""Of an attribute's type, when the value is attributes: ``NLA_F_NESTED``."""

_TYPE = 0x3FFF  # NLA_TYPE_MASK

_HEADER = struct.Struct("=IHHII")
"""``nlmsghdr``: length, type, flags, sequence number, port."""

_ATTRIBUTE = struct.Struct("=HH")
"""``nlattr``: length, type."""

_NUMBER = struct.Struct("=i")

Attributes = Iterable[tuple[int, bytes]]
"""Types, and values as the kernel has them."""


class Message(NamedTuple):
    """What the kernel says."""

    kind: int
    flags: int
    number: int
    """Of the request that it answers."""
    body: bytes

    def check(self) -> None:
        """See whether it tells of an error; for :data:`ERROR` and :data:`DONE` only.

        Raises:
            OSError: it does.
        """
        (error,) = _NUMBER.unpack_from(self.body)
        if error:
            raise OSError(-error, os.strerror(-error))


def message(kind: int, flags: int, body: bytes, number: int = 0) -> bytes:
    """Make a message; :data:`REQUEST` is added to its flags."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, flags | REQUEST, number, 0) + body


def messages(octets: bytes) -> Iterator[Message]:
    """Take apart what one call of recv(2) gave."""
    at = 0
    while at < len(octets):
        length, kind, flags, number, _ = _HEADER.unpack_from(octets, at)
        yield Message(kind, flags, number, octets[at + _HEADER.size : at + length])
        at += _aligned(length)


def pack(attributes: Attributes) -> bytes:
    """Make the octets of attributes."""
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind)
        + value.ljust(_aligned(len(value)), b"\0")
        for kind, value in attributes
    )


def unpack(octets: bytes) -> dict[int, bytes]:
    """Read attributes; of several of a type the last one counts."""
    attributes = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        attributes[kind & _TYPE] = octets[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return attributes


def _aligned(length: int) -> int:
    """Round up to where the next one starts (``NLMSG_ALIGNTO``, ``NLA_ALIGNTO``)."""
    return length + 3 & ~3
