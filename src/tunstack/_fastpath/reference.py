"""The kernels in Python: what C has to compute, and what runs where C is not built.

Nothing in the octets of a packet or of a message makes these functions raise. Being
called wrongly does: :class:`ValueError`, as from the kernels.
"""

import struct
from collections.abc import Iterable, Sequence

from tunstack._fastpath.record import (
    MORE_OPTIONS,
    NO_OPTIONS,
    TIMESTAMPS,
    Record,
    Verdict,
)

NAME = "reference"

Buffer = bytes | bytearray | memoryview

_IPV4 = struct.Struct("!BxHxxHxBxx4s4s")
_IPV6 = struct.Struct("!4xHBx16s16s")
_TCP = struct.Struct("!4sIIBBH")
_UDP = struct.Struct("!4sHH")
_ICMP = struct.Struct("!BBxx2sH")
_EXTENSION = struct.Struct("!BBBB")
_FRAGMENTATION = struct.Struct("!BxHxxxx")
_VIRTIO = struct.Struct("=BBHHHH")
_FRAME = struct.Struct("!II")

_ICMP4_PROTOCOL, _TCP_PROTOCOL, _UDP_PROTOCOL, _ICMP6_PROTOCOL = 1, 6, 17, 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60

_NEEDS_CSUM, _DATA_VALID = 1, 2
_GSO_TCPV4, _GSO_TCPV6, _GSO_UDP_L4, _GSO_ECN = 1, 4, 5, 0x80
_CHECKSUM_OFFSET = {_TCP_PROTOCOL: 16, _UDP_PROTOCOL: 6}

_MAPPED = bytes(10) + b"\xff\xff"
_MAX_PACKET = 0xFFFF
_DONT_FRAGMENT = 0x4000
_HOP_LIMIT = 64

_Network = tuple[Verdict, bytes, int, int]
"""Verdict, key without ports, offset behind the IP headers, end of the packet."""

_Transport = tuple[Verdict, bytes, int, int, int, int, int, int, int, int, int]
"""Verdict, ports, seq, ack, options, payload, end, window, flags, code, tsval."""


def sum16(data: Buffer, partial: int) -> int:
    """Add ``data`` to an Internet checksum; see ``ts_sum16`` for the contract.

    One's complement addition of 16-bit words is arithmetic modulo 65535, and so is that
    of one large number, because 65536 leaves 1 (RFC 1071, section 2).
    """
    total = (int.from_bytes(data) << 8 * (len(data) & 1)) + partial
    return total and (total % 0xFFFF or 0xFFFF)


def parse_batch(
    arena: Buffer, stride: int, lengths: Sequence[int], vnet: int
) -> Iterable[Record]:
    """Validate packets and say where their parts are.

    Args:
        arena: memory of all slots.
        stride: octets from one slot to the next.
        lengths: octets used in each slot, virtio header included.
        vnet: octets of virtio header before each packet, 10 or 0.

    Returns:
        A :data:`~tunstack._fastpath.record.Record` for each slot, with offsets from the
        start of the arena.

    Raises:
        ValueError: a slot does not lie inside the arena, or ``vnet`` is neither.

    Sources: RFC 791 section 3.1, RFC 8200 section 4, RFC 6946, RFC 9293 section 3.1,
    RFC 768, RFC 8200 section 8.1, RFC 792, RFC 4443 section 2, virtio 1.2 section 5.1.6.
    """
    _check_vnet(vnet)
    view = memoryview(arena)
    records: list[Record] = []
    for slot, length in enumerate(lengths):
        start = slot * stride
        if length > stride or start + length > len(view):
            raise ValueError(f"slot {slot} of {length} octets is not inside the arena")
        records.append(_parse(view[start : start + length], start + vnet, vnet))
    return records


