"""One TCP connection with a process of this computer (RFC 9293).

Theory of operation. The host's kernel opens every connection; its SYN starts one here
in PENDING, a state of our own in front of SYN-RECEIVED: the manager is still dialling
the real target, and what the kernel hears (SYN-ACK, RST, ICMP or nothing) is what the
target said. From then on the machine is RFC 9293's.

The two halves meet credit instead of buffers. Text from the host is handed on as it
comes in order, so there is no receive buffer: RCV.WND is the credit that the manager
has given. Text for the host waits in a :class:`~.send.SendQueue` as views of the messages
it came in, and what SND.UNA passes becomes credit for the manager.

A segment costs one call of :meth:`Connection.receive`, most of them on its first dozen
lines: in order, nothing special, ESTABLISHED. What has to be sent is only marked; the
stack calls :meth:`Connection.output` once per turn, so one turn makes one ACK.

There is no congestion control: the network is a queue in this computer's memory and the
receiver's window bounds what is in it. Loss is possible all the same, so there are
retransmission (RFC 6298), SACK both ways (RFC 2018) and recovery by it (RFC 6675,
without its pipe: there is no cwnd to compare it with).
"""

from enum import Enum
from typing import Any

from tunstack import _fastpath
from tunstack.stack import seq
from tunstack.stack.events import Event, What
from tunstack.stack.receive import OutOfOrder
from tunstack.stack.rtt import RoundTrip
from tunstack.stack.send import SendQueue
from tunstack.wire import key as flow_key
from tunstack.wire import tcp as wire
from tunstack.wire.record import Record

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

MAX_PIECE = 65_000
"""Octets of text in one packet: with headers less than IP's 65 535."""

MAX_SHIFT = 14
"""RFC 7323, section 2.3."""

DUPLICATE_ACKS = 3
"""RFC 5681, section 3.2."""

MAX_TIMEOUTS = 12
"""Retransmissions of one segment before the host is given up: RFC 9293, 3.8.3, R2."""

SYN_TIMEOUTS = 5
"""The same for our SYN-ACK, as Linux has it (tcp_synack_retries)."""

MINIMUM_MSS = 88
"""Less would be an attack: 48 octets of text and 40 of options (CVE-2019-11479)."""


class State(Enum):
    """RFC 9293, section 3.3.2, and PENDING."""

    PENDING = "PENDING"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


S = State

_EDGES = {
    S.PENDING: {S.SYN_RECEIVED, S.CLOSED},
    S.SYN_RECEIVED: {S.ESTABLISHED, S.CLOSED},
    S.ESTABLISHED: {S.FIN_WAIT_1, S.CLOSE_WAIT, S.CLOSED},
    S.FIN_WAIT_1: {S.FIN_WAIT_2, S.CLOSING, S.TIME_WAIT, S.CLOSED},
    S.FIN_WAIT_2: {S.TIME_WAIT, S.CLOSED},
    S.CLOSE_WAIT: {S.LAST_ACK, S.CLOSED},
    S.CLOSING: {S.TIME_WAIT, S.CLOSED},
    S.LAST_ACK: {S.CLOSED},
    S.TIME_WAIT: {S.CLOSED},
    S.CLOSED: set(),
}
"""RFC 9293, figure 5, with a way to CLOSED from everywhere: a RST, or ours."""

_AFTER_PEER_FIN = {
    S.ESTABLISHED: S.CLOSE_WAIT,
    S.FIN_WAIT_1: S.CLOSING,
    S.FIN_WAIT_2: S.TIME_WAIT,
}

_AFTER_OUR_FIN = {S.ESTABLISHED: S.FIN_WAIT_1, S.CLOSE_WAIT: S.LAST_ACK}

_AFTER_FIN_ACKED = {
    S.FIN_WAIT_1: S.FIN_WAIT_2,
    S.CLOSING: S.TIME_WAIT,
    S.LAST_ACK: S.CLOSED,
}

_TAKES_TEXT = {S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2}
_SENDS_TEXT = {S.ESTABLISHED, S.CLOSE_WAIT, S.FIN_WAIT_1, S.CLOSING, S.LAST_ACK}


