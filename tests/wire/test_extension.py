"""What is wrong with extension headers; scapy makes them."""

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Pad1,
    PadN,
)
from scapy.packet import Raw

from tunstack.wire import extension
from tunstack.wire.extension import ERRONEOUS_FIELD, UNKNOWN_HEADER, UNKNOWN_OPTION

IP6 = IPv6(src="fd00::1", dst="fd96::1")


def option(kind: int) -> HBHOptUnknown:
    return HBHOptUnknown(otype=kind, optdata=b"\1\2")


PROBLEMS = {
    "an unknown protocol": (IP6.copy() / Raw(bytes(8)), 200, (UNKNOWN_HEADER, 6)),
    "no next header": (IP6.copy() / Raw(bytes(8)), 59, None),
    "a known protocol": (IP6 / UDP(), None, None),
    "an unknown protocol behind options": (
        IP6 / IPv6ExtHdrDestOpt(nh=200, options=[PadN(optdata=bytes(4))]) / Raw(bytes(8)),
        None,
        (UNKNOWN_HEADER, 40),
    ),
    "hop by hop not first": (
        IP6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / UDP(),
        None,
        (UNKNOWN_HEADER, 40),
    ),
    "an option to be skipped": (
        IP6 / IPv6ExtHdrHopByHop(options=[option(0x1E)]) / UDP(),
        None,
        None,
    ),
    "an option that asks for silence": (
        IP6 / IPv6ExtHdrHopByHop(options=[option(0x5E)]) / UDP(),
        None,
        None,
    ),
    "an option that asks for an answer": (
        IP6 / IPv6ExtHdrHopByHop(options=[Pad1(), option(0x9E)]) / UDP(),
        None,
        (UNKNOWN_OPTION, 43),
    ),
    "one that asks unless it is multicast": (
        IP6 / IPv6ExtHdrDestOpt(options=[option(0xDE)]) / UDP(),
        None,
        (UNKNOWN_OPTION, 42),
    ),
    "a route that is not at its end": (
        IP6 / IPv6ExtHdrRouting(type=7, segleft=1, addresses=["fd00::9"]) / UDP(),
        None,
        (ERRONEOUS_FIELD, 42),
    ),
    "a route at its end": (
        IP6 / IPv6ExtHdrRouting(type=7, segleft=0, addresses=["fd00::9"]) / UDP(),
        None,
        None,
    ),
    "a fragment of an odd length": (
        IP6 / IPv6ExtHdrFragment(m=1, nh=17) / Raw(bytes(13)),
        None,
        (ERRONEOUS_FIELD, 4),
    ),
    "a fragment beyond what a packet can be": (
        IP6 / IPv6ExtHdrFragment(offset=8191, m=1, nh=17) / Raw(bytes(16)),
        None,
        (ERRONEOUS_FIELD, 42),
    ),
    "a fragment without fault": (
        IP6 / IPv6ExtHdrFragment(m=1, nh=17) / Raw(bytes(16)),
        None,
        None,
    ),
    "an atomic fragment": (
        IP6 / IPv6ExtHdrFragment(nh=200) / Raw(bytes(16)),
        None,
        (UNKNOWN_HEADER, 40),
    ),
    "half a header": (IP6 / Raw(bytes(4)), 60, None),
    "half an option": (IP6 / Raw(b"\x11\0\x1e\0\x1e\0\x1e\xff"), 60, None),
    "an option that is too long": (IP6 / Raw(b"\x11\0\x1e\xff" + bytes(4)), 60, None),
    "an option in the last octet": (IP6 / Raw(b"\x11\0\x1e\3xxx\x1e"), 60, None),
}


@pytest.mark.parametrize(("packet", "following", "want"), PROBLEMS.values(), ids=PROBLEMS)
def test_the_field_at_fault_is_named(packet, following, want):
    octets = bytearray(bytes(packet))
    if following is not None:
        octets[6] = following
    assert extension.problem(bytes(octets)) == want


@pytest.mark.parametrize(
    ("packet", "want"),
    [
        (IP6 / UDP(), (17, 40)),
        (IP6 / IPv6ExtHdrDestOpt() / ICMPv6DestUnreach() / Raw(bytes(8)), (58, 48)),
        (IP6 / IPv6ExtHdrFragment() / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(), (58, 56)),
    ],
)
def test_what_lies_behind_them_is_found(packet, want):
    assert extension.upper(bytes(packet)) == want


def test_half_a_header_ends_the_search():
    assert extension.upper(bytes(IP6 / IPv6ExtHdrDestOpt() / UDP())[:44]) == (60, 40)