def _parse(slot: memoryview, ip: int, vnet: int) -> Record:
    """Parse the packet in ``slot``, whose IP header lies at ``ip`` in the arena."""
    packet = slot[vnet:]
    verdict, key, at, end = _network(packet)
    if verdict is not Verdict.DELIVER:
        return _not_delivered(verdict, key, ip, at, end)
    protocol, is_v4 = key[0], packet[0] >> 4 == 4
    icmp = _ICMP4_PROTOCOL if is_v4 else _ICMP6_PROTOCOL
    if protocol not in (_TCP_PROTOCOL, _UDP_PROTOCOL, icmp):
        return _not_delivered(Verdict.UNKNOWN_PROTOCOL, key, ip, 0, end)
    vouched, gso = False, 0
    if vnet:
        offload = _offload(slot, protocol, is_v4, at, end)
        if offload is None:
            return _not_delivered(Verdict.BAD_VIRTIO_HEADER, key, ip, 0, end)
        vouched, gso = offload
    parsed = _PARSERS[protocol](packet[:end], at, key, vouched)
    verdict, ports, seq, ack, options, payload, cut, window, flags, code, tsval = parsed
    key += ports
    if verdict is not Verdict.DELIVER:
        return _not_delivered(verdict, key, ip, 0, end)
    parts = (ip, ip + options, ip + payload, ip + cut)
    return seq, ack, *parts, window, gso, verdict, flags, code, key, tsval


def _not_delivered(verdict: Verdict, key: bytes, ip: int, at: int, end: int) -> Record:
    payload = at and ip + at
    end = end and ip + end
    return 0, 0, ip, 0, payload, end, 0, 0, verdict, 0, 0, key.ljust(37, b"\0"), 0


def _network(packet: memoryview) -> _Network:
    """Read the IP header and what extends it."""
    if not packet:
        return Verdict.TRUNCATED, b"", 0, 0
    version = packet[0] >> 4
    if version == 4:
        return _ipv4(packet)
    if version == 6:
        return _ipv6(packet)
    return Verdict.BAD_VERSION, b"", 0, 0


def _ipv4(packet: memoryview) -> _Network:
    if len(packet) < _IPV4.size:
        return Verdict.TRUNCATED, b"", 0, 0
    first, total, fragment, protocol, source, destination = _IPV4.unpack_from(packet)
    at = (first & 15) * 4
    if at < _IPV4.size:
        return Verdict.BAD_HEADER_LENGTH, b"", 0, 0
    if not at <= total <= len(packet):
        return Verdict.BAD_TOTAL_LENGTH, b"", 0, 0
    if sum16(packet[:at], 0) != 0xFFFF:
        return Verdict.BAD_CHECKSUM, b"", 0, total
    key = bytes((protocol,)) + _MAPPED + source + _MAPPED + destination
    if _is_bad_v4(source) or _is_bad_v4(destination):
        return Verdict.BAD_ADDRESS, key, 0, total
    offset, more = (fragment & 0x1FFF) * 8, fragment & 0x2000
    if offset or more:
        return _fragment(key, at, total, at + offset, bool(more))
    return Verdict.DELIVER, key, at, total


def _ipv6(packet: memoryview) -> _Network:
    if len(packet) < _IPV6.size:
        return Verdict.TRUNCATED, b"", 0, 0
    length, protocol, source, destination = _IPV6.unpack_from(packet)
    at = _IPV6.size
    end = at + length
    if end > len(packet):
        return Verdict.BAD_TOTAL_LENGTH, b"", 0, 0
    addresses = source + destination
    if _is_bad_v6(source) or _is_bad_v6(destination):
        return Verdict.BAD_ADDRESS, bytes((protocol,)) + addresses, 0, end
    while protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
        key = bytes((protocol,)) + addresses
        if end - at < 8:
            return Verdict.BAD_EXTENSION_HEADER, key, 0, end
        if protocol == _FRAGMENT:
            protocol, fragment = _FRAGMENTATION.unpack_from(packet, at)
            key = bytes((protocol,)) + addresses
            at += 8
            offset, more = fragment & 0xFFF8, fragment & 1
            if offset or more:
                # What counts is the length of the payload: RFC 8200, section 4.5.
                before = at - 8 - _IPV6.size
                return _fragment(key, at, end, before + offset, bool(more))
            continue
        following, eights, _routing_type, segments_left = _EXTENSION.unpack_from(packet, at)
        size = 8 + eights * 8
        if size > end - at:
            return Verdict.BAD_EXTENSION_HEADER, key, 0, end
        if protocol == _ROUTING:
            usable = segments_left == 0
        else:
            first = at == _IPV6.size
            usable = (first or protocol != _HOP_BY_HOP) and _skips(
                packet[at + 2 : at + size]
            )
        if not usable:
            return Verdict.BAD_EXTENSION_HEADER, key, 0, end
        protocol = following
        at += size
    return Verdict.DELIVER, bytes((protocol,)) + addresses, at, end


