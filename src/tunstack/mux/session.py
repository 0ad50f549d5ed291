"""The mux: all flows of one session, as batches of frames in messages.

Theory of operation. A message is a batch of frames (``docs/protocol.md``). Whoever
has something to say calls :meth:`Mux.send` and the like; the transport asks
:meth:`Mux.next_frames` when the connection can take another message. Between the two
lies all the freedom there is:

* While nothing waits, frames are packed at once, one copy from where the octets lie,
  into the message that leaves next.
* When that message is full the transport is the bottleneck, and the rest waits per
  flow. Flows take turns of :data:`QUANTUM` octets, so one that uploads in bulk delays
  another by a few turns and not by its whole window.
* OPEN, OPENED, REFUSED, CREDIT, UNREACHABLE and ACK go before everything. FIN and
  RESET keep their place behind the flow's data: what was sent before them arrives.

Memory is bounded by credit: :meth:`Mux.send` takes DATA only against credit that the
other end has given for this flow. Datagrams have no credit; over ``datagram_queue``
octets a flow's are dropped and counted.

A violation by the other end is a value: :attr:`Mux.violation` says what was wrong, and
the session has to end.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tunstack import _fastpath
from tunstack.mux.flow import Flow
from tunstack.mux.replay import Replay
from tunstack.wire.frame import (
    COUNT,
    CREDIT,
    HEADER,
    LENGTH,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    OPEN,
    REASON,
    Kind,
    Refusal,
)

__all__ = ["Event", "Flow", "Mux"]

QUANTUM = 64 * 1024
"""Octets a flow may put into a message before the next flow's turn."""

CONTROL_LIMIT = 1024 * 1024
"""Octets of UNREACHABLE that may wait: they repeat themselves, and may be lost."""

TCP = 6

Event = tuple[Kind, Flow, Any]
"""What one frame said. The third is, by kind:

OPEN, OPENED, FIN: ``None``; REFUSED: ``(Refusal, text)``; DATA, DATAGRAM, ECHO: a view,
valid until :meth:`Mux.receive` is called again by the one that owns the message;
CREDIT: octets; RESET, UNREACHABLE: a :class:`~tunstack.wire.frame.Refusal`.
"""

_HEADER = HEADER.size
_DATA = Kind.DATA
"""To name a member through its class is a call in Python 3.11."""


def _frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind << 24 | len(payload), number) + payload


