"""Packets that no sane host sends, and how they get into a lab's device.

The isic family (``isic``, ``tcpsic``, ``udpsic``, ``icmpsic``) in one generator, raw TCP
connections whose other end is a test, and a sender that does not outrun the engine.
"""

import errno
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import islice
from random import Random

from tests.support.host import make_key, make_segment, octets
from tests.support.lab import Lab, Site
from tunstack import _fastpath
from tunstack.wire import ip
from tunstack.wire import key as flow_key
from tunstack.wire import tcp as wire

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP = 6, 17

NOBODY = "192.0.2.0/24"
"""Sources of attacks: answers to them vanish in the client."""

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_BURST = 512
_OUTGOING = 4  # linux/if_packet.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class Injector:
    """Gives packets to a lab's engine, as if the client had routed them there."""

    def __init__(self, lab: Lab) -> None:
        self._device = lab.status()["device"]["name"]
        with lab.client:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            # Shows the namespace that it was opened in.
            self._counters = open("/proc/thread-self/net/dev")  # noqa: SIM115

    def __enter__(self) -> "Injector":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._counters.close()

    def _queued(self) -> tuple[int, int]:
        """Packets that the engine has read, and that the device had no room for."""
        self._counters.seek(0)
        for line in self._counters:
            name, _, numbers = line.partition(":")
            if name.strip() == self._device:
                columns = numbers.split()
                return int(columns[9]), int(columns[11])
        raise AssertionError(f"{self._device} is gone")

    def send(self, packets: Iterable[bytes]) -> int:
        """Send packets no faster than the engine reads; gives how many it has read."""
        before, _ = self._queued()
        packets = iter(packets)
        while burst := list(islice(packets, _BURST)):
            start = sum(self._queued())
            for packet in burst:
                self._send(packet)
            deadline = time.monotonic() + 20
            while sum(self._queued()) < start + len(burst):
                assert time.monotonic() < deadline, "the engine reads nothing any more"
                time.sleep(0.0005)
        return self._queued()[0] - before

    def _send(self, packet: bytes) -> None:
        ethertype = _ETHERTYPE.get(packet[0] >> 4, _ETHERTYPE[4])
        while True:
            try:
                self._socket.sendto(packet, (self._device, ethertype))
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                time.sleep(0.0005)
            else:
                return


def datagram(key: bytes, payload: bytes) -> bytes:
    """Build a datagram of the flow ``key``."""
    total = _fastpath.sum16(payload, 0)
    return (
        bytes(_fastpath.frame_udp(flow_key.reverse(key), len(payload), total, 0, 0))
        + payload
    )


def keys(protocol: int, network: str, port: int) -> Iterator[bytes]:
    """Name flows from :data:`NOBODY` to each address of a network, without end."""
    sources = ip_network(NOBODY)
    number = 0
    while True:
        for target in ip_network(network):
            number += 1
            source = str(sources[1 + number % 250])
            sport = 1024 + number // 250 % 60_000
            yield make_key(protocol, source, sport, str(target), port)


@dataclass
class Raw:
    """An open connection; numbers are those of the next octet either way."""

    key: bytes
    seq: int
    ack: int


def open_raw(
    lab: Lab,
    injector: Injector,
    site: Site,
    port: int,
    count: int,
    *,
    window: int = 65_535,
    mss: int = 1460,
) -> list[Raw]:
    """Open connections from :data:`NOBODY` to a port of the server."""
    waiting = dict.fromkeys(islice(keys(TCP, f"{site.server}/32", port), count))
    options = wire.syn_options(mss, 0, True)
    connections: list[Raw] = []
    with lab.client:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        sniffer.bind((lab.status()["device"]["name"], _ETHERTYPE[4]))
        injector.send(
            make_segment(key, 1000, 0, SYN, window=window, options=options)
            for key in waiting
        )
        while waiting:
            assert select.select([sniffer], [], [], 20)[0], f"{len(waiting)} never opened"
            packet, address = sniffer.recvfrom(65_536)
            if address[2] == _OUTGOING or packet[9] != TCP or packet[33] != SYN | ACK:
                continue
            key = make_key(
                TCP,
                str(ip_address(packet[16:20])), int.from_bytes(packet[22:24], "big"),
                str(ip_address(packet[12:16])), int.from_bytes(packet[20:22], "big"),
            )  # fmt: skip
            if key in waiting:
                del waiting[key]
                irs = int.from_bytes(packet[24:28], "big")
                connections.append(Raw(key, 1001, irs + 1))
    injector.send(
        make_segment(raw.key, raw.seq, raw.ack, ACK, window=window) for raw in connections
    )
    return connections