def _skips(options: memoryview) -> bool:
    """Whether all options may be skipped: RFC 8200, section 4.2."""
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == 0:  # Pad1
            at += 1
            continue
        if kind & 0xC0 or len(options) - at < 2:
            return False
        at += 2 + options[at + 1]
    return at == len(options)


def _fragment(key: bytes, at: int, end: int, before: int, more: bool) -> _Network:
    """Judge a fragment of which ``before`` octets of the whole packet come first."""
    length = end - at
    if length == 0 or (more and length % 8) or before + length > _MAX_PACKET:
        return Verdict.BAD_FRAGMENT, key, 0, end
    return Verdict.FRAGMENT, key, at, end


def _is_bad_v4(address: bytes) -> bool:
    """This network, loopback, multicast, limited broadcast: RFC 1122, section 3.2.1.3."""
    first = address[0]
    return first in (0, 127) or first >> 4 == 14 or address == b"\xff\xff\xff\xff"


def _is_bad_v6(address: bytes) -> bool:
    """Unspecified, loopback, IPv4-mapped, link-local, multicast: RFC 4291, section 2.4."""
    return (
        address[0] == 0xFF
        or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)
        or address[:12] == _MAPPED
        or (address[:15] == bytes(15) and address[15] <= 1)
    )


def _offload(
    slot: memoryview, protocol: int, is_v4: bool, at: int, end: int
) -> tuple[bool, int] | None:
    """Read the virtio header of a packet whose transport header lies at ``at``.

    Returns whether the transport checksum is vouched for and the size of the segments
    (0: not to be cut), or ``None`` when the header does not fit the packet.
    """
    flags, gso_type, header_length, gso_size, start, offset = _VIRTIO.unpack_from(slot)
    if flags & ~(_NEEDS_CSUM | _DATA_VALID) or header_length > end:
        return None
    if flags & _NEEDS_CSUM and (
        start != at or offset != _CHECKSUM_OFFSET.get(protocol) or start + offset + 2 > end
    ):
        return None
    kind = gso_type & ~_GSO_ECN
    if kind == 0:
        return flags != 0, 0
    if protocol == _TCP_PROTOCOL:
        fits = kind == (_GSO_TCPV4 if is_v4 else _GSO_TCPV6)
    else:
        fits = kind == _GSO_UDP_L4 and protocol == _UDP_PROTOCOL
    return (flags != 0, gso_size) if fits and gso_size else None


def _tcp(packet: memoryview, at: int, key: bytes, vouched: bool) -> _Transport:
    if len(packet) - at < 20:
        return _refuse(Verdict.BAD_TRANSPORT_HEADER)
    ports, seq, ack, offset, flags, window = _TCP.unpack_from(packet, at)
    payload = at + (offset >> 4) * 4
    if not at + 20 <= payload <= len(packet):
        return _refuse(Verdict.BAD_TRANSPORT_HEADER, ports)
    if not vouched and not _verify(packet[at:], key):
        return _refuse(Verdict.BAD_CHECKSUM, ports)
    verdict = _port_verdict(ports)
    end = len(packet)
    code, tsval = _options(packet[at + 20 : payload])
    return verdict, ports, seq, ack, at + 20, payload, end, window, flags, code, tsval


def _options(options: memoryview) -> tuple[int, int]:
    """Tell what options there are; most have but the timestamps (RFC 7323, appendix A)."""
    if not options:
        return NO_OPTIONS, 0
    if len(options) == 12 and bytes(options[:4]) == b"\1\1\x08\x0a":
        return TIMESTAMPS, int.from_bytes(options[4:8], "big")
    return MORE_OPTIONS, 0


def _udp(packet: memoryview, at: int, key: bytes, vouched: bool) -> _Transport:
    if len(packet) - at < 8:
        return _refuse(Verdict.BAD_TRANSPORT_HEADER)
    ports, length, checksum = _UDP.unpack_from(packet, at)
    end = at + length
    if length < 8 or end > len(packet):
        return _refuse(Verdict.BAD_TRANSPORT_HEADER, ports)
    # No checksum at all is for IPv4 only: RFC 8200, section 8.1.
    intact = vouched or (_verify(packet[at:end], key) if checksum else packet[0] >> 4 == 4)
    if not intact:
        return _refuse(Verdict.BAD_CHECKSUM, ports)
    return _port_verdict(ports), ports, 0, 0, at + 8, at + 8, end, 0, 0, 0, 0