class Mux:
    """One end of a session.

    Args:
        client: which end; clients give flows odd numbers, managers even ones.
        unacknowledged: octets kept for a resumed stream; see :mod:`.replay`.
        datagram_queue: octets of datagrams of one flow that may wait.
    """

    def __init__(
        self,
        *,
        client: bool,
        unacknowledged: int = 16 * 1024 * 1024,
        datagram_queue: int = 1024 * 1024,
    ) -> None:
        self.flows: dict[int, Flow] = {}
        self.violation: str | None = None
        """How the other end broke the protocol."""
        self.dropped_datagrams = 0
        self._replay = Replay(unacknowledged)
        self._datagram_queue = datagram_queue
        self._next_id = 1 if client else 2
        self._highest_peer_id = 0
        self._control = bytearray()
        self._unsent_opens: dict[int, Flow] = {}
        """Flows whose OPEN is in no message yet, in the order of their numbers. A TCP
        flow given up before that costs the other end nothing."""
        self._batch: list[bytes | bytearray] = []
        self._batch_octets = 0
        self._ring: deque[Flow] = deque()

    @property
    def received(self) -> int:
        """Messages received in this session, for the hello that resumes it."""
        return self._replay.received

    # What the user of a flow says

    def open(self, protocol: int, address: bytes, port: int, credit: int) -> Flow:
        """Begin a flow.

        Args:
            protocol: 6, 17, or 1 or 58 for ICMP echo.
            address: of the target, 16 octets, IPv4 as IPv4-mapped.
            port: of the target; for ICMP the identifier.
            credit: octets the other end may send before more is granted.
        """
        flow = Flow(self._next_id, protocol, address, port, credit)
        self._enlist(flow)
        return flow

    def adopt(self, flow: Flow) -> None:
        """Begin again, in this session, a flow of another one that never opened."""
        flow.id = self._next_id
        flow.gone = False
        flow.receive_credit = flow.window
        self._enlist(flow)

    def take_unsent(self) -> list[Flow]:
        """Give up the TCP flows whose OPEN is in no message yet, for :meth:`adopt`."""
        unsent = self._unsent_opens.values()
        flows = [flow for flow in unsent if flow.protocol == TCP and not flow.finished]
        for flow in flows:
            del self._unsent_opens[flow.id], self.flows[flow.id]
        return flows

    def _enlist(self, flow: Flow) -> None:
        self._next_id += 2
        self.flows[flow.id] = flow
        flow.open = flow.protocol != TCP
        self._unsent_opens[flow.id] = flow

    @staticmethod
    def _open_frame(flow: Flow) -> bytes:
        payload = OPEN.pack(flow.protocol, 0, flow.port, flow.window, flow.address)
        return _frame(Kind.OPEN, flow.id, payload)

    def opened(self, flow: Flow, credit: int) -> None:
        """Answer an OPEN: the target took the connection.

        Args:
            flow: a TCP flow the other end opened.
            credit: octets the other end may send before more is granted.
        """
        if flow.gone:
            return
        flow.open = True
        flow.window = flow.receive_credit = credit
        self._control += _frame(Kind.OPENED, flow.id, CREDIT.pack(credit))

    def refuse(self, flow: Flow, refusal: Refusal, text: str = "") -> None:
        """Answer an OPEN: there will be no flow. ``text`` is for people."""
        if flow.gone:
            return
        self._forget(flow)
        payload = REASON.pack(refusal) + text.encode()[:200]
        self._control += _frame(Kind.REFUSED, flow.id, payload)

    def send(self, source: bytes | bytearray | memoryview, spans: list[int]) -> None:
        """Send frames; everything is copied before this returns.

        Args:
            source: memory in which all the payloads lie.
            spans: four numbers a frame: kind (DATA, DATAGRAM or ECHO), flow, first
                octet of the payload, octet behind its last. A flow that is gone is
                passed over. The caller holds the credit that DATA needs.
        """
        if len(spans) == 4:
            self._send_one(memoryview(source), *spans)
            return
        flows = self.flows
        for number in spans[1::4]:
            if number not in flows:
                spans = self._living(spans)
                break
        octets = 0
        for at in range(0, len(spans), 4):
            length = spans[at + 3] - spans[at + 2]
            octets += _HEADER + length
            if spans[at] == _DATA:
                flow = flows[spans[at + 1]]
                assert length <= flow.send_credit, "DATA without credit"
                flow.send_credit -= length
        if self._ring or self._batch_octets + octets > MAX_MESSAGE:
            self._enqueue(source, spans)
        elif octets:
            batch = bytearray(octets)
            _fastpath.pack_frames(batch, 0, source, spans)
            self._batch.append(batch)
            self._batch_octets += octets

    def _send_one(
        self, source: memoryview, kind: int, number: int, start: int, end: int
    ) -> None:
        """Send one frame: the most usual batch, and too little for a call into C."""
        flow = self.flows.get(number)
        if flow is None:
            return
        length = end - start
        if kind == _DATA:
            assert length <= flow.send_credit, "DATA without credit"
            flow.send_credit -= length
        if self._ring or self._batch_octets + _HEADER + length > MAX_MESSAGE:
            self._enqueue(source, [kind, number, start, end])
        else:
            self._batch.append(HEADER.pack(kind << 24 | length, number) + source[start:end])
            self._batch_octets += _HEADER + length

    def _living(self, spans: list[int]) -> list[int]:
        living: list[int] = []
        for at in range(0, len(spans), 4):
            if spans[at + 1] in self.flows:
                living += spans[at : at + 4]
        return living

    def finish(self, flow: Flow) -> None:
        """Send no more data: FIN, behind what has been sent."""
        if flow.gone or flow.finished:
            return
        flow.finished = True
        self._in_order(flow, Kind.FIN, b"")
        if flow.peer_finished:
            self._forget(flow)

    def reset(self, flow: Flow, refusal: Refusal = Refusal.RESET) -> None:
        """End the flow at once: RESET, behind what has been sent."""
        if flow.gone:
            return
        self._forget(flow)
        # Datagrams may be queued already behind the OPEN that they need.
        if flow.protocol != TCP or self._unsent_opens.pop(flow.id, None) is None:
            self._in_order(flow, Kind.RESET, REASON.pack(refusal))

    def unreachable(self, flow: Flow, refusal: Refusal) -> None:
        """A datagram or an echo of this flow did not reach its target."""
        if not flow.gone and len(self._control) < CONTROL_LIMIT:
            self._control += _frame(Kind.UNREACHABLE, flow.id, REASON.pack(refusal))

    def consumed(self, flow: Flow, octets: int) -> None:
        """Received octets are used up: grant as many again, in batches."""
        flow.unconsumed += octets
        if flow.unconsumed * 4 >= flow.window and not (flow.gone or flow.peer_finished):
            flow.receive_credit += flow.unconsumed
            payload = CREDIT.pack(flow.unconsumed)
            self._control += _frame(Kind.CREDIT, flow.id, payload)
            flow.unconsumed = 0

    def _forget(self, flow: Flow) -> None:
        flow.gone = True
        self.flows.pop(flow.id, None)

    def _in_order(self, flow: Flow, kind: Kind, payload: bytes) -> None:
        """Send one small frame behind the flow's data."""
        octets = _HEADER + len(payload)
        if self._ring or self._batch_octets + octets > MAX_MESSAGE:
            self._wait(flow, kind, payload)
        else:
            self._batch.append(_frame(kind, flow.id, payload))
            self._batch_octets += octets

    def _enqueue(self, source: bytes | bytearray | memoryview, spans: list[int]) -> None:
        view = memoryview(source)
        for at in range(0, len(spans), 4):
            kind, number, start, end = spans[at : at + 4]
            flow = self.flows[number]
            if kind != _DATA and flow.queued + end - start > self._datagram_queue:
                self.dropped_datagrams += 1
                continue
            self._wait(flow, Kind(kind), bytes(view[start:end]))

    def _wait(self, flow: Flow, kind: Kind, payload: bytes) -> None:
        if flow.queue is None:
            flow.queue = deque()
            self._ring.append(flow)
        flow.queue.append((kind, payload))
        flow.queued += len(payload)

    # What the transport asks

    @property
    def pending(self) -> bool:
        """Whether :meth:`next_frames` has something to give, were it asked now."""
        replay = self._replay
        waits = self._batch or self._control or self._unsent_opens or self._ring
        return bool(waits and not replay.full) or replay.again_pending or replay.ack_due

    def next_frames(self) -> bytes | bytearray | None:
        """Give the frames of the next message, at most about :data:`MAX_MESSAGE` octets.

        ``None`` when there is nothing to say or too much is unacknowledged. What is
        given belongs to the mux too, which may send it again: it must not be changed.
        """
        if not self.pending:
            return None
        again = self._replay.next_again()
        if again is not None:
            return again
        parts: list[bytes | bytearray] = []
        if self._replay.ack_due:
            parts.append(_frame(Kind.ACK, 0, COUNT.pack(self._replay.received)))
            self._replay.ack_sent()
        if not self._replay.full:
            self._gather(parts)
        message = parts[0] if len(parts) == 1 else b"".join(parts)
        self._replay.sent(message)
        return message

    def _gather(self, parts: list[bytes | bytearray]) -> None:
        if self._unsent_opens:
            parts += map(self._open_frame, self._unsent_opens.values())
            self._unsent_opens.clear()
        if self._control:
            parts.append(self._control)
            self._control = bytearray()
        if self._batch:
            parts += self._batch
            self._batch = []
        octets, self._batch_octets = self._batch_octets, 0
        while self._ring and octets < MAX_MESSAGE:
            octets += self._turn(self._ring.popleft(), parts)

    def _turn(self, flow: Flow, parts: list[bytes | bytearray]) -> int:
        """Let one flow put its quantum into the message; returns the octets."""
        queue = flow.queue
        assert queue is not None
        octets = 0
        while queue and octets < QUANTUM:
            kind, payload = queue.popleft()
            parts.append(HEADER.pack(kind << 24 | len(payload), flow.id))
            parts.append(payload)
            octets += _HEADER + len(payload)
            flow.queued -= len(payload)
        if queue:
            self._ring.append(flow)
        else:
            flow.queue = None
        return octets

    # What the other end said

    def resume(self, count: int) -> bool:
        """A new stream goes on with this session; the other end has ``count`` messages.

        Returns false when that count cannot be: the session cannot go on.
        """
        return self._replay.resume(count)

    def receive(self, frames: bytes | bytearray | memoryview) -> list[Event]:
        """Take the frames of one message.

        Returns what they said, in order, up to the first violation if there is one.
        """
        events: list[Event] = []
        if self.violation is not None:
            return events
        size = len(frames)
        self._replay.arrived(size)
        spans: Iterable[tuple[int, int, int, int]] | None = None
        if size >= _HEADER:
            word, number = HEADER.unpack_from(frames)
            if _HEADER + (word & LENGTH) == size:
                # One frame, as in most messages: too little for a call into C.
                spans = ((word >> 24, number, _HEADER, size),)
        if spans is None:
            spans = _fastpath.split_frames(frames)
        if spans is None:
            self.violation = "a message that is not a sequence of whole frames"
            return events
        view = memoryview(frames)
        flows = self.flows
        for kind, number, start, end in spans:
            flow = flows.get(number)
            if self._unsent_opens and number in self._unsent_opens:
                flow = None  # the other end cannot know it
            if kind == _DATA and flow is not None:
                length = end - start
                if (
                    length > flow.receive_credit
                    or length > MAX_PAYLOAD
                    or not flow.open
                    or flow.peer_finished
                ):
                    self.violation = self._bad_data(flow, length)
                    return events
                flow.receive_credit -= length
                events.append((_DATA, flow, view[start:end]))
                continue
            self.violation = self._take(kind, number, flow, view[start:end], events)
            if self.violation is not None:
                return events
        return events

    @staticmethod
    def _bad_data(flow: Flow, length: int) -> str:
        if not flow.open:
            return f"DATA on flow {flow.id}, which is not open"
        if flow.peer_finished:
            return f"DATA on flow {flow.id} behind its FIN"
        most = min(flow.receive_credit, MAX_PAYLOAD)
        return f"DATA of {length} octets on flow {flow.id}: at most {most}"

    def _take(
        self,
        kind: int,
        number: int,
        flow: Flow | None,
        payload: memoryview,
        events: list[Event],
    ) -> str | None:
        """Take one frame; returns the violation if it is one."""
        if len(payload) > MAX_PAYLOAD:
            return f"a frame of {len(payload)} octets: at most {MAX_PAYLOAD}"
        if kind == Kind.OPEN:
            return self._take_open(number, payload, events)
        if kind == Kind.ACK:
            if number or len(payload) != COUNT.size:
                return "a malformed ACK"
            (count,) = COUNT.unpack(payload)
            if not self._replay.acknowledge(count):
                return f"an ACK of {count} messages, which cannot be"
            return None
        if kind not in _TAKERS and kind != _DATA:
            return f"a frame of unknown kind {kind}"
        if flow is None:
            # It may have been on the way when the flow ended here.
            if self._was_used(number):
                return None
            return f"{Kind(kind).name} for flow {number}, which never existed"
        return _TAKERS[kind](self, flow, payload, events)

    def _was_used(self, number: int) -> bool:
        if number == 0:
            return False
        if number % 2 == self._next_id % 2:
            return number < self._next_id and number not in self._unsent_opens
        return number <= self._highest_peer_id

    def _take_open(
        self, number: int, payload: memoryview, events: list[Event]
    ) -> str | None:
        if len(payload) != OPEN.size:
            return f"an OPEN of {len(payload)} octets: want {OPEN.size}"
        if number % 2 == self._next_id % 2 or number <= self._highest_peer_id:
            return f"an OPEN of flow {number}, which is not a new one of that end"
        protocol, _, port, credit, address = OPEN.unpack(payload)
        self._highest_peer_id = number
        flow = Flow(number, protocol, address, port, 0)
        flow.send_credit = credit
        flow.open = protocol != TCP
        self.flows[number] = flow
        events.append((Kind.OPEN, flow, None))
        return None

    def _take_opened(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if flow.open or len(payload) != CREDIT.size or not self._is_ours(flow):
            return f"an OPENED for flow {flow.id} that does not fit"
        flow.open = True
        (flow.send_credit,) = CREDIT.unpack(payload)
        events.append((Kind.OPENED, flow, None))
        return None

    def _take_refused(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if not payload or not self._is_ours(flow) or (flow.open and flow.protocol == TCP):
            return f"a REFUSED for flow {flow.id} that does not fit"
        self._forget(flow)
        text = bytes(payload[1:]).decode(errors="replace")
        events.append((Kind.REFUSED, flow, (_refusal(payload), text)))
        return None

    def _take_credit(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if len(payload) != CREDIT.size or not flow.open:
            return f"a CREDIT for flow {flow.id} that does not fit"
        (octets,) = CREDIT.unpack(payload)
        flow.send_credit += octets
        if flow.send_credit > 1 << 31:
            return f"credit of {flow.send_credit} octets on flow {flow.id}"
        events.append((Kind.CREDIT, flow, octets))
        return None

    def _take_fin(self, flow: Flow, payload: memoryview, events: list[Event]) -> str | None:
        if payload or flow.peer_finished or not flow.open or flow.protocol != TCP:
            return f"a FIN for flow {flow.id} that does not fit"
        flow.peer_finished = True
        if flow.finished:
            self._forget(flow)
        events.append((Kind.FIN, flow, None))
        return None

    def _take_reset(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if not payload:
            return f"an empty RESET for flow {flow.id}"
        self._forget(flow)
        events.append((Kind.RESET, flow, _refusal(payload)))
        return None

    def _take_datagram(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if flow.protocol == TCP:
            return f"a DATAGRAM for the TCP flow {flow.id}"
        events.append((Kind.DATAGRAM, flow, payload))
        return None

    def _take_echo(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if flow.protocol == TCP or len(payload) < 2:
            return f"an ECHO for flow {flow.id} that does not fit"
        events.append((Kind.ECHO, flow, payload))
        return None

    def _take_unreachable(
        self, flow: Flow, payload: memoryview, events: list[Event]
    ) -> str | None:
        if not payload or flow.protocol == TCP:
            return f"an UNREACHABLE for flow {flow.id} that does not fit"
        events.append((Kind.UNREACHABLE, flow, _refusal(payload)))
        return None

    def _is_ours(self, flow: Flow) -> bool:
        return flow.id % 2 == self._next_id % 2


_TAKERS: dict[int, Callable[[Mux, Flow, memoryview, list[Event]], str | None]] = {
    Kind.OPENED: Mux._take_opened,
    Kind.REFUSED: Mux._take_refused,
    Kind.CREDIT: Mux._take_credit,
    Kind.FIN: Mux._take_fin,
    Kind.RESET: Mux._take_reset,
    Kind.DATAGRAM: Mux._take_datagram,
    Kind.ECHO: Mux._take_echo,
    Kind.UNREACHABLE: Mux._take_unreachable,
}


def _refusal(payload: Sequence[int]) -> Refusal:
    """Read a reason; one from a newer peer is only unspecified here."""
    try:
        return Refusal(payload[0])
    except ValueError:
        return Refusal.UNSPECIFIED
