"""Any octets, and any use, of a mux: frames or a violation, and credit is never exceeded.

The first octet decides which end it is; the others what happens, step by step.
"""

from collections import Counter

from tests.fuzz.octets import Octets
from tunstack import _fastpath
from tunstack._fastpath import reference
from tunstack.mux.flow import Flow
from tunstack.mux.session import Mux
from tunstack.wire.frame import (
    CREDIT,
    HEADER,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    OPEN,
    Kind,
    Refusal,
)

TARGET = bytes(10) + b"\xff\xff" + bytes((10, 96, 0, 1))
PROTOCOLS = (6, 17, 1, 58)

VALUES = {
    Kind.OPEN: type(None),
    Kind.OPENED: type(None),
    Kind.FIN: type(None),
    Kind.REFUSED: tuple,
    Kind.DATA: memoryview,
    Kind.DATAGRAM: memoryview,
    Kind.ECHO: memoryview,
    Kind.CREDIT: int,
    Kind.RESET: Refusal,
    Kind.UNREACHABLE: Refusal,
}
"""What :data:`tunstack.mux.session.Event` says of the third member."""


def check(data: bytes) -> None:
    """Run one script."""
    octets = Octets(data)
    script = Script(octets, client=bool(octets.octet() & 1))
    while octets and script.mux.violation is None:
        script.step()
    assert script.mux.violation is None or script.mux.receive(b"") == []


class Script:
    """One end of a session, and the ledger of what was promised.

    Args:
        octets: decide what happens.
        client: which end.
    """

    def __init__(self, octets: Octets, *, client: bool) -> None:
        self.mux = Mux(client=client, unacknowledged=100_000, datagram_queue=10_000)
        self._octets = octets
        self._flows: list[Flow] = []
        self._message = b""
        self._owed: Counter[Flow] = Counter()
        """Octets that the other end may send."""
        self._unread: Counter[Flow] = Counter()
        self._credit: Counter[Flow] = Counter()
        """Octets that the other end has said it takes."""
        self._steps = (
            self._hear_frame,
            self._hear_octets,
            self._hear_message,
            self._open,
            self._answer,
            self._send,
            self._finish,
            self._reset,
            self._consume,
            self._say,
            self._unreachable,
            self._resume,
            self._move,
        )

    def step(self) -> None:
        """Let one thing happen."""
        self._steps[self._octets.octet() % len(self._steps)]()
        for flow in self._flows:
            assert flow.gone or flow.send_credit == self._credit[flow]

    def _flow(self) -> Flow | None:
        if not self._flows:
            return None
        return self._flows[self._octets.octet() % len(self._flows)]

    # What the other end says

    def _hear_frame(self) -> None:
        """One frame that looks right, behind those of the same message."""
        octets = self._octets
        kind, shape, flow = octets.octet() % 13, octets.octet(), self._flow()
        number = flow.id if flow and shape & 1 else octets.number(1 + shape % 2 * 3)
        payload = {
            0: lambda: b"",
            1: lambda: octets.text(octets.octet()),
            2: lambda: CREDIT.pack(octets.number(2)),
            3: lambda: OPEN.pack(
                PROTOCOLS[octets.octet() & 3], 0, 80, octets.number(2), TARGET
            ),
            4: lambda: octets.number(8).to_bytes(8),
            5: lambda: bytes(octets.number(2)),
            6: lambda: bytes(octets.number(2) * 2),
            7: lambda: octets.octet().to_bytes(),
        }[shape >> 1 & 7]()
        self._message += HEADER.pack(kind << 24 | len(payload), number) + payload

    def _hear_octets(self) -> None:
        self._message += self._octets.text(self._octets.octet())

    def _hear_message(self) -> None:
        message, self._message = self._message, b""
        found = _fastpath.split_frames(message)
        assert (found and list(found)) == reference.split_frames(message)
        before = self.mux.received
        for kind, flow, value in self.mux.receive(message):
            assert isinstance(value, VALUES[kind])
            self._take(kind, flow, value)
        assert self.mux.received == before + 1
        assert self.mux.violation is None or self.mux.violation.isprintable()

    def _take(self, kind: Kind, flow: Flow, value: object) -> None:
        if kind is Kind.OPEN:
            self._flows.append(flow)
            self._credit[flow] = flow.send_credit
        elif kind is Kind.OPENED:
            self._credit[flow] = flow.send_credit
        elif kind is Kind.CREDIT:
            self._credit[flow] += value
            assert self._credit[flow] <= 1 << 31
        elif kind is Kind.DATA:
            assert len(value) <= MAX_PAYLOAD
            self._owed[flow] -= len(value)
            assert self._owed[flow] >= 0, "more than there was credit for"
            self._unread[flow] += len(value)

    # What this end says

    def _open(self) -> None:
        octets = self._octets
        credit = octets.number(2)
        protocol = PROTOCOLS[octets.octet() & 3]
        flow = self.mux.open(protocol, TARGET, octets.number(2), credit)
        self._owed[flow] = credit
        self._flows.append(flow)

    def _answer(self) -> None:
        """Take or refuse a connection that the other end has opened."""
        flow, credit = self._flow(), self._octets.number(2)
        if flow is None or flow.protocol != 6 or flow.open or flow.window:
            return
        if flow.id % 2 == self._flows_of_ours:
            return
        if credit % 3:
            self.mux.opened(flow, credit)
            self._owed[flow] = credit
        else:
            self.mux.refuse(flow, Refusal.REFUSED, "no")

    @property
    def _flows_of_ours(self) -> int:
        return self.mux._next_id % 2

    def _send(self) -> None:
        octets = self._octets
        flow, size = self._flow(), octets.number(2)
        if flow is None or not flow.open or flow.finished or flow.gone:
            return
        if flow.protocol == 6:
            kind, size = Kind.DATA, min(size, flow.send_credit, MAX_PAYLOAD)
            self._credit[flow] -= size
        else:
            kind, size = Kind.DATAGRAM, min(size, MAX_PAYLOAD)
        self.mux.send(bytes(size), [kind, flow.id, 0, size])

    def _finish(self) -> None:
        flow = self._flow()
        if flow is not None and flow.protocol == 6 and flow.open:
            self.mux.finish(flow)

    def _reset(self) -> None:
        flow = self._flow()
        if flow is not None:
            self.mux.reset(flow, Refusal.RESET)

    def _consume(self) -> None:
        flow = self._flow()
        if flow is not None:
            octets = self._unread.pop(flow, 0)
            self._owed[flow] += octets
            self.mux.consumed(flow, octets)

    def _say(self) -> None:
        message = self.mux.next_frames()
        if message is None:
            assert not self.mux.pending
            return
        assert len(message) <= 2 * MAX_MESSAGE
        spans = reference.split_frames(message)
        assert spans, "a message that is not frames"
        for kind, _, start, end in spans:
            assert kind in list(Kind)
            assert end - start <= MAX_PAYLOAD

    def _unreachable(self) -> None:
        flow = self._flow()
        if flow is not None and flow.protocol != 6:
            self.mux.unreachable(flow, Refusal.HOST_UNREACHABLE)

    def _resume(self) -> None:
        self.mux.resume(self._octets.octet())

    def _move(self) -> None:
        """Begin flows again, as in another session."""
        for flow in self.mux.take_unsent():
            self.mux.adopt(flow)
            self._owed[flow] = flow.window
