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
retransmission (RFC 6298), SACK both ways (RFC 2018) and recovery (:mod:`.recovery`).
``docs/tcp.md`` says what is done, what is left out, and why.
"""

from enum import Enum
from typing import Any

from tunstack import _fastpath
from tunstack.stack import seq
from tunstack.stack.common import MAX_OUT_OF_ORDER, Common
from tunstack.stack.events import What
from tunstack.stack.receive import OutOfOrder
from tunstack.stack.recovery import DUPLICATE_ACKS, Recovery
from tunstack.stack.rtt import PTO_MINIMUM, PTO_RECOVERY, RTO_FALLBACK, RoundTrip
from tunstack.stack.send import SendQueue
from tunstack.wire import key as flow_key
from tunstack.wire import tcp as wire
from tunstack.wire.record import MORE_OPTIONS, NO_OPTIONS, TIMESTAMPS, Record

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

MAX_PIECE = 65_000
"""Octets of text in one packet or event: with headers less than IP's 65 535."""

MAX_SHIFT = 14
"""RFC 7323, section 2.3."""

MAX_TIMEOUTS = 12
"""Retransmissions of one segment before the host is given up: RFC 9293, 3.8.3, R2."""

SYN_TIMEOUTS = 5
"""The same for our SYN-ACK, as Linux has it (tcp_synack_retries)."""

MINIMUM_MSS = 88
"""Less would be an attack: 48 octets of text and 40 of options (CVE-2019-11479)."""

CHALLENGE_INTERVAL = 0.5
"""Seconds between two answers to what may be forged (RFC 5961, section 7), for each
connection: a limit for all would tell one user of another (CVE-2016-5696). Linux has
the same (tcp_invalid_ratelimit)."""

ACK_DELAY = 0.004
"""Seconds that an ACK may wait for text to go with (RFC 9293, section 3.8.6.3): when
host and cluster speak by turns and the last answer came as soon, nearly all do, and are
one packet less each. The second segment without an answer between is acknowledged at
once, as is all else."""

KEEPALIVE_IDLE = 7200.0
"""Seconds of silence before the host is asked whether it is there (RFC 1122, 4.2.3.6)."""

KEEPALIVE_IDLE_FIN_WAIT_2 = 60.0
"""The same when only the host's FIN is missing. Linux forgets such a connection then
(tcp_fin_timeout), if nobody can read from it; here a half-closed one may last."""

KEEPALIVE_INTERVAL = 75.0
KEEPALIVE_PROBES = 9
"""As Linux has them: tcp_keepalive_intvl, tcp_keepalive_probes."""

_HALF = 1 << 31


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

    __hash__ = object.__hash__  # Enum's is by name, and a call


S = State

_ESTABLISHED, _CLOSED = S.ESTABLISHED, S.CLOSED
"""To name a member through its class is a call, too, in Python 3.11."""
_DATA, _ACKED = What.DATA, What.ACKED

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

_HALF_OPEN = {S.PENDING, S.SYN_RECEIVED}
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

    __slots__ = ("acked", "edge", "irs", "nxt", "shift", "ts_recent")

    def __init__(self, irs: int) -> None:
        self.irs = irs
        self.nxt = seq.add(irs, 1)
        self.edge = self.nxt
        self.acked = self.nxt
        """Last.ACK.sent (RFC 7323, section 4.3)."""
        self.ts_recent = 0
        self.shift = 0


