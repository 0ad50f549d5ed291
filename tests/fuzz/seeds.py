"""Writes the inputs that fuzzers begin with: ``python -m tests.fuzz.seeds``.

They are made of the packets that other tests use and of conversations like those of real
hosts. Inputs that a fuzzer has found lie beside them, and are left alone.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from tests._fastpath.packets import FRAGMENTS, GOOD, virtio
from tests.fuzz import parse
from tests.fuzz.mux import TARGET
from tunstack.wire import tcp
from tunstack.wire.frame import CREDIT, HEADER, OPEN, Kind

CORPUS = Path(__file__).parent / "corpus"

PACKETS = {name: bytes(packet) for name, packet in (GOOD | FRAGMENTS).items()}
SMALL = {name: packet for name, packet in PACKETS.items() if len(packet) < 2000}


def slots(mode: int, *packets: bytes, gap: int = 0) -> bytes:
    """Input of ``parse``, and of the parse kernel behind its selector."""
    return bytes((mode, gap)) + b"".join(len(p).to_bytes(2) + p for p in packets)


def parse_seeds() -> Iterator[tuple[str, bytes]]:
    for name, packet in SMALL.items():
        yield name, slots(0, packet)
        yield (
            f"{name} mended",
            slots(parse.MENDED | parse.VNET, bytes((2,)) + bytes(9) + packet),
        )
    for name, kind in (("tcp4", 1), ("tcp6", 4), ("udp4", 5), ("udp6", 5)):
        packet = virtio(SMALL[name], gso=kind, size=1448, header=40)
        yield f"{name} offload", slots(parse.VNET, packet)
    yield "batch", slots(0, *SMALL.values(), gap=3)
    yield "no slots", slots(0)
    yield "empty slots", slots(parse.VNET, b"", bytes(9), bytes(10), bytes(11))
    yield "version", slots(0, b"\x50" + bytes(40))
    for name in ("hop by hop", "all headers"):
        longer = bytearray(SMALL[name])
        longer[41] = (len(longer) - 40) // 8
        yield f"{name} beyond the packet", slots(0, bytes(longer))
    for name in ("udp4", "udp6"):
        longer = bytearray(SMALL[name])
        longer[-len(b"query") - 4] = 1
        yield (
            f"{name} beyond the packet",
            slots(parse.VNET, bytes((2,)) + bytes(9) + longer),
        )
    for length in range(0, 64, 9):
        yield f"cut to {length}", slots(0, *(packet[:length] for packet in SMALL.values()))


def kernels_seeds() -> Iterator[tuple[str, bytes]]:
    for name, data in parse_seeds():
        yield f"parse {name}", b"\1" + data
    for length in (0, 1, 2, 3, 15, 16, 17, 33):
        yield f"sum {length}", b"\0" + b"\xff\xfe\1" + bytes(range(length))
    v4 = bytes(10) + b"\xff\xff" + bytes((198, 18, 0, 1))
    v6 = bytes.fromhex("fd00" + 27 * "0" + "1")
    ports = struct.pack("!HH", 40_000, 80)
    for name, address in (("v4", v4), ("v6", v6)):
        key = b"\6" + address + address[:-1] + b"\2" + ports
        for vnet in (0, 1):
            numbers = struct.pack("!BIIIBHHH", vnet, 1448, 1, 2, 24, 500, 7, 536)
            # Of the length three octets count.
            numbers = numbers[:1] + numbers[2:]
            for kernel, protocol in ((2, "tcp"), (3, "udp")):
                for room in (110, 27, 37, 47, 61, 71):
                    data = bytes((kernel, room, 12)) + numbers + key + bytes(12)
                    yield f"frame {protocol} {name} {vnet} into {room}", data
    spans = struct.pack("!HIHHHIHH", 4, 1, 0, 5, 8, 3, 2, 9)
    yield "pack", b"\4" + struct.pack("!HB", 28, 2) + spans + b"0123456789"
    yield "pack without room", b"\4" + struct.pack("!HB", 27, 2) + spans + b"0123456789"
    for name, data in frames():
        yield f"split {name}", b"\5\x20" + data
        yield f"split {name} without room", b"\5\1" + data


def frame(kind: Kind, flow: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind << 24 | len(payload), flow) + payload


def frames() -> Iterator[tuple[str, bytes]]:
    opening = OPEN.pack(6, 0, 80, 65_535, TARGET)
    yield "nothing", b""
    yield "open", frame(Kind.OPEN, 1, opening) + frame(Kind.OPEN, 2, opening)
    yield "opened", frame(Kind.OPENED, 1, CREDIT.pack(65_535))
    yield "data", frame(Kind.DATA, 1, b"text") + frame(Kind.DATA, 1) + frame(Kind.FIN, 1)
    yield "datagram", frame(Kind.DATAGRAM, 3, b"query") + frame(Kind.ECHO, 3, b"\0\1x")
    yield "ends", frame(Kind.REFUSED, 1, b"\1why") + frame(Kind.RESET, 1, b"\xee")
    yield "ack", frame(Kind.ACK, 0, bytes(8)) + frame(Kind.CREDIT, 1, CREDIT.pack(9))
    yield "half", frame(Kind.DATA, 1, b"text")[:-1]


HEAR_OCTETS, HEAR, OPEN_FLOW, ANSWER, SEND, FINISH, RESET = 1, 2, 3, 4, 5, 6, 7
CONSUME, SAY, UNREACHABLE, RESUME, MOVE = 8, 9, 10, 11, 12


def heard(message: bytes) -> bytes:
    """Steps of ``mux``: a message arrives."""
    return bytes((HEAR_OCTETS, len(message))) + message + bytes((HEAR,))


def mux_seeds() -> Iterator[tuple[str, bytes]]:
    opening = bytes((OPEN_FLOW, 0xFF, 0xFF, 0, 0, 80))
    datagrams = bytes((OPEN_FLOW, 0, 0, 1, 0, 53))
    for name, data in frames():
        yield f"client {name}", b"\1" + opening + datagrams + bytes((SAY,)) + heard(data)
        yield f"manager {name}", b"\0" + heard(data)
    opened = heard(frame(Kind.OPENED, 1, CREDIT.pack(4000)))
    start = b"\1" + opening + bytes((SAY,)) + opened
    talk = bytes((SEND, 0, 0, 200, SAY)) + heard(frame(Kind.DATA, 1, bytes(50)))
    talk += bytes((CONSUME, 0, SAY))
    yield (
        "conversation",
        start + talk * 3 + bytes((FINISH, 0, SAY)) + heard(frame(Kind.FIN, 1)),
    )
    yield "reset", start + talk + bytes((RESET, 0, SAY))
    yield "resumed", start + talk + bytes((RESUME, 1, SAY, SAY)) + talk
    yield "too much", start + heard(frame(Kind.DATA, 1, bytes(200))) * 400
    yield "moved", b"\1" + opening * 3 + datagrams + bytes((MOVE, SAY, MOVE))
    took = heard(frame(Kind.OPEN, 1, OPEN.pack(6, 0, 80, 1000, TARGET)))
    yield "taken", b"\0" + took + bytes((ANSWER, 0, 3, 0xE9, SAY, SEND, 0, 3, 0, SAY))
    yield "refused", b"\0" + took + bytes((ANSWER, 0, 0, 0, SAY))
    yield "unreachable", b"\1" + datagrams + bytes((UNREACHABLE, 0, SAY))


SEGMENT, PACKET, WAIT, TAKE, TELL, GRANT, END, ABORT, REPLY = 0, 3, 4, 5, 6, 7, 8, 9, 10
KEEP = 0x80
ACK, FIN, RST = 1, 4, 5
"""Places of the flags in ``stack.FLAGS``."""


def segment(flags: int, flow: int, text: int = 0, *, places: int = 0) -> bytes:
    """Step of ``stack``: a segment, where it belongs; text in units of 17 octets."""
    return bytes((SEGMENT, flow | flags << 1 | 0x10, places, text, 0, 0x40, 0))


def stack_seeds() -> Iterator[tuple[str, bytes]]:
    for mode, name in ((0, "plain"), (0x11, "offload")):
        for flow in (0, 1):
            for ending, data in connection(mode, flow):
                yield f"{name} {flow} {ending}", data
    for name, packet in SMALL.items():
        header = struct.pack("!BH", PACKET, len(packet))
        yield f"packet {name}", b"\0" + header + packet + bytes((REPLY, 0, 0, 9))
    yield (
        "batch",
        b"\0"
        + b"".join(
            struct.pack("!BH", PACKET | KEEP, len(packet)) + packet
            for packet in SMALL.values()
        ),
    )
    yield (
        "options",
        b"\0"
        + bytes((SEGMENT, 0x10, 0, 0, 0x80, 20))
        + tcp.syn_options(1460, 7, True, (1, 0)),
    )


def connection(mode: int, flow: int) -> Iterator[tuple[str, bytes]]:
    """Conversations from their SYN to one end or another."""
    # No text, and options: MSS 1460, SACK, window scale 7.
    syn = bytes((mode, SEGMENT, flow | 0x10, 0, 0, 0x73, 5, 0xB4, 0x40, 0))
    ack = segment(ACK, flow)
    start = syn + bytes((TAKE, 0, 7)) + ack
    talk = segment(ACK, flow, 9) + bytes((TELL, 0, 16, 0)) + ack + bytes((GRANT, 0))
    end, fin = bytes((END, 0)), segment(FIN, flow)
    early = bytes((SEGMENT, flow | ACK << 1 | 0x10, 0x10, 64, 3, 0, 64, 0))
    closed_window = bytes((SEGMENT, flow | ACK << 1 | 0x10, 0, 0, 0, 0, 0))
    much = bytes((TELL, 0, 64, 0))
    yield "refused", syn + bytes((TAKE, 0, 2))
    yield "silence", start + talk + much + bytes((WAIT, 7))
    yield "host closes", start + talk * 2 + segment(FIN, flow, 2) + end + ack
    yield "cluster closes", start + talk + end + ack + fin + bytes((WAIT, 4))
    yield "both close", start + talk + end + segment(FIN, flow, places=4) + ack
    yield "reset", start + talk + segment(RST, flow) * 2
    yield "abort", start + talk + bytes((ABORT, 0)) + segment(ACK, flow, 3)
    yield "early", start + early * 3 + segment(ACK, flow, 4) + talk
    yield "zero window", start + closed_window + much + bytes((WAIT, 4)) + ack
    yield "all of it", start + (early + much + ack + segment(ACK, flow, 4)) * 4 + end + fin


SEEDS = {
    "kernels": kernels_seeds,
    "mux": mux_seeds,
    "parse": parse_seeds,
    "stack": stack_seeds,
}


def main() -> None:
    """Write them all."""
    for target, seeds in SEEDS.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (CORPUS / target / name.replace(" ", "-")).write_bytes(data)


if __name__ == "__main__":
    main()
