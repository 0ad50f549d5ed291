"""Fragments at the limits of what memory, and IP itself, can hold."""

import struct

import pytest

from tests.support.host import Host, octets
from tunstack._fastpath import reference
from tunstack.stack import reassembly
from tunstack.stack.events import What
from tunstack.wire import ip

SOURCE, TARGET = "198.18.0.1", "10.96.0.1"
SOURCE6, TARGET6 = "fd00::1", "fd96::1"
UDP, FRAGMENT = 17, 44


def fragment4(
    ident: int, offset: int, text: bytes, *, more: bool, options: bytes = b""
) -> bytes:
    """Build a fragment of a UDP datagram."""
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBxx4s4s",
        0x40 | length // 4,
        0,
        length + len(text),
        ident,
        more << 13 | offset >> 3,
        64,
        UDP,
        octets(SOURCE)[12:],
        octets(TARGET)[12:],
    )
    total = 0xFFFF - reference.sum16(head + options, 0)
    return head[:10] + total.to_bytes(2) + head[12:] + options + text


def extension(ident: int, offset: int, protocol: int, *, more: bool) -> bytes:
    """Build an IPv6 fragment header."""
    return struct.pack("!BxHI", protocol, offset | more, ident)


def packet6(protocol: int, text: bytes) -> bytes:
    return ip.header(protocol, octets(SOURCE6), octets(TARGET6), len(text)) + text


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_packet_that_becomes_whole_at_the_bound_is_delivered(host):
    """It is the oldest, and the one that would have to go."""
    first = struct.pack("!HHHH", 5000, 53, 16, 0)
    host.feed([fragment4(0, 8, bytes(8), more=False)])
    held = 8
    ident = 1
    while held < reassembly.MAX_OCTETS:
        size = min(65_488, reassembly.MAX_OCTETS - held)
        host.feed([fragment4(ident, 8, bytes(size), more=True)])
        held += size
        ident += 1
    host.feed([fragment4(0, 0, first, more=True)])
    assert host.kinds() == [What.DATAGRAM]


def test_options_do_not_make_a_whole_packet_longer_than_ip_can_say(host):
    """The header of the first fragment is the one that counts."""
    most = 65_535 - 20
    host.feed([fragment4(1, 40_000, bytes(most - 40_000), more=False)])
    host.feed([fragment4(1, 8, bytes(40_000 - 8), more=True)])
    host.feed([fragment4(1, 0, bytes(8), more=True, options=bytes([1] * 40))])
    assert host.kinds() == []
    assert host.stack.drops["bad-fragment"] > 0


def test_fragments_inside_fragments_do_not_nest_without_end():
    host = Host(family=6)
    depth = 600
    content = bytes(16)
    for level in range(depth):
        inner = FRAGMENT if level else UDP
        behind = len(content) + 8 * (depth - 1 - level)
        last = extension(level, behind, inner, more=False) + bytes(8)
        host.feed([packet6(FRAGMENT, last)])
        content = extension(level, 0, inner, more=True) + content
    host.feed([packet6(FRAGMENT, content)])
    assert host.kinds() == []
    assert sum(host.stack.drops.values()) > 0