class Snd:
    """Send sequence variables (RFC 9293, section 3.3.1)."""

    __slots__ = ("iss", "max_wnd", "mss", "nxt", "shift", "una", "wl1", "wl2", "wnd")

    def __init__(self, iss: int) -> None:
        self.iss = iss
        self.una = iss
        self.nxt = iss
        self.wnd = 0
        self.wl1 = 0
        self.wl2 = iss
        self.max_wnd = 0
        self.mss = 536
        self.shift = 0


class Rcv:
    """Receive sequence variables; ``edge`` is RCV.NXT + RCV.WND as last said."""

    __slots__ = ("edge", "irs", "nxt", "shift")

    def __init__(self, irs: int) -> None:
        self.irs = irs
        self.nxt = seq.add(irs, 1)
        self.edge = self.nxt
        self.shift = 0


class Connection:
    """The TCP machine of one connection.

    Args:
        key: flow key (37 octets) of the host's packets.
        irs, options, window: of the host's SYN.
        iss: initial send sequence number.
        mss: what the device can carry.
        vnet: octets of virtio header, 10 or 0.
        receive_buffer: the most that RCV.WND opens to; decides the window scale.
        events: where to put what happens.
    """

    __slots__ = (
        "ack_due",
        "armed_at",
        "context",
        "credit",
        "deadline",
        "duplicates",
        "events",
        "fin_due",
        "fin_seq",
        "high_rxt",
        "key",
        "mss",
        "out_of_order",
        "peer_fin",
        "probe_due",
        "queue",
        "rcv",
        "receive_buffer",
        "recover",
        "resend",
        "rst_due",
        "rtt",
        "sack",
        "sacked",
        "scale",
        "snd",
        "state",
        "time_wait",
        "timed_at",
        "timed_seq",
        "timeouts",
        "vnet",
    )

    def __init__(
        self,
        key: bytes,
        *,
        irs: int,
        options: wire.Options,
        window: int,
        iss: int,
        mss: int,
        vnet: int,
        receive_buffer: int,
        time_wait: float,
        events: list[Event],
    ) -> None:
        self.key = key
        self.state = S.PENDING
        self.snd = Snd(iss)
        self.rcv = Rcv(irs)
        self.snd.wnd = self.snd.max_wnd = window  # of a SYN: never scaled
        self.snd.wl1 = irs
        self.mss = mss
        self.snd.mss = max(MINIMUM_MSS, min(mss, options.mss or _default_mss(key)))
        self.scale = options.window_scale is not None
        if options.window_scale is not None:
            self.snd.shift = options.window_scale
            self.rcv.shift = _shift_for(receive_buffer)
        self.sack = options.sack_permitted
        self.vnet = vnet
        self.receive_buffer = receive_buffer
        self.time_wait = time_wait
        self.events = events
        self.credit = 0
        """Octets that the manager takes from here on."""
        self.context: Any = None
        """Belongs to whoever serves the connection."""
        self.queue: SendQueue | None = None
        self.out_of_order: OutOfOrder | None = None
        self.peer_fin: int | None = None
        """Sequence number of a FIN that came before what precedes it."""
        self.ack_due = False
        self.probe_due = False
        self.fin_due = False
        """The cluster has finished: FIN goes behind the last of the queue."""
        self.fin_seq: int | None = None
        self.duplicates = 0
        self.recover: int | None = None
        """RFC 6675's RecoveryPoint: SND.NXT when loss was noticed."""
        self.high_rxt = 0
        self.resend = False
        self.sacked: list[tuple[int, int]] | None = None
        self.rst_due: int | None = None
        """Sequence number of a RST that answers an ACK of nothing we sent."""
        self.rtt: RoundTrip | None = None
        self.timeouts = 0
        """Times the timer has gone off since the host last said anything."""
        self.timed_seq = 0
        self.timed_at: float | None = None
        self.deadline: float | None = None
        self.armed_at: float | None = None

    # Segments from the host

    def receive(self, segment: Record, memory: bytearray | bytes, now: float) -> None:
        """Take one segment: RFC 9293, section 3.10.7.4.

        Args:
            segment: what parsing gave; its offsets are into ``memory``.
            memory: must stay as it is until the events have been handled.
            now: the time.
        """
        seg_seq, seg_ack, _, options, start, end, window, _, _, flags, _, _ = segment
        rcv, snd = self.rcv, self.snd
        length = end - start
        if (
            self.state is S.ESTABLISHED
            and flags & ~PSH == ACK
            and seg_seq == rcv.nxt
            and options == start
            and self.out_of_order is None
            and length <= (rcv.edge - seg_seq) & seq.MASK
        ):
            advance = (seg_ack - snd.una) & seq.MASK
            if advance <= (snd.nxt - snd.una) & seq.MASK:
                window <<= snd.shift
                if advance and self.recover is None:
                    self._advance(seg_ack, now)
                    snd.wnd, snd.wl1, snd.wl2 = window, seg_seq, seg_ack
                elif advance or not length or window != snd.wnd:
                    self._check_ack(seg_seq, seg_ack, window, length, (), now)
                if length:
                    rcv.nxt = (seg_seq + length) & seq.MASK
                    self.credit -= length
                    self.ack_due = True
                    self.events.append((What.DATA, self, memory, start, end))
                return
        self._arrive(segment, memory, now)

    def _arrive(self, segment: Record, memory: bytearray | bytes, now: float) -> None:
        seg_seq, seg_ack, _, options, start, end, window, _, _, flags, _, _ = segment
        rcv, snd = self.rcv, self.snd
        if self.state is S.PENDING:
            self._arrive_pending(seg_seq, flags)
            return
        if self.state is S.SYN_RECEIVED and flags & SYN and seg_seq == rcv.irs:
            self._send_again(snd.una)  # our SYN-ACK was lost
            return
        # First, check the sequence number.
        if not self._acceptable(seg_seq, end - start, flags & FIN):
            if not flags & RST:
                self.ack_due = True
            if flags & FIN and self.state is S.TIME_WAIT:
                self.deadline = now + self.time_wait  # our last ACK was lost
            return
        # Second, check the RST bit: RFC 5961, section 3.2.
        if flags & RST:
            if seg_seq == rcv.nxt:
                self._fail()
            else:
                self.ack_due = True
            return
        # Fourth, check the SYN bit: RFC 5961, section 4.2.
        if flags & SYN:
            self.ack_due = True
            return
        # Fifth, check the ACK field.
        if not flags & ACK:
            return
        if self.state is S.SYN_RECEIVED and not self._establish(seg_ack):
            return
        blocks: tuple[tuple[int, int], ...] = ()
        if options < start and self.sack:
            blocks = wire.parse_options(memoryview(memory)[options:start]).sack
        if not self._check_ack(
            seg_seq, seg_ack, window << snd.shift, end - start, blocks, now
        ):
            return
        # Seventh, process the segment text; eighth, check the FIN bit.
        if flags & FIN:
            self.peer_fin = seq.add(seg_seq, end - start)
        if end > start and self.state in _TAKES_TEXT:
            self._take_text(seg_seq, memory, start, end)
        elif end > start:
            self.ack_due = True
        self._check_fin(now)

    def _arrive_pending(self, seg_seq: int, flags: int) -> None:
        """The target has not answered: only a RST of the very SYN changes anything."""
        if flags & RST and seg_seq == self.rcv.nxt:
            self._fail()

    def _acceptable(self, seg_seq: int, text: int, fin: int) -> bool:
        """RFC 9293, table 6; a FIN takes one number but no room in the window."""
        rcv = self.rcv
        wnd = seq.sub(rcv.edge, rcv.nxt)
        if seg_seq == rcv.nxt and (wnd or not text):
            return True
        if seq.sub(seg_seq, rcv.nxt) < wnd:
            return True
        length = text + fin
        return bool(length and wnd and seq.sub(seq.add(seg_seq, length - 1), rcv.nxt) < wnd)

    def _establish(self, seg_ack: int) -> bool:
        """SYN-RECEIVED: the ACK of our SYN, or a RST to what is not one."""
        snd = self.snd
        if not (seq.lt(snd.una, seg_ack) and seq.le(seg_ack, snd.nxt)):
            self.rst_due = seg_ack
            return False
        self._enter(S.ESTABLISHED)
        return True

    def _check_ack(
        self,
        seg_seq: int,
        seg_ack: int,
        window: int,
        length: int,
        blocks: tuple[tuple[int, int], ...],
        now: float,
    ) -> bool:
        """Step five; returns false when the segment goes no further."""
        snd = self.snd
        if seq.lt(snd.nxt, seg_ack):
            self.ack_due = True  # of something not sent yet
            return False
        if seq.lt(seg_ack, snd.una):
            # RFC 5961, section 5.2: too old to come from this connection.
            if seq.sub(snd.una, seg_ack) > max(snd.max_wnd, 65_535):
                self.ack_due = True
                return False
            return True
        self.timeouts = 0
        if blocks:
            self._note_sacked(seg_ack, blocks)
        if seg_ack != snd.una:
            self._advance(seg_ack, now)
            if self.recover is not None:
                self._go_on_recovering(seg_ack)
        elif length == 0 and window == snd.wnd and seg_ack != snd.nxt:
            self._count_duplicate()
        if seq.lt(snd.wl1, seg_seq) or (snd.wl1 == seg_seq and seq.le(snd.wl2, seg_ack)):
            if window and not snd.wnd and self.rtt is not None:
                self.rtt.backoff = 0  # no more probes
                if snd.una == snd.nxt:
                    self.deadline = None
            snd.wnd, snd.wl1, snd.wl2 = window, seg_seq, seg_ack
            snd.max_wnd = max(snd.max_wnd, window)
        return True

    def _advance(self, seg_ack: int, now: float) -> None:
        """SND.UNA moves: forget what has arrived, measure, set the timer."""
        snd = self.snd
        octets = seq.sub(seg_ack, snd.una)
        rtt = self.rtt
        if rtt is None:
            rtt = self.rtt = RoundTrip()
        if snd.una == snd.iss:
            octets -= 1  # our SYN
        if self.timed_at is not None and seq.lt(self.timed_seq, seg_ack):
            rtt.sample(now - self.timed_at)
            self.timed_at = None
        rtt.backoff = self.timeouts = self.duplicates = 0
        snd.una = seg_ack
        fin_acked = self.fin_seq is not None and seq.lt(self.fin_seq, seg_ack)
        if fin_acked:
            octets -= 1
        if octets:
            queue = self.queue
            assert queue is not None
            queue.acknowledge(octets)
            if not queue.size:
                self.queue = None
            self.events.append((What.ACKED, self, octets))
        self.deadline = None if seg_ack == snd.nxt else now + rtt.rto
        if fin_acked:
            self.fin_seq = None
            self._enter(_AFTER_FIN_ACKED[self.state])
            if self.state is S.TIME_WAIT:
                self.deadline = now + self.time_wait

    def _take_text(
        self, seg_seq: int, memory: bytearray | bytes, start: int, end: int
    ) -> None:
        rcv = self.rcv
        self.ack_due = True
        if seq.lt(seg_seq, rcv.nxt):
            start += seq.sub(rcv.nxt, seg_seq)
            seg_seq = rcv.nxt
        room = min(seq.sub(rcv.edge, seg_seq), self.credit)
        end = min(end, start + room)
        if start >= end:
            return
        if seg_seq != rcv.nxt:
            if self.out_of_order is None:
                self.out_of_order = OutOfOrder()
            text = memoryview(memory)[start:end]
            self.out_of_order.insert(rcv.nxt, seg_seq, text)
            return
        self._deliver(memory, start, end)
        while self.out_of_order is not None:
            piece = self.out_of_order.pop(rcv.nxt)
            if piece is not None:
                self._deliver(piece, 0, len(piece))
            if not self.out_of_order:
                self.out_of_order = None
            if piece is None:
                break

    def _deliver(self, memory: bytearray | bytes, start: int, end: int) -> None:
        self.rcv.nxt = seq.add(self.rcv.nxt, end - start)
        self.credit -= end - start
        self.events.append((What.DATA, self, memory, start, end))

    def _check_fin(self, now: float) -> None:
        """Take the host's FIN: step eight of segment arrival."""
        if self.peer_fin is None:
            return
        self.ack_due = True
        if self.peer_fin != self.rcv.nxt or self.state not in _AFTER_PEER_FIN:
            return
        self.rcv.nxt = self.rcv.edge = seq.add(self.rcv.nxt, 1)
        self.peer_fin = None
        self.events.append((What.FIN, self))
        self._enter(_AFTER_PEER_FIN[self.state])
        if self.state is S.TIME_WAIT:
            self.deadline = now + self.time_wait

    # Loss

    def _note_sacked(self, una: int, blocks: tuple[tuple[int, int], ...]) -> None:
        """Keep the host's SACK blocks, merged and sorted (RFC 6675, Update)."""
        snd = self.snd
        merged: list[tuple[int, int]] = []
        known = [
            (left, right)
            for left, right in (*(self.sacked or ()), *blocks)
            # In what is outstanding: anything else is old, reversed or forged.
            if seq.lt(una, right)
            and seq.lt(left, right)
            and seq.le(una, left)
            and seq.le(right, snd.nxt)
        ]
        for left, right in sorted(known, key=lambda block: seq.sub(block[0], una)):
            if merged and seq.le(left, merged[-1][1]):
                if seq.lt(merged[-1][1], right):
                    merged[-1] = (merged[-1][0], right)
            else:
                merged.append((left, right))
        self.sacked = merged or None

    def _count_duplicate(self) -> None:
        self.duplicates += 1
        if self.recover is not None:
            if self.sacked:
                self._resend_more()
        elif self.duplicates >= DUPLICATE_ACKS:
            self._start_recovery()

    def _start_recovery(self) -> None:
        self.recover = self.snd.nxt
        self.high_rxt = self.snd.una
        self._resend_more()

    def _go_on_recovering(self, seg_ack: int) -> None:
        assert self.recover is not None
        if seq.le(self.recover, seg_ack):
            self.recover = None
            self.sacked = None
        else:
            if seq.lt(self.high_rxt, seg_ack):
                self.high_rxt = seg_ack
            # A partial acknowledgment: what follows it is missing too (RFC 6582),
            # unless it is on its way again.
            if self.high_rxt == seg_ack or self.sacked:
                self._resend_more()

    def _resend_more(self) -> None:
        self.resend = True

    def _send_again(self, start: int) -> None:
        self.high_rxt = start
        self._resend_more()

    def _next_hole(self) -> tuple[int, int] | None:
        """Give the first stretch to send again: RFC 6675, NextSeg rule 1."""
        snd = self.snd
        left = self.high_rxt if seq.lt(snd.una, self.high_rxt) else snd.una
        limit = self.recover if self.recover is not None else snd.nxt
        for start, end in self.sacked or ():
            if seq.lt(left, start):
                return left, start
            if seq.lt(left, end):
                left = end
        if self.sacked and left != snd.una:
            return None  # nothing above the highest SACK is known to be lost
        return (left, limit) if seq.lt(left, limit) else None

    # What the cluster says

    def opened(self, credit: int) -> None:
        """The target took the connection: SYN-ACK.

        Args:
            credit: octets that the manager takes.
        """
        if self.state is not S.PENDING:
            return
        self._enter(S.SYN_RECEIVED)
        self.credit = credit
        self.snd.nxt = seq.add(self.snd.iss, 1)
        self.resend = True

    def grant(self, octets: int) -> None:
        """The manager takes so many octets more."""
        self.credit += octets

    def send(self, view: memoryview) -> None:
        """Send text to the host. The memory must stay as it is until it is ACKED."""
        if self.state is S.CLOSED:
            return
        if self.queue is None:
            self.queue = SendQueue()
        self.queue.append(view)

    def finish(self) -> None:
        """The cluster sends no more: FIN, behind what is queued."""
        if self.state is not S.CLOSED:
            self.fin_due = True

    def abort(self, out: list[list[Any]], now: float) -> None:
        """End the connection with a RST: section 3.10.5 (ABORT).

        What the host's window lets through goes first: it came before the reset.
        """
        if self.state not in (S.PENDING, S.TIME_WAIT, S.CLOSED):
            self.output(out, now)
            self._packet(out, self.snd.nxt, RST | ACK, [])
        self._enter(S.CLOSED)

    def discard(self) -> None:
        """End the connection without a word."""
        self._enter(S.CLOSED)

    # Packets to the host

    def output(self, out: list[list[Any]], now: float) -> None:
        """Append the packets that are due: lists of pieces of memory."""
        if self.state is S.CLOSED:
            return
        if self.resend:
            self._output_again(out, now)
        if self.rst_due is not None:
            self._packet(out, self.rst_due, RST, [])
            self.rst_due = None
        if self.probe_due and self.snd.wnd == 0:
            # An octet that was acknowledged long ago draws an ACK with the window
            # (section 3.8.6.1; Linux probes the same way).
            self._packet(out, seq.sub(self.snd.una, 1), ACK, [])
        if self.queue is not None or (self.fin_due and self.fin_seq is None):
            self._output_new(out, now)
        self.probe_due = False
        if self.ack_due or self._window_worth_saying():
            self._packet(out, self.snd.nxt, ACK, [])

    def _output_again(self, out: list[list[Any]], now: float) -> None:
        self.resend = False
        snd = self.snd
        self.timed_at = None  # Karn: what is sent twice measures nothing
        if self.state is S.SYN_RECEIVED:
            self._synchronize(out, now)
            self._set_timer(now)
            return
        hole = self._next_hole()
        if hole is None:
            return
        left, right = hole
        views: list[memoryview] = []
        if self.queue is not None:
            offset = seq.sub(left, snd.una)
            most = min(seq.sub(right, left), self._most())
            views = self.queue.peek(offset, most)
        length = sum(map(len, views))
        flags = PSH | ACK if length else ACK
        end = seq.add(left, length)
        if self.fin_seq == end:
            flags |= FIN
            end = seq.add(end, 1)
        if end == left:
            return
        self._packet(out, left, flags, views, length)
        self.high_rxt = end
        self._set_timer(now)

    def _output_new(self, out: list[list[Any]], now: float) -> None:
        """Send what the host's window lets through, and FIN behind the last of it."""
        if self.state not in _SENDS_TEXT or self.fin_seq is not None:
            return
        snd, queue = self.snd, self.queue
        left = 0
        if queue is not None:
            left = queue.size - queue.sent
            usable = snd.wnd - seq.sub(snd.nxt, snd.una)
            most = self._most()
            while left > 0 and usable > 0:
                # Sender's silly window avoidance, with its override: 3.8.6.2.1.
                if (
                    usable < left
                    and usable < min(snd.mss, snd.max_wnd // 2)
                    and not self.probe_due
                ):
                    break
                views = queue.take(min(left, usable, most))
                length = sum(map(len, views))
                left -= length
                usable -= length
                flags = ACK if left else PSH | ACK
                at = snd.nxt
                snd.nxt = seq.add(at, length)
                if not left and self.fin_due:
                    flags |= FIN
                    self._finish()
                if self.timed_at is None and self.recover is None:
                    self.timed_at, self.timed_seq = now, at
                self._packet(out, at, flags, views, length)
                self._set_timer(now, running=True)
        if not left and self.fin_due and self.fin_seq is None:
            at = snd.nxt
            self._finish()
            self._packet(out, at, FIN | ACK, [])
            self._set_timer(now, running=True)
        if left and snd.una == snd.nxt:
            self._set_timer(now, running=True)  # a closed window: probe it

    def _finish(self) -> None:
        snd = self.snd
        self.fin_seq = snd.nxt
        snd.nxt = seq.add(snd.nxt, 1)
        self._enter(_AFTER_OUR_FIN[self.state])

    def _most(self) -> int:
        """Octets of text in one packet; with offload the kernel cuts it by MSS."""
        return MAX_PIECE if self.vnet else self.snd.mss

    def _window_worth_saying(self) -> bool:
        """Receiver's silly window avoidance: section 3.8.6.2.2."""
        if self.state not in _TAKES_TEXT:
            return False
        rcv = self.rcv
        worth = min(self.receive_buffer // 2, 2 * self.mss)
        return self._room() - seq.sub(rcv.edge, rcv.nxt) >= worth

    def _room(self) -> int:
        """Octets worth saying of those that the manager takes.

        A window is said in units of 2**shift octets, so RCV.NXT moves by less than a
        unit and the edge would go back (RFC 7323, section 2.4). It is rounded up
        instead, out of a small part of the credit that is held back for this.
        """
        credit = min(self.credit, self.receive_buffer)
        return credit - credit // 16

    def _window(self) -> int:
        """Say RCV.WND; moves the edge, never back (section 3.8.6.2.2, SHLD-14)."""
        rcv = self.rcv
        said = seq.sub(rcv.edge, rcv.nxt)
        window = max(self._room() >> rcv.shift, -(-said >> rcv.shift))
        window = min(window, self.credit >> rcv.shift, 65_535)
        if window << rcv.shift > said:
            rcv.edge = seq.add(rcv.nxt, window << rcv.shift)
        return window

    def _synchronize(self, out: list[list[Any]], now: float) -> None:
        """SYN-ACK, with a window that is not scaled (RFC 7323, section 2.2)."""
        rcv, snd = self.rcv, self.snd
        window = min(self.credit, 65_535)
        rcv.edge = seq.add(rcv.nxt, window)
        options = wire.syn_options(self.mss, rcv.shift if self.scale else None, self.sack)
        if not self.timeouts:
            self.timed_at, self.timed_seq = now, snd.iss
        header = _fastpath.frame_tcp(
            self.key, snd.iss, rcv.nxt, SYN | ACK, window, options, 0, 0, 0, 0, self.vnet
        )
        out.append([header])
        self.ack_due = False

    def _packet(
        self,
        out: list[list[Any]],
        at: int,
        flags: int,
        views: list[memoryview],
        length: int = 0,
    ) -> None:
        options = b""
        if self.out_of_order is not None and self.sack:
            options = wire.sack_option(self.out_of_order.sack_blocks(4))
        mss = self.snd.mss
        total = 0
        if views and not self.vnet:
            text = b"".join(views)
            views = [memoryview(text)]
            total = _fastpath.sum16(text, 0)
        header = _fastpath.frame_tcp(
            self.key,
            at,
            self.rcv.nxt,
            flags,
            self._window(),
            options,
            length,
            total,
            0,
            mss if length > mss else 0,
            self.vnet,
        )
        out.append([header, *views])
        self.ack_due = False

    # Time

    def _set_timer(self, now: float, *, running: bool = False) -> None:
        """Start the retransmission timer (RFC 6298, section 5); not if it runs."""
        if running and self.deadline is not None:
            return
        if self.rtt is None:
            self.rtt = RoundTrip()
        self.deadline = now + self.rtt.rto

    def expire(self, now: float) -> None:
        """The deadline has come: probe, send again, give up, or end TIME-WAIT."""
        self.deadline = None
        if self.state in (S.TIME_WAIT, S.CLOSED):
            self._enter(S.CLOSED)
            return
        rtt = self.rtt
        assert rtt is not None
        snd = self.snd
        rtt.backoff += 1
        if snd.una == snd.nxt:
            # A closed or silly window. Never given up while somebody answers: who
            # does not read is not gone (section 3.8.6.1).
            self.probe_due = self.queue is not None
        self.timeouts += 1
        most = SYN_TIMEOUTS if self.state is S.SYN_RECEIVED else MAX_TIMEOUTS
        if self.timeouts > most:
            self._fail()
            return
        if self.probe_due:
            self._set_timer(now)
            return
        if snd.una == snd.nxt:
            return
        # RFC 6298, section 5.4: the earliest segment, and with it everything that was
        # SACKed is doubtful (RFC 2018, section 8).
        self.sacked = None
        self.recover = snd.nxt
        self._send_again(snd.una)

    # State

    def _fail(self) -> None:
        self.events.append((What.RESET, self))
        self._enter(S.CLOSED)

    def _enter(self, state: State) -> None:
        """Change state along an edge of figure 5, and only along one."""
        if state is self.state:
            return
        assert state in _EDGES[self.state], f"{self.state.value} -> {state.value}"
        self.state = state
        if state is S.CLOSED or state is S.TIME_WAIT:
            self.queue = self.out_of_order = self.sacked = None
            self.deadline = None
            self.resend = False


def _default_mss(key: bytes) -> int:
    """RFC 9293, section 3.7.1: 536 for IPv4, 1220 for IPv6."""
    return 536 if flow_key.version(key) == 4 else 1220


def _shift_for(octets: int) -> int:
    """Give the least window scale with which ``octets`` can be said."""
    shift = 0
    while shift < MAX_SHIFT and 65_535 << shift < octets:
        shift += 1
    return shift