def garbage(seed: int, targets: Sequence[str], victims: Sequence[bytes]) -> Iterator[bytes]:
    """Make random packets without end.

    Args:
        seed: of the randomness.
        targets: addresses that they go to.
        victims: keys of open flows; a tenth of the TCP segments claims to be theirs.
    """
    chance = Random(seed)
    sources = {
        4: [octets(str(ip_network(NOBODY)[number])) for number in range(1, 250)],
        6: [octets(f"2001:db8::{number}") for number in range(1, 250)],
    }
    flows = [
        (kind, source + octets(target))
        for target in targets
        for version in (ip_address(target).version,)
        for kind in (TCP, UDP, 1 if version == 4 else 58, None)
        for source in sources[version]
    ]
    while True:
        kind, addresses = chance.choice(flows)
        port = chance.choice(_PORTS) if chance.random() < 0.5 else chance.randbytes(2)
        key = bytes((kind or 0,)) + addresses + chance.randbytes(2) + port
        if kind == TCP and victims and chance.random() < 0.1:
            key = chance.choice(victims)
        yield _spoiled(chance, _random_packet(chance, kind, key))


_PORTS = tuple(port.to_bytes(2, "big") for port in (7, 53, 8080))


def _random_packet(chance: Random, kind: int | None, key: bytes) -> bytes:
    text = chance.randbytes(int(1400 * chance.random() ** 4))  # most are short
    if kind == TCP:
        options = chance.randbytes(4 * max(0, chance.randrange(-10, 11)))
        flags = chance.choice((ACK, PSH | ACK, RST, FIN | ACK, chance.randrange(256)))
        seq, ack = chance.getrandbits(32), chance.getrandbits(32)
        window = chance.randrange(65_536)
        return make_segment(key, seq, ack, flags, text, window=window, options=options)
    if kind == UDP:
        return datagram(key, text)
    if kind is not None:
        message = bytes((chance.randrange(256), chance.randrange(16), 0, 0))
        message += chance.randbytes(4) + text
        partial = 0
        if kind == 58:
            partial = ip.pseudo_sum(kind, key[1:17], key[17:33], len(message))
        total = 0xFFFF - _fastpath.sum16(message, partial)
        message = message[:2] + total.to_bytes(2, "big") + message[4:]
    else:
        kind, message = chance.randrange(256), text
    return ip.header(kind, key[1:17], key[17:33], len(message)) + message


def _spoiled(chance: Random, packet: bytes) -> bytes:
    """Break one thing in every second packet."""
    at = chance.randrange(10)
    spoiled = bytearray(packet)
    if at == 0:  # any octet, the version but rarely
        spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
    elif at == 1:  # an octet of the headers
        spoiled[chance.randrange(min(60, len(spoiled)))] ^= 1 << chance.randrange(8)
    elif at == 2:  # cut short, but not to nothing
        del spoiled[chance.randrange(1, len(spoiled)) :]
    elif at == 3 and packet[0] >> 4 == 4:  # a fragment, or a header of another length
        spoiled[6:8] = chance.randbytes(2)
        mend(spoiled)
    elif at == 4 and packet[0] >> 4 == 4:
        spoiled[0] = 0x40 | chance.randrange(16)
        mend(spoiled)
    elif at in (3, 4):  # extension headers
        spoiled[40:40] = bytes((spoiled[6], 0)) + chance.randbytes(6)
        spoiled[6] = chance.choice((0, 43, 44, 51, 60, 135))
        spoiled[4:6] = struct.pack("!H", len(spoiled) - 40)
    return bytes(spoiled)


def mend(packet: bytearray) -> bytes:
    """Make the checksum of an IPv4 header right; gives the packet."""
    end = min((packet[0] & 15) * 4, len(packet))
    packet[10:12] = b"\0\0"
    packet[10:12] = (0xFFFF - _fastpath.sum16(bytes(packet[:end]), 0)).to_bytes(2, "big")
    return bytes(packet)