def _icmp(packet: memoryview, at: int, key: bytes, vouched: bool) -> _Transport:
    if len(packet) - at < 8:
        return _refuse(Verdict.BAD_TRANSPORT_HEADER)
    kind, code, identifier, sequence = _ICMP.unpack_from(packet, at)
    if key[0] == _ICMP4_PROTOCOL:
        intact = vouched or sum16(packet[at:], 0) == 0xFFFF
        echo = kind in (0, 8)
    else:
        intact = vouched or _verify(packet[at:], key)
        echo = kind in (128, 129)
    if not intact:
        return _refuse(Verdict.BAD_CHECKSUM)
    if not echo:
        identifier, sequence = b"\0\0", 0
    ports = identifier + b"\0\0"
    end = len(packet)
    return Verdict.DELIVER, ports, sequence, 0, at, at + 8, end, 0, kind, code, 0


_PARSERS = {
    _TCP_PROTOCOL: _tcp,
    _UDP_PROTOCOL: _udp,
    _ICMP4_PROTOCOL: _icmp,
    _ICMP6_PROTOCOL: _icmp,
}


def _refuse(verdict: Verdict, ports: bytes = b"") -> _Transport:
    return verdict, ports, 0, 0, 0, 0, 0, 0, 0, 0, 0


def _port_verdict(ports: bytes) -> Verdict:
    zero = b"\0\0" in (ports[:2], ports[2:])
    return Verdict.BAD_PORT if zero else Verdict.DELIVER


def _verify(segment: Buffer, key: bytes) -> bool:
    return sum16(segment, _pseudo_header(key, len(segment))) == 0xFFFF


def _pseudo_header(key: bytes, length: int) -> int:
    """Sum of protocol, length and both addresses: RFC 9293 section 3.1, RFC 8200 8.1.

    The prefix of an IPv4-mapped address adds 0xffff, which is one's complement zero.
    """
    return sum16(key[1:33], key[0] + length)


def frame_tcp(
    key: bytes,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes,
    payload_len: int,
    payload_sum: int,
    ident: int,
    gso: int,
    vnet: int,
) -> bytes:
    """Make the headers of a segment that answers a flow.

    Args:
        key: 37 octets as parsed from the flow's packets; the answer's source is the
            key's destination. An IPv4-mapped one makes an IPv4 packet.
        seq: SEG.SEQ.
        ack: SEG.ACK.
        flags: FIN 1 SYN 2 RST 4 PSH 8 ACK 16.
        window: SEG.WND, as it goes on the wire.
        options: a multiple of 4 octets, at most 40.
        payload_len: octets that follow the headers.
        payload_sum: :func:`sum16` of the payload; ignored when ``vnet`` is 10.
        ident: IPv4 identification of a packet that routers may cut; with 0, DF is set
            (RFC 6864, section 4).
        gso: with ``vnet``: octets of payload in each segment that the kernel is to cut
            from this one, 0 when it must not.
        vnet: 10: a virtio header comes first, and the kernel completes the checksum;
            0: no virtio header.

    Raises:
        ValueError: options or payload do not fit into a packet.

    Sources: RFC 791 and RFC 9293, both section 3.1; RFC 8200 section 3.
    """
    _check_vnet(vnet)
    if len(options) % 4 or len(options) > 40:
        raise ValueError(f"{len(options)} octets of TCP options")
    size = 20 + len(options)
    offset = size // 4 << 12
    header = struct.pack("!4sIIHHI", _ports(key), seq, ack, offset | flags, window, 0)
    network, checksum = _ip_header(key, size + payload_len, ident)
    if not vnet:
        checksum = ~sum16(header + options, checksum + payload_sum) & 0xFFFF
    header = header[:16] + checksum.to_bytes(2) + header[18:]
    cut = gso if payload_len > gso else 0
    virtio = _virtio_header(key, len(network), size, cut) if vnet else b""
    return virtio + network + header + options


