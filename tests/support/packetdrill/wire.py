"""Packets of a script to octets and back: what is relative there is absolute here."""

import random
import struct
from dataclasses import dataclass

from tests.support.packetdrill.notation import (
    FLAGS,
    ICMP_CODES,
    ICMP_TYPES,
    Icmp,
    Option,
    Packet,
    Tcp,
    Udp,
)
from tunstack._fastpath import reference
from tunstack.wire import ip
from tunstack.wire import key as flow_key

TCP, UDP = 6, 17
ICMP = {4: 1, 6: 58}

_TCP = struct.Struct("!HHIIHHHH")
_UDP = struct.Struct("!HHHH")
_ICMP = struct.Struct("!BBHI")
_MASK = 0xFFFFFFFF

_TEXT = random.Random(793).randbytes(65_521)


def text(at: int, length: int) -> bytes:
    """Give octets of a stream, of either direction, from its octet ``at`` on."""
    at %= len(_TEXT)
    return (_TEXT * (2 + length // len(_TEXT)))[at : at + length]


@dataclass(frozen=True)
class Arrived:
    """A packet of the stack, in the numbers of the script."""

    packet: Packet
    faults: tuple[str, ...] = ()
    """What is wrong with it whatever the script says."""


class Wire:
    """The wire between the peer and the stack.

    Args:
        key: flow key of the peer's packets, whatever its protocol says.
    """

    def __init__(self, key: bytes) -> None:
        self.version = flow_key.version(key)
        self._peer, self._target = key[1:17], key[17:33]
        self._ports = flow_key.ports(key)
        self._ours = 0
        """What to add to our sequence numbers in the script."""
        self._value: int | None = None
        """The same for our TS val."""
        self._begins: int | None = None
        """First sequence number of the peer's stream."""
        self._asked: int | None = None
        """The same that the latest SYN says."""
        self._answered: int | None = None
        """The same of the SYN that our number above answered."""

    def pack(self, packet: Packet) -> bytes:
        """Give a packet of the peer."""
        match packet:
            case Tcp():
                return self._pack_tcp(packet)
            case Udp():
                payload = text(0, packet.length)
                header = _UDP.pack(*self._ports, 8 + packet.length, 0)
                return self._packet(UDP, header + payload, 6)
            case Icmp():
                return self._pack_icmp(packet)

    def _pack_tcp(self, packet: Tcp) -> bytes:
        if "S" in packet.flags and packet.ack is None:
            self._asked = (packet.seq + 1) & _MASK
            if self._begins is None:
                self._begins = self._asked
        begins = packet.seq if self._begins is None else self._begins
        text_at = packet.seq + ("S" in packet.flags)
        acknowledged = 0 if packet.ack is None else packet.ack + self._ours
        options = b"".join(map(self._pack_option, packet.options or ()))
        options += bytes(-len(options) % 4)
        size = 20 + len(options)
        bits = sum(FLAGS[flag] for flag in packet.flags if flag != "-")
        header = _TCP.pack(
            *self._ports,
            packet.seq,
            acknowledged & _MASK,
            size // 4 << 12 | bits,
            65_535 if packet.window is None else packet.window,
            0,
            packet.urgent,
        )
        payload = text((text_at - begins) & _MASK, packet.length)
        return self._packet(TCP, header + options + payload, 16)

    def _pack_option(self, option: Option) -> bytes:
        match option:
            case ("eol",):
                return b"\0"
            case ("nop",):
                return b"\1"
            case ("mss", octets):
                return struct.pack("!BBH", 2, 4, octets)
            case ("wscale", shift):
                return bytes((3, 3, shift))
            case ("sackOK",):
                return b"\4\2"
            case ("sack", blocks):
                edges = [edge + self._ours & _MASK for block in blocks for edge in block]
                return struct.pack(f"!BB{len(edges)}I", 5, 2 + 4 * len(edges), *edges)
            case ("TS", value, echo):
                if self._value is not None:
                    echo = echo + self._value & _MASK
                return struct.pack("!BBII", 8, 10, value, echo)
            case ("hex", octets):
                return bytes.fromhex(octets)
        raise AssertionError(option)

    def _pack_icmp(self, packet: Icmp) -> bytes:
        kind = ICMP_TYPES[self.version][packet.type]
        code = 0
        if packet.code is not None:
            code = ICMP_CODES[self.version, packet.type].index(packet.code)
        quoted = b""
        if isinstance(packet.quoted, tuple):
            seq, length = packet.quoted
            source, target = self._ports
            header = _TCP.pack(target, source, seq + self._ours & _MASK, 0, 0x5010, 0, 0, 0)
            size = len(header) + length
            quoted = ip.header(TCP, self._target, self._peer, size) + header
        message = _ICMP.pack(kind, code, 0, packet.mtu or 0) + quoted
        return self._packet(ICMP[self.version], message, 2)

    def _packet(self, protocol: int, message: bytes, checksum_at: int) -> bytes:
        partial = 0
        if protocol != ICMP[4]:
            partial = ip.pseudo_sum(protocol, self._peer, self._target, len(message))
        total = (0xFFFF - reference.sum16(message, partial)).to_bytes(2, "big")
        message = message[:checksum_at] + total + message[checksum_at + 2 :]
        return ip.header(protocol, self._peer, self._target, len(message)) + message

    def unpack(self, octets: bytes, expected: Packet | None) -> Arrived:
        """Read a packet of the stack.

        Args:
            octets: from its IP header on.
            expected: what the script has for it; its SYN-ACK says what our numbers are.
        """
        protocol, source, destination, message = _network(octets)
        arrived: Arrived
        if protocol == TCP:
            arrived = self._unpack_tcp(message, expected)
        elif protocol == UDP:
            arrived = self._unpack_udp(message)
        else:
            arrived = self._unpack_icmp(message)
        faults = arrived.faults
        if (source, destination) != (self._target, self._peer):
            faults += ("its addresses are not those of the flow",)
        partial = 0
        if protocol != ICMP[4]:
            partial = ip.pseudo_sum(protocol, source, destination, len(message))
        if reference.sum16(message, partial) != 0xFFFF:
            faults += ("its checksum is wrong",)
        return Arrived(arrived.packet, faults)

    def _unpack_udp(self, message: bytes) -> Arrived:
        source, target, length, _ = _UDP.unpack_from(message)
        payload = message[_UDP.size :]
        faults = self._check_ports(source, target)
        if payload != text(0, len(payload)):
            faults += ("its text is not ours",)
        return Arrived(Udp(length=length - _UDP.size), faults)

    def _check_ports(self, source: int, target: int) -> tuple[str, ...]:
        agree = (target, source) == self._ports
        return () if agree else ("its ports are not those of the flow",)

    def _unpack_tcp(self, message: bytes, expected: Packet | None) -> Arrived:
        source, target, seq, ack, bits, window, _, urgent = _TCP.unpack_from(message)
        text_at = (bits >> 12) * 4
        if bits & FLAGS["S"] and isinstance(expected, Tcp) and self._is_new_life():
            self._ours = seq - expected.seq
        options = _options(message[_TCP.size : text_at])
        if self._value is None:
            for actual in options:
                if actual[0] == "TS":
                    self._value = actual[1] - _value_of(expected)
        payload = message[text_at:]
        packet = Tcp(
            flags="".join(flag for flag, bit in FLAGS.items() if bits & bit) or "-",
            seq=seq - self._ours & _MASK,
            length=len(payload),
            ack=ack if bits & FLAGS["."] else None,
            window=window,
            urgent=urgent,
            options=tuple(map(self._relative, options)),
        )
        faults = self._check_ports(source, target)
        if payload != text(packet.seq - 1 & _MASK, len(payload)):
            faults += ("its text is not that of the stream",)
        if not bits & FLAGS["."] and ack:
            faults += (f"it acknowledges {ack} without the flag",)
        return Arrived(packet, faults)

    def _is_new_life(self) -> bool:
        """Whether this SYN-ACK answers another SYN than the one before."""
        if self._answered == self._asked:
            return False
        self._answered = self._begins = self._asked
        return True

    def _relative(self, option: Option) -> Option:
        if option[0] == "TS" and self._value is not None:
            return "TS", option[1] - self._value & _MASK, option[2]
        return option

    def _unpack_icmp(self, message: bytes) -> Arrived:
        kind, code, _, number = _ICMP.unpack_from(message)
        named = {value: name for name, value in ICMP_TYPES[self.version].items()}
        name = named.get(kind, f"type_{kind}")
        names = ICMP_CODES.get((self.version, name), ())
        protocol, head, size, quote = _quoted(message[_ICMP.size :])
        ports = struct.unpack_from("!HH", quote)
        faults = () if ports == self._ports else ("it quotes other ports",)
        # What is quoted may have been cut, but its headers say how long it was.
        quoted: tuple[int, int] | Udp
        if protocol == UDP:
            quoted = Udp(length=_UDP.unpack_from(quote)[2] - _UDP.size)
        else:
            _, _, seq, _, bits, *_ = _TCP.unpack_from(quote)
            quoted = seq, size - head - (bits >> 12) * 4
        packet = Icmp(
            type=name,
            code=names[code] if code < len(names) else f"code_{code}" if code else None,
            mtu=number if name == "packet_too_big" else None,
            quoted=quoted,
        )
        return Arrived(packet, faults)


def _network(octets: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Give protocol, source, destination and what follows, of a packet without options."""
    if octets[0] == 0x45:
        assert reference.sum16(octets[:20], 0) == 0xFFFF, "a header checksum is wrong"
        assert int.from_bytes(octets[2:4], "big") == len(octets), "a length is wrong"
        source, destination = octets[12:16], octets[16:20]
        mapped = flow_key.MAPPED
        return octets[9], mapped + source, mapped + destination, octets[20:]
    assert octets[0] >> 4 == 6, "neither IPv4 nor IPv6"
    assert int.from_bytes(octets[4:6], "big") == len(octets) - 40, "a length is wrong"
    return octets[6], octets[8:24], octets[24:40], octets[40:]


def _quoted(octets: bytes) -> tuple[int, int, int, bytes]:
    """Give protocol, octets of the header and of all, and what follows the header."""
    if octets[0] >> 4 == 4:
        return octets[9], 20, int.from_bytes(octets[2:4], "big"), octets[20:]
    return octets[6], 40, 40 + int.from_bytes(octets[4:6], "big"), octets[40:]


def _value_of(expected: Packet | None) -> int:
    for option in expected.options or () if isinstance(expected, Tcp) else ():
        if option[0] == "TS":
            return int(option[1])
    return 0


def _options(data: bytes) -> list[Option]:
    options: list[Option] = []
    at = 0
    while at < len(data):
        kind = data[at]
        length = 1 if kind < 2 else data[at + 1] if at + 1 < len(data) else 0
        value = data[at + 2 : at + length]
        match kind, length:
            case 0, _:
                options.append(("eol",))
            case 1, _:
                options.append(("nop",))
            case 2, 4:
                options.append(("mss", int.from_bytes(value, "big")))
            case 3, 3:
                options.append(("wscale", value[0]))
            case 4, 2:
                options.append(("sackOK",))
            case 5, _ if length in (10, 18, 26, 34):
                options.append(("sack", tuple(struct.iter_unpack("!II", value))))
            case 8, 10:
                options.append(("TS", *struct.unpack("!II", value)))
            case _:
                options.append(("hex", data[at : at + max(length, 1)].hex()))
                at = at + length if length > 1 else len(data)
                continue
        at += length
    return options