class Connection:
    """The TCP machine of one connection.

    Args:
        key: flow key (37 octets) of the host's packets.
        irs, options, window: of the host's SYN.
        iss: initial send sequence number.
        ts_offset: of our timestamps, so that they tell nothing (RFC 7323, section 7.1).
        mss: what the device can carry.
        vnet: octets of virtio header, 10 or 0.
        receive_buffer: the most that RCV.WND opens to; decides the window scale.
        time_wait: seconds in TIME-WAIT.
        now: the time.
        common: of all connections of the stack.
    """

    __slots__ = (
        "ack_due",
        "answered",
        "armed_at",
        "asked",
        "asked_at",
        "challenged_at",
        "common",
        "context",
        "credit",
        "deadline",
        "early",
        "fin_due",
        "fin_seq",
        "form",
        "heard_at",
        "keepalive_due",
        "key",
        "mss",
        "out_of_order",
        "peer_fin",
        "probe_due",
        "probed",
        "queue",
        "rcv",
        "receive_buffer",
        "recovery",
        "resend",
        "rst_due",
        "rtt",
        "sack",
        "scale",
        "snd",
        "state",
        "syn",
        "time_wait",
        "timed_at",
        "timed_seq",
        "timeouts",
        "ts_offset",
        "vnet",
        "worth",
    )

    def __init__(
        self,
        key: bytes,
        *,
        irs: int,
        options: wire.Options,
        window: int,
        iss: int,
        ts_offset: int,
        mss: int,
        vnet: int,
        receive_buffer: int,
        time_wait: float,
        now: float,
        common: Common,
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
        self.form = NO_OPTIONS
        """The options that an ordinary segment of this connection has."""
        self.ts_offset = ts_offset
        if options.timestamps is not None:
            self.form = TIMESTAMPS
            self.rcv.ts_recent = options.timestamps[0]
        self.vnet = vnet
        self.receive_buffer = min(receive_buffer, 65_535 << self.rcv.shift)
        self.worth = min(self.receive_buffer // 2, 2 * mss)
        """Octets that a window has to open by to be said for its own sake."""
        self.time_wait = time_wait
        self.common = common
        self.syn: tuple[bytes, int] | None = None
        """The host's SYN, to be quoted, and the octets of text on it; while PENDING."""
        self.credit = 0
        """Octets that the manager takes from here on."""
        self.context: Any = None
        """Belongs to whoever serves the connection."""
        self.queue: SendQueue | None = None
        self.out_of_order: OutOfOrder | None = None
        self.peer_fin: int | None = None
        """Sequence number of a FIN that came before what precedes it."""
        self.ack_due = False
        self.answered = False
        """Text has been sent since the last came, and soon enough to go with an ACK."""
        self.early = 0
        """Segments of this turn that came before what precedes them."""
        self.probe_due = False
        self.keepalive_due = False
        self.fin_due = False
        """The cluster has finished: FIN goes behind the last of the queue."""
        self.fin_seq: int | None = None
        self.recovery: Recovery | None = None
        self.resend = False
        self.rst_due: int | None = None
        """Sequence number of a RST that answers an ACK of nothing we sent."""
        self.rtt: RoundTrip | None = None
        self.timeouts = 0
        """Times the timer has gone off since the host last said anything."""
        self.probed = False
        """The probe time-out has passed since SND.UNA moved; what follows is RTO."""
        self.timed_seq = 0
        self.timed_at: float | None = None
        self.challenged_at = -CHALLENGE_INTERVAL
        self.heard_at = now
        self.asked_at = now
        self.asked = 0
        """Keep-alive probes since the host was last heard."""
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
        seg_seq, seg_ack, _, _, start, end, window, _, _, flags, form, _, tsval = segment
        rcv, snd = self.rcv, self.snd
        length = end - start
        self.heard_at = now
        if (
            self.state is _ESTABLISHED
            and flags & ~PSH == ACK
            and seg_seq == rcv.nxt
            and form == self.form
            and self.out_of_order is None
            and self.peer_fin is None
            and length <= (rcv.edge - seg_seq) & seq.MASK
            and (form == NO_OPTIONS or (tsval - rcv.ts_recent) & seq.MASK < _HALF)
        ):
            advance = (seg_ack - snd.una) & seq.MASK
            if advance <= (snd.nxt - snd.una) & seq.MASK:
                window <<= snd.shift
                if seg_seq == rcv.acked:
                    rcv.ts_recent = tsval
                if advance and self.recovery is None:
                    self._advance(seg_ack, now)
                    snd.wnd, snd.wl1, snd.wl2 = window, seg_seq, seg_ack
                    if window > snd.max_wnd:
                        snd.max_wnd = window
                elif advance or not length or window != snd.wnd:
                    self._check_ack(seg_seq, seg_ack, window, length, (), now)
                else:
                    snd.wl1, snd.wl2 = seg_seq, seg_ack
                if length:
                    rcv.nxt = (seg_seq + length) & seq.MASK
                    self.credit -= length
                    self.common.events.append((_DATA, self, memory, start, end))
                    if self.answered and length < self.mss:
                        self.answered = False
                        self.common.delayed.members.setdefault(self, now + ACK_DELAY)
                    else:
                        self.ack_due = True
                return
        self._arrive(segment, memory, now)

    def _arrive(self, segment: Record, memory: bytearray | bytes, now: float) -> None:
        seg_seq, seg_ack, _, at, start, end, window, _, _, flags, form, _, tsval = segment
        rcv, snd = self.rcv, self.snd
        if self.state is _CLOSED:
            return  # by an earlier segment of the same turn
        if self.state is S.PENDING:
            self._arrive_pending(seg_seq, flags)
            return
        if self.state is S.SYN_RECEIVED:
            if flags & (SYN | ACK | RST) == SYN and seg_seq == rcv.irs:
                self.resend = True  # our SYN-ACK was lost
                return
            if flags & (ACK | RST) == ACK and seg_ack != snd.nxt:
                self.rst_due = seg_ack  # section 3.5.2, the second group
                return
        options = _NONE
        if form == MORE_OPTIONS:
            options = wire.parse_options(memoryview(memory)[at:start])
            if options.timestamps is not None:
                form, tsval = TIMESTAMPS, options.timestamps[0]
        stamped = form == TIMESTAMPS == self.form
        # First, check the sequence number; before it, PAWS: RFC 7323, section 5.3.
        if (stamped and not flags & RST and seq.lt(tsval, rcv.ts_recent)) or (
            not self._acceptable(seg_seq, end - start, flags)
        ):
            if flags & RST:
                return
            if (end > start or flags & FIN) and not flags & SYN:
                self.ack_due = True  # a retransmission: the host has to learn
            else:
                self._challenge(now)
            if flags & FIN and self.state is S.TIME_WAIT:
                self._enter(S.TIME_WAIT, now)  # anew: our last ACK was lost
            return
        # Second, check the RST bit: RFC 5961, section 3.2.
        if flags & RST:
            if seg_seq == rcv.nxt:
                self._fail()
            else:
                self._challenge(now)
            return
        # Fourth, check the SYN bit: RFC 5961, section 4.2.
        if flags & SYN:
            self._challenge(now)
            return
        # Fifth, check the ACK field.
        if not flags & ACK:
            return
        if stamped and seq.le(seg_seq, rcv.acked):
            rcv.ts_recent = tsval
        if self.state is S.SYN_RECEIVED:
            self._establish(now)
        if not self._check_ack(
            seg_seq, seg_ack, window << snd.shift, end - start, options.sack, now
        ):
            return
        # Seventh, process the segment text; eighth, check the FIN bit.
        fin = seq.add(seg_seq, end - start)
        if flags & FIN and seq.le(fin, rcv.edge):
            self.peer_fin = fin
        if end > start and self.state in _TAKES_TEXT:
            self._take_text(seg_seq, memory, start, end)
        elif end > start or flags & FIN:
            self.ack_due = True
        self._check_fin(now)

    def _arrive_pending(self, seg_seq: int, flags: int) -> None:
        """The target has not answered: only a RST of the very SYN changes anything."""
        if flags & RST and seg_seq == self.rcv.nxt:
            self._fail()

    def _acceptable(self, seg_seq: int, text: int, flags: int) -> bool:
        """RFC 9293, table 6; a FIN takes one number but no room in the window.

        What begins at RCV.NXT is, even when the window is closed: its ACK and RST count
        (section 3.10.7.4), and text is cut to the window.
        """
        rcv = self.rcv
        if seg_seq == rcv.nxt:
            return True
        wnd = seq.sub(rcv.edge, rcv.nxt)
        if seq.sub(seg_seq, rcv.nxt) < wnd:
            return True
        length = text + (flags & FIN)
        if flags & RST or not length:
            return False
        return seq.sub(seq.add(seg_seq, length - 1), rcv.nxt) < wnd

    def _challenge(self, now: float) -> None:
        """Say where we are, as the segment may be forged: RFC 5961, section 7."""
        if now - self.challenged_at >= CHALLENGE_INTERVAL:
            self.challenged_at = now
            self.ack_due = True

    def _establish(self, now: float) -> None:
        """SYN-RECEIVED: our SYN has been acknowledged."""
        self.rtt = RoundTrip()
        if self.timed_at is not None:
            self.rtt.sample(now - self.timed_at)
            self.timed_at = None
        elif self.timeouts:
            self.rtt.initial = RTO_FALLBACK
        self.snd.una = self.snd.nxt
        self.timeouts = 0
        self.probed = False
        self.deadline = None
        self._enter(S.ESTABLISHED)

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
        if seq.sub(seg_ack, snd.una) > seq.sub(snd.nxt, snd.una):
            if seq.sub(snd.una, seg_ack) <= snd.max_wnd:
                return True  # an old one
            # Of something not sent yet, or too old to come from this connection: RFC
            # 5961, section 5.2.
            self._challenge(now)
            return False
        self.timeouts = 0
        news = False
        if blocks and self.sack and seg_ack != snd.nxt:
            news = self._suspect().note(seg_ack, snd.nxt, blocks)
        advance = seg_ack != snd.una
        if advance:
            self._advance(seg_ack, now)
        elif news or (length == 0 and window == snd.wnd and seg_ack != snd.nxt):
            self._suspect().duplicates += 1
        if self.recovery is not None:
            self._recover()
        # What moves SND.UNA says the window of now, even when it fills a hole and so has
        # a lower number than what came before it; Linux has it so, too.
        if (
            advance
            or seq.lt(snd.wl1, seg_seq)
            or (snd.wl1 == seg_seq and seq.le(snd.wl2, seg_ack))
        ):
            opens = window and not snd.wnd and self.state is not S.TIME_WAIT
            if opens:
                assert self.rtt is not None
                self.rtt.backoff = 0  # no more probes
                self.deadline = None
                if snd.una != snd.nxt:
                    # It had shrunk: what was beyond it is missing.
                    self._time_out()
            snd.wnd, snd.wl1, snd.wl2 = window, seg_seq, seg_ack
            snd.max_wnd = max(snd.max_wnd, window)
        return True

    def _advance(self, seg_ack: int, now: float) -> None:
        """SND.UNA moves: forget what has arrived, measure, set the timer."""
        snd = self.snd
        octets = (seg_ack - snd.una) & seq.MASK
        rtt = self.rtt
        assert rtt is not None
        if self.timed_at is not None and seq.lt(self.timed_seq, seg_ack):
            rtt.sample(now - self.timed_at)
            self.timed_at = None
        # RFC 6298, section 5.7, keeps the back-off until something is measured. Under heavy
        # loss that is never, so one doubling is enough once something has arrived.
        if rtt.backoff > 1:
            rtt.backoff = 1
        self.timeouts = 0
        self.probed = False
        snd.una = seg_ack
        if self.recovery is not None and self.recovery.advance(seg_ack, octets):
            self.recovery = None
        fin_acked = self.fin_seq is not None and seq.lt(self.fin_seq, seg_ack)
        if fin_acked:
            octets -= 1
        if octets:
            queue = self.queue
            assert queue is not None
            if octets == queue.size:
                self.queue = None
            else:
                queue.acknowledge(octets)
            self.common.events.append((_ACKED, self, octets))
        self.deadline = None
        if seg_ack != snd.nxt:
            self._set_timer(now)
        if fin_acked:
            self.fin_seq = None
            self._enter(_AFTER_FIN_ACKED[self.state], now)

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
            self._keep(seg_seq, memoryview(memory)[start:end])
            return
        self._deliver(memory, start, end)
        while self.out_of_order is not None:
            held = self.out_of_order.octets
            piece = self.out_of_order.pop(rcv.nxt)
            self.common.out_of_order += self.out_of_order.octets - held
            if piece is not None:
                for at in range(0, len(piece), MAX_PIECE):
                    self._deliver(piece, at, min(at + MAX_PIECE, len(piece)))
            if not self.out_of_order:
                self.out_of_order = None
            if piece is None:
                break

    def _keep(self, seg_seq: int, text: memoryview) -> None:
        """Hold text until what precedes it has come, within limits."""
        common = self.common
        self.early += 1
        if self.out_of_order is None:
            self.out_of_order = OutOfOrder()
        held = self.out_of_order.octets
        if common.out_of_order + len(text) > MAX_OUT_OF_ORDER or not (
            self.out_of_order.insert(self.rcv.nxt, seg_seq, text)
        ):
            common.drops["out-of-order-limit"] += 1
        common.out_of_order += self.out_of_order.octets - held
        if not self.out_of_order:
            self.out_of_order = None

    def _forget_early(self) -> None:
        if self.out_of_order is not None:
            self.common.out_of_order -= self.out_of_order.octets
            self.out_of_order = None

    def _deliver(self, memory: bytearray | bytes, start: int, end: int) -> None:
        self.rcv.nxt = seq.add(self.rcv.nxt, end - start)
        self.credit -= end - start
        self.common.events.append((What.DATA, self, memory, start, end))

    def _check_fin(self, now: float) -> None:
        """Take the host's FIN: step eight of segment arrival."""
        if self.peer_fin is None:
            return
        self.ack_due = True
        if self.peer_fin != self.rcv.nxt or self.state not in _AFTER_PEER_FIN:
            return
        self.rcv.nxt = self.rcv.edge = seq.add(self.rcv.nxt, 1)
        self.peer_fin = None
        self._forget_early()  # nothing comes behind a FIN
        self.common.events.append((What.FIN, self))
        self._enter(_AFTER_PEER_FIN[self.state], now)

    # Loss

    def _suspect(self) -> Recovery:
        """Something may be lost: give the scoreboard."""
        if self.recovery is None:
            self.recovery = Recovery()
        return self.recovery

    def _recover(self) -> None:
        """An acknowledgment has come while something may be lost."""
        recovery, snd = self.recovery, self.snd
        assert recovery is not None
        if recovery.point is None:
            if not recovery.shows_loss(snd.mss):
                return
            recovery.begin(snd.una, snd.nxt)
        else:
            recovery.look_again(snd.una, snd.nxt, snd.mss)
        self.resend = True

    def _time_out(self) -> None:
        """Send again from SND.UNA on (RFC 6298, section 5.4)."""
        self._send_again(self._most(b""))

    def _send_again(self, allowed: int) -> None:
        """Send again what is not acknowledged, ``allowed`` octets to begin with."""
        self._suspect().time_out(self.snd.una, self.snd.nxt, allowed)
        self.resend = True

    def shrink(self, mss: int, seg_seq: int) -> bool:
        """A router on the way could not pass on a segment (RFC 1191, RFC 8201).

        Args:
            mss: what would have fitted.
            seg_seq: sequence number of the segment, to be believed only when it is on
                its way (RFC 5927, section 4.1).

        Returns whether anything changed.
        """
        snd = self.snd
        if seq.sub(seg_seq, snd.una) >= seq.sub(snd.nxt, snd.una) or mss >= snd.mss:
            return False
        snd.mss = max(MINIMUM_MSS, mss)
        if self.state is not S.SYN_RECEIVED:
            self._send_again(snd.wnd)  # it was no congestion
        return True

    # What the cluster says

    def opened(self, credit: int) -> None:
        """The target took the connection: SYN-ACK.

        Args:
            credit: octets that the manager takes.
        """
        if self.state is not S.PENDING:
            return
        self.syn = None
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
            self._packet(out, self.snd.nxt, RST | ACK, [], self._options(now))
        self._enter(S.CLOSED)

    def discard(self) -> None:
        """End the connection without a word."""
        self._enter(S.CLOSED)

    # Packets to the host

    def output(self, out: list[list[Any]], now: float) -> None:
        """Append the packets that are due: lists of pieces of memory."""
        if self.state is _CLOSED:
            return
        if self.rst_due is not None:
            # What acknowledges nothing we sent: <SEQ=SEG.ACK><CTL=RST>.
            out.append([reset_header(self.key, self.rst_due, 0, RST, self.vnet)])
            self.rst_due = None
        if self.resend and self.state is S.SYN_RECEIVED:
            self.resend = False
            self._synchronize(out, now)
            return
        if not self._anything_due():
            return
        options = self._options(now)
        if self.resend:
            self._output_again(out, options, now)
        if self.keepalive_due or (self.probe_due and self.snd.wnd == 0):
            # An octet that was acknowledged long ago draws an ACK with the window
            # (section 3.8.6.1, RFC 1122 section 4.2.3.6; Linux probes the same way).
            self._packet(out, seq.sub(self.snd.una, 1), ACK, [], options)
        if self.queue is not None or (self.fin_due and self.fin_seq is None):
            self._output_new(out, options, now)
        self.probe_due = self.keepalive_due = False
        if self.early > 1 and self.out_of_order is not None:
            self._acknowledge_early(out, now)
        self.early = 0
        if self.ack_due or self._window_worth_saying():
            self._packet(out, self.snd.nxt, ACK, [], options)

    def _anything_due(self) -> bool:
        queue = self.queue
        return (
            (queue is not None and queue.sent < queue.size)
            or self.ack_due
            or self.fin_due
            or self.resend
            or self.probe_due
            or self.keepalive_due
            or self.early > 0
            or self._window_worth_saying()
        )

    def _acknowledge_early(self, out: list[list[Any]], now: float) -> None:
        """Send all but the last of the ACKs that a turn of early segments is owed.

        RFC 5681, section 4.2, wants one for each, at once. Three are enough to be
        understood, and so many as say each block once (RFC 2018, section 4).
        """
        assert self.out_of_order is not None
        owed = min(self.early, max(DUPLICATE_ACKS, len(self.out_of_order)))
        for skip in range(owed - 1, 0, -1):
            options = self._options(now, min(skip, len(self.out_of_order) - 1))
            self._packet(out, self.snd.nxt, ACK, [], options)
        self.ack_due = True

    def _output_again(self, out: list[list[Any]], options: bytes, now: float) -> None:
        """Send what is missing: all that is known to be, or as much as is allowed."""
        self.resend = False
        snd, recovery = self.snd, self.recovery
        if recovery is None:
            return
        # What was beyond a window that shrank may wait (section 3.8.6, SHLD-16); in one
        # that is closed one segment is the probe (MUST-34).
        edge = seq.add(snd.una, snd.wnd or snd.mss)
        pieces: list[tuple[int, int, list[memoryview], int]] = []
        while (hole := recovery.next_hole(snd.una)) is not None:
            left, right = hole
            if recovery.allowed is not None and (
                seq.sub(left, snd.una) >= recovery.allowed
            ):
                break
            views: list[memoryview] = []
            if self.queue is not None and seq.lt(left, edge):
                right = min(right, edge, key=lambda at: seq.sub(at, left))
                offset = seq.sub(left, snd.una)
                most = min(seq.sub(right, left), self._most(options))
                views = self.queue.peek(offset, most)
            length = sum(map(len, views))
            end = seq.add(left, length)
            flags = ACK
            if self.fin_seq == end:
                flags |= FIN
                end = seq.add(end, 1)
            if end == left:
                break
            pieces.append((left, flags, views, length))
            recovery.high_rxt = end
        for number, (left, flags, views, length) in enumerate(pieces, 1):
            if length and (
                number == len(pieces) or pieces[number][0] != seq.add(left, length)
            ):
                flags |= PSH
            self._packet(out, left, flags, views, options, length)
        if pieces:
            self.timed_at = None  # Karn: what is sent twice measures nothing
            self._set_timer(now)

    def _output_new(self, out: list[list[Any]], options: bytes, now: float) -> None:
        """Send what the host's window lets through, and FIN behind the last of it."""
        if self.state not in _SENDS_TEXT or self.fin_seq is not None:
            return
        snd, queue = self.snd, self.queue
        left = 0
        if queue is not None:
            left = queue.size - queue.sent
            usable = snd.wnd - ((snd.nxt - snd.una) & seq.MASK)
            most = self._most(options)
            while left > 0 and usable > 0:
                # Sender's silly window avoidance, with its override: 3.8.6.2.1.
                if (
                    usable < left
                    and usable < min(snd.mss - len(options), snd.max_wnd // 2)
                    and not self.probe_due
                ):
                    break
                sent = queue.sent
                views = queue.take(min(left, usable, most))
                length = queue.sent - sent
                left -= length
                usable -= length
                flags = ACK if left else PSH | ACK
                at = snd.nxt
                snd.nxt = (at + length) & seq.MASK
                if not left and self.fin_due:
                    flags |= FIN
                    self._finish()
                if self.timed_at is None and self.recovery is None:
                    self.timed_at, self.timed_seq = now, at
                self._packet(out, at, flags, views, options, length)
                self.answered = now - self.heard_at < ACK_DELAY
                if self.deadline is None:
                    self._set_timer(now)
        if not left and self.fin_due and self.fin_seq is None:
            at = snd.nxt
            self._finish()
            self._packet(out, at, FIN | ACK, [], options)
            self._set_timer(now, running=True)
        if left and snd.una == snd.nxt:
            self._set_timer(now, running=True)  # a closed window: probe it

    def _finish(self) -> None:
        snd = self.snd
        self.fin_seq = snd.nxt
        snd.nxt = seq.add(snd.nxt, 1)
        self._enter(_AFTER_OUR_FIN[self.state])

    def _most(self, options: bytes) -> int:
        """Octets of text in one packet; with offload the kernel cuts it by MSS.

        MSS does not count options, and makes room for them (RFC 6691).
        """
        return MAX_PIECE if self.vnet else self.snd.mss - len(options)

    def _options(self, now: float, skip: int = 0) -> bytes:
        """Timestamps and SACK blocks, without the ``skip`` latest, of a segment."""
        options, most = b"", 4
        if self.form == TIMESTAMPS:
            options, most = wire.timestamps_option(*self._timestamps(now)), 3
        if self.out_of_order is not None and self.sack:
            options += wire.sack_option(self.out_of_order.sack_blocks(most, skip))
        return options

    def _timestamps(self, now: float) -> tuple[int, int]:
        """Give TSval and TSecr (RFC 7323, sections 4 and 5.4)."""
        return (int(now * 1000) + self.ts_offset) & seq.MASK, self.rcv.ts_recent

    def _window_worth_saying(self) -> bool:
        """Receiver's silly window avoidance: section 3.8.6.2.2."""
        if self.state not in _TAKES_TEXT:
            return False
        rcv = self.rcv
        return self._room() - ((rcv.edge - rcv.nxt) & seq.MASK) >= self.worth

    def _room(self) -> int:
        """Octets worth saying of those that the manager takes.

        A window is said in units of 2**shift octets, so RCV.NXT moves by less than a
        unit and the edge would go back (RFC 7323, section 2.4). It is rounded up
        instead, out of a small part of the credit that is held back for this.
        """
        credit = self.credit
        if credit > self.receive_buffer:
            credit = self.receive_buffer
        return credit - credit // 16

    def _window(self) -> int:
        """Say RCV.WND; moves the edge, never back (section 3.8.6.2.2, SHLD-14)."""
        rcv = self.rcv
        shift = rcv.shift
        said = (rcv.edge - rcv.nxt) & seq.MASK
        window = max(self._room() >> shift, -(-said >> shift))
        window = min(window, self.credit >> shift, 65_535)
        if window << shift > said:
            rcv.edge = (rcv.nxt + (window << shift)) & seq.MASK
        return window

    def _synchronize(self, out: list[list[Any]], now: float) -> None:
        """SYN-ACK, with a window that is not scaled (RFC 7323, section 2.2)."""
        rcv, snd = self.rcv, self.snd
        window = min(self.credit, 65_535)
        if window > seq.sub(rcv.edge, rcv.nxt):
            rcv.edge = seq.add(rcv.nxt, window)
        timestamps = self._timestamps(now) if self.form == TIMESTAMPS else None
        shift = rcv.shift if self.scale else None
        options = wire.syn_options(self.mss, shift, self.sack, timestamps)
        first = self.deadline is None and not self.timeouts
        self.timed_at, self.timed_seq = (now if first else None), snd.iss
        header = _fastpath.frame_tcp(
            self.key, snd.iss, rcv.nxt, SYN | ACK, window, options, 0, 0, 0, 0, self.vnet
        )
        out.append([header])
        self.ack_due = False
        self._set_timer(now, running=True)

    def _packet(
        self,
        out: list[list[Any]],
        at: int,
        flags: int,
        views: list[memoryview],
        options: bytes,
        length: int = 0,
    ) -> None:
        mss = self.snd.mss - len(options)
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
        self.rcv.acked = self.rcv.nxt
        self.ack_due = False

    # Time

    def _set_timer(self, now: float, *, running: bool = False) -> None:
        """Start the retransmission timer (RFC 6298, section 5); not if it runs.

        Before it goes off, once, the probe time-out of RFC 8985 does. Not for a single
        segment, as its acknowledgment may be delayed.
        """
        if running and self.deadline is not None:
            return
        rtt, snd = self.rtt, self.snd
        if rtt is None:
            rtt = self.rtt = RoundTrip()
        pto = None
        if not self.probed and self.sack and seq.sub(snd.nxt, snd.una) > snd.mss:
            pto = rtt.pto(PTO_MINIMUM if self.recovery is None else PTO_RECOVERY)
        self.deadline = now + (rtt.rto if pto is None else pto)
        self.probed = pto is None

    def expire(self, now: float) -> None:
        """The deadline has come: probe, send again, or give up."""
        self.deadline = None
        rtt, snd = self.rtt, self.snd
        assert rtt is not None
        if not self.probed and snd.una != snd.nxt:
            # The last of what was sent may be lost, or what was sent again, and then
            # nothing tells: RFC 8985, section 7.3, with the first segment that is
            # missing, as there is no cwnd that a spurious one could hurt.
            self.probed = True
            self._time_out()
            return
        rtt.backoff += 1
        self.timeouts += 1
        most = SYN_TIMEOUTS if self.state is S.SYN_RECEIVED else MAX_TIMEOUTS
        if self.timeouts > most:
            self._fail()
        elif self.state is S.SYN_RECEIVED:
            self.resend = True
        elif snd.una == snd.nxt:
            # A closed or silly window. Never given up while somebody answers: who does
            # not read is not gone (section 3.8.6.1).
            self.probe_due = True
            self._set_timer(now)
        else:
            # What was SACKed is doubtful, too (RFC 2018, section 8).
            self.recovery = None
            self._time_out()

    def check_alive(self, now: float) -> None:
        """Ask a host that has been silent for long whether it is there.

        RFC 1122, section 4.2.3.6. Its kernel never goes without a word, but the
        namespace it was in may, or the container it is forwarded for.
        """
        if self.state in _HALF_OPEN or self.state is S.TIME_WAIT or self.deadline:
            return
        if self.heard_at >= self.asked_at:
            self.asked = 0
        idle = KEEPALIVE_IDLE
        if self.state is S.FIN_WAIT_2:
            idle = KEEPALIVE_IDLE_FIN_WAIT_2
        if now < self.heard_at + idle or now < self.asked_at + KEEPALIVE_INTERVAL:
            return
        if self.asked == KEEPALIVE_PROBES:
            self._fail()
            return
        self.asked += 1
        self.asked_at = now
        self.keepalive_due = True

    # State

    def _fail(self) -> None:
        """The host is gone, or wants no more."""
        self.common.events.append((What.RESET, self))
        self._enter(S.CLOSED)

    def _enter(self, state: State, now: float = 0.0) -> None:
        """Change state along an edge of figure 5, and only along one.

        Args:
            state: the new one.
            now: the time; TIME-WAIT begins then, or begins again.
        """
        if state is S.TIME_WAIT:
            self.common.time_wait.members[self] = now + self.time_wait
            self.common.time_wait.members.move_to_end(self)
        if state is self.state:
            return
        assert state in _EDGES[self.state], f"{self.state.value} -> {state.value}"
        common = self.common
        if self.state in _HALF_OPEN and state not in _HALF_OPEN:
            common.half_open -= 1
        elif self.state is S.TIME_WAIT:
            common.time_wait.members.pop(self, None)
        self.state = state
        if state is S.CLOSED or state is S.TIME_WAIT:
            self._forget_early()
            self.queue = self.recovery = self.syn = None
            self.deadline = None
            self.resend = False


_NONE = wire.Options()


def reset_header(key: bytes, at: int, ack: int, flags: int, vnet: int) -> bytes:
    """Build a RST of no connection (RFC 9293, section 3.10.7.1).

    Args:
        key: flow key of what it answers.
        at, ack: its sequence and acknowledgment number.
        flags: RST, or RST and ACK.
        vnet: octets of virtio header, 10 or 0.
    """
    return _fastpath.frame_tcp(key, at, ack, flags, 0, b"", 0, 0, 0, 0, vnet)


def _default_mss(key: bytes) -> int:
    """RFC 9293, section 3.7.1: 536 for IPv4, 1220 for IPv6."""
    return 536 if flow_key.version(key) == 4 else 1220


def _shift_for(octets: int) -> int:
    """Give the least window scale with which ``octets`` can be said."""
    shift = 0
    while shift < MAX_SHIFT and 65_535 << shift < octets:
        shift += 1
    return shift