def frame_udp(
    key: bytes, payload_len: int, payload_sum: int, ident: int, vnet: int
) -> bytes:
    """Make the headers of a datagram that answers a flow; see :func:`frame_tcp`.

    Source: RFC 768.
    """
    _check_vnet(vnet)
    length = 8 + payload_len
    network, checksum = _ip_header(key, length, ident)
    header = _ports(key) + length.to_bytes(2)
    if not vnet:
        # A checksum of 0 would say that there is none: it goes as its other form.
        checksum = ~sum16(header, checksum + payload_sum) & 0xFFFF or 0xFFFF
    virtio = _virtio_header(key, len(network), 8, 0) if vnet else b""
    return virtio + network + header + checksum.to_bytes(2)


def _check_vnet(vnet: int) -> None:
    if vnet not in (0, _VIRTIO.size):
        raise ValueError(f"a virtio header of {vnet} octets")


def _ports(key: bytes) -> bytes:
    return key[35:37] + key[33:35]


def _is_v4(key: bytes) -> bool:
    return key[17:29] == _MAPPED


def _ip_header(key: bytes, length: int, ident: int) -> tuple[bytes, int]:
    """Make the IP header of an answer; returns it and the sum of the pseudo header."""
    source, destination = key[17:33], key[1:17]
    checksum = _pseudo_header(key, length)
    if not _is_v4(key):
        if length > 0xFFFF:
            raise ValueError(f"{length} octets do not fit into an IPv6 packet")
        first = struct.pack("!IHBB", 6 << 28, length, key[0], _HOP_LIMIT)
        return first + source + destination, checksum
    total = _IPV4.size + length
    if total > 0xFFFF:
        raise ValueError(f"{length} octets do not fit into an IPv4 packet")
    flags = 0 if ident else _DONT_FRAGMENT
    first = struct.pack("!BBHHHBB", 0x45, 0, total, ident, flags, _HOP_LIMIT, key[0])
    addresses = source[12:] + destination[12:]
    header_checksum = ~sum16(first + addresses, 0) & 0xFFFF
    return first + header_checksum.to_bytes(2) + addresses, checksum


def _virtio_header(key: bytes, network: int, transport: int, cut: int) -> bytes:
    """Make a virtio header that leaves the checksum, and cutting, to the kernel."""
    protocol = key[0]
    gso_type = 0
    if cut:
        gso_type = _GSO_TCPV4 if _is_v4(key) else _GSO_TCPV6
    return _VIRTIO.pack(
        _NEEDS_CSUM,
        gso_type,
        network + transport,
        cut,
        network,
        _CHECKSUM_OFFSET[protocol],
    )


def pack_frames(out: bytearray, offset: int, source: Buffer, spans: list[int]) -> int:
    """Write mux frames one behind the other.

    Args:
        out: where the frames go; the caller has made it long enough.
        offset: where the first one starts.
        source: memory that holds all payloads.
        spans: four numbers a frame: kind, flow, first octet of its payload in
            ``source``, octet behind its last.

    Returns:
        The offset behind the last frame.

    Raises:
        ValueError: ``out`` is too short, or a span is not inside ``source`` or longer
            than a frame can say. What was written then is undefined.

    Source: docs/protocol.md.
    """
    view = memoryview(source)
    quads = iter(spans)
    for kind, flow, start, end in zip(quads, quads, quads, quads, strict=True):
        length = end - start
        stop = offset + _FRAME.size + length
        if not 0 <= start <= end <= len(view) or length >> 24 or kind >> 8:
            raise ValueError(f"a frame of {start} to {end} out of {len(view)} octets")
        if stop > len(out):
            raise ValueError(f"no room for {stop} octets in {len(out)}")
        _FRAME.pack_into(out, offset, kind << 24 | length, flow)
        out[offset + _FRAME.size : stop] = view[start:end]
        offset = stop
    return offset


def split_frames(
    message: Buffer,
) -> Iterable[tuple[int, int, int, int]] | None:
    """Find the frames of one message.

    Returns:
        ``(kind, flow, start, end)`` for each: where its payload lies in ``message``.
        ``None`` when the message is not a sequence of whole frames.

    Source: docs/protocol.md.
    """
    frames: list[tuple[int, int, int, int]] = []
    at, size = 0, len(message)
    while at < size:
        if size - at < _FRAME.size:
            return None
        word, flow = _FRAME.unpack_from(message, at)
        start = at + _FRAME.size
        at = start + (word & 0xFFFFFF)
        frames.append((word >> 24, flow, start, at))
    return frames if at == size else None
