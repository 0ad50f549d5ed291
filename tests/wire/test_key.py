"""Flow keys."""

from ipaddress import ip_address

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tunstack import _fastpath
from tunstack.wire import key


def key_of(packet) -> bytes:
    octets = bytes(packet)
    (record,) = _fastpath.parse_batch(octets, len(octets), [len(octets)], 0)
    return record[11]


there = key_of(IP(src="198.18.0.1", dst="10.96.0.1") / TCP(sport=40000, dport=80))
back = key_of(IP(src="10.96.0.1", dst="198.18.0.1") / TCP(sport=80, dport=40000))
there6 = key_of(IPv6(src="fd00::1", dst="fd96::1") / TCP(sport=40000, dport=80))


def test_the_version_is_that_of_the_packets():
    assert (key.version(there), key.version(there6)) == (4, 6)


def test_the_other_direction_has_the_reverse_key():
    assert key.reverse(there) == back
    assert key.reverse(key.reverse(there6)) == there6


def test_a_key_tells_target_and_ports():
    assert key.destination(there) == key.MAPPED + bytes([10, 96, 0, 1])
    assert key.ports(there) == (40000, 80)


def test_an_address_is_what_a_key_has_of_it():
    assert key.address(ip_address("10.96.0.1")) == key.destination(there)
    assert key.address(ip_address("fd96::1")) == key.destination(there6)
