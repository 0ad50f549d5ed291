"""Stack and mux alone, in memory: what the path could carry if they were all of it."""

from collections.abc import Callable
from struct import Struct

from tunstack.bench.probe import expect, repeat
from tunstack.bench.segments import segment
from tunstack.config import TcpConfig
from tunstack.host.device import STRIDE, VNET
from tunstack.mux.session import TCP, Mux
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import ACK, PSH, SYN
from tunstack.wire import tcp
from tunstack.wire.frame import Kind

LARGE = 44 * 1460
"""Octets of text in the largest GSO packet of a link with an MTU of 1500."""

_MTU = 65_520
_COUNT = 16
"""Packets in one turn."""
_CREDIT = 1 << 30
_FRAMES, _FRAME = 4, 65_536
_SEQ_AT, _SEQ = VNET + 20 + 4, Struct("!I")
_TURN = 1e-4
"""Seconds of virtual time between two turns."""


def stack(size: int) -> Callable[[float], float]:
    """Have a stack take in text; gives what measures that, in bits a second.

    Args:
        size: octets of text in each packet.
    """
    machine = Stack(mtu=_MTU, vnet=VNET, config=TcpConfig(), secret=bytes(16))
    now = 1000.0
    options = tcp.syn_options(65_480, 7, True)
    syn = segment(0, 0, flags=SYN, options=options)
    machine.receive(syn, len(syn), [len(syn)], now)
    ((what, connection),) = machine.take_events()
    expect(what is What.OPEN, "a SYN opens a connection")
    machine.opened(connection, _CREDIT)
    ((syn_ack, *_),) = machine.output(now)
    una = _SEQ.unpack_from(syn_ack, _SEQ_AT)[0] + 1
    ack = segment(1, una)
    machine.receive(ack, len(ack), [len(ack)], now)
    machine.take_events()
    machine.output(now)

    packet = segment(1, una, bytes(size), flags=ACK | PSH)
    arena = bytearray(STRIDE * _COUNT)
    for slot in range(_COUNT):
        arena[slot * STRIDE : slot * STRIDE + len(packet)] = packet
    lengths = [len(packet)] * _COUNT
    nxt = 1

    def turn() -> int:
        nonlocal now, nxt
        now += _TURN
        for slot in range(_COUNT):
            _SEQ.pack_into(arena, slot * STRIDE + _SEQ_AT, nxt & 0xFFFFFFFF)
            nxt += size
        machine.receive(arena, STRIDE, lengths, now)
        octets = 0
        for _, _, _, start, end in machine.take_events():
            octets += end - start
        expect(octets == size * _COUNT, "the stack takes all the text")
        machine.grant(connection, octets)
        expect(len(machine.output(now)) == 1, "one acknowledgment a turn")
        return octets * 8

    return lambda seconds: repeat(turn, seconds)


def mux() -> Callable[[float], float]:
    """Have one end of a mux send and the other receive; gives what measures that."""
    client, manager = Mux(client=True), Mux(client=False)
    flow = client.open(TCP, bytes(16), 80, _CREDIT)
    _deliver(client, manager)
    _deliver(manager, client)
    source = bytes(_FRAME * _FRAMES)
    spans = [
        word
        for at in range(_FRAMES)
        for word in (int(Kind.DATA), flow.id, at * _FRAME, (at + 1) * _FRAME)
    ]

    def turn() -> int:
        client.send(source, spans)
        octets = _deliver(client, manager)
        expect(octets == len(source), "the mux delivers all the text")
        _deliver(manager, client)
        return octets * 8

    return lambda seconds: repeat(turn, seconds)


def _deliver(sender: Mux, receiver: Mux) -> int:
    """Hand over all that one end says; gives the octets of DATA, used up at once."""
    octets = 0
    while (message := sender.next_frames()) is not None:
        for kind, flow, value in receiver.receive(message):
            if kind is Kind.OPEN:
                receiver.opened(flow, _CREDIT)
            elif kind is Kind.DATA:
                octets += len(value)
                receiver.consumed(flow, len(value))
    return octets
