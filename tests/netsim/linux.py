"""A host that behaves as Linux does where it matters to throughput.

It opens the connection, sends from a scoreboard (RFC 6675, what is lost told by the
order of sending as in RFC 8985), under NewReno's window (RFC 5681, initial window of
RFC 6928), with a tail loss probe and a least RTO of 0.2 s. As a receiver it has a buffer
and somebody who reads it, SACK (RFC 2018), and delays ACKs by 40 ms at most.

Like the stack it is a machine: packets and the time in, packets and one deadline out.
Positions in the streams are plain integers; the SYN is at 0. Text is a known pattern, so
what arrives is compared and not kept.
"""

import math
from dataclasses import dataclass
from random import Random

from tests.support.host import ACK, PSH, RST, SYN, make_segment
from tunstack import _fastpath
from tunstack.wire import tcp

ISN = 0xFFFF_0000
"""Soon wraps."""

MSS = 1460
"""Octets in a segment without options: an Ethernet's."""

WINDOW_SCALE = 7
INITIAL_WINDOW = 10
DUPLICATES = 3
RTO_MINIMUM = 0.2
RTO_INITIAL = 1.0
PROBE_MINIMUM = 0.01
DELAYED_ACK = 0.04
LARGEST = 44 * MSS
"""Octets of text in one packet with offload."""

_PERIOD = 1_048_573  # a prime, so that no power of two hides a shift
_PATTERN = 4 * Random(0).randbytes(_PERIOD)


def text(at: int, length: int) -> bytes:
    """Give at most 3 MB of the stream from position ``at`` on."""
    at %= _PERIOD
    return _PATTERN[at : at + length]


@dataclass(slots=True)
class Sent:
    """A stretch of text that is not acknowledged yet."""

    start: int
    end: int
    order: int
    at: float
    again: bool = False
    sacked: bool = False
    lost: bool = False


class Linux:
    """One end of one TCP connection.

    Args:
        key: flow key of the packets it sends.
        octets: to send.
        buffer: octets that wait for the reader at most.
        speed: octets per second that are read; without it, all at once.
        vnet: octets of virtio header before each packet: with 10, packets are large.
    """

    def __init__(
        self,
        key: bytes,
        *,
        octets: int,
        buffer: int,
        speed: float | None = None,
        vnet: int = 0,
    ) -> None:
        self.key = key
        self.vnet = vnet
        self.open = False
        # As a sender.
        self.mss = MSS
        self.una = self.nxt = 0
        self.end = 1 + octets
        self.wnd = 0
        self.peer_shift = 0
        self.cwnd = self.ssthresh = math.inf
        self.recover = 0
        self.after_timeout = False
        self._board: list[Sent] = []
        self._pipe = 0
        self._order = 0
        self._delivered = -1
        self._srtt: float | None = None
        self._var = 0.0
        self._backoff = 0
        self._probed = False
        self._timer: float | None = None
        # As a receiver.
        self.irs = 0
        self.rcv_nxt = 0
        self._ranges: list[tuple[int, int]] = []
        self._latest = 0
        self._buffer = buffer
        self._speed = speed
        self._read = 1.0
        self._read_at = 0.0
        self._edge = 0
        self._unacked = 0
        self._ack_at: float | None = None
        # Options.
        self.sack = self.timestamps = False
        self._echo = 0
        self._out: list[bytes] = []

    # In

    @property
    def arrived(self) -> int:
        """Octets received in order."""
        return max(self.rcv_nxt - 1, 0)

    def connect(self, now: float) -> None:
        """Send the SYN."""
        options = tcp.syn_options(MSS, WINDOW_SCALE, True, (_milliseconds(now), 0))
        self._packet(0, SYN, b"", options, min(self._buffer, 65_535))
        self._timer = now + RTO_INITIAL

    def receive(self, packet: bytes, now: float) -> None:
        """Take one packet."""
        (record,) = _fastpath.parse_batch(packet, len(packet), [len(packet)], self.vnet)
        seg_seq, seg_ack, _, options, start, end, window, _, verdict, flags = record[:10]
        assert verdict == 0, f"the stack made a packet with verdict {verdict}"
        assert not flags & RST, "the stack reset the connection"
        said = tcp.parse_options(packet[options:start])
        if said.timestamps is not None:
            self._echo = said.timestamps[0]
        if flags & SYN:
            if not self.open:
                self._establish(seg_seq, window, said, now)
            self._acknowledge(now)
            return
        seq = self._near(seg_seq - self.irs, self.rcv_nxt)
        ack = self._near(seg_ack - ISN, self.una)
        self._read_on(now)
        self.wnd = max(ack + (window << self.peer_shift), self.wnd)
        self._take_ack(ack, said.sack, now)
        if end > start:
            assert packet[start:end] == text(seq, end - start), "the text is not the text"
            self._take_text(seq, seq + end - start, now)

    def expire(self, now: float) -> None:
        """Let the timers go off that are due."""
        self._read_on(now)
        if self._ack_at is not None and self._ack_at <= now:
            self._acknowledge(now)
        if self._timer is None or self._timer > now:
            return
        self._timer = None
        if not self.open:
            self.connect(now)
        elif not self._board:
            # A closed window: an old octet draws an ACK.
            self._segment(self.una - 1, b"", now)
            self._backoff += 1
            self._timer = now + self._rto()
        elif not self._probed and not self.recover:
            self._probe(now)
        else:
            self._time_out(now)

    def deadline(self) -> float | None:
        """Give the time by which :meth:`expire` wants to be called."""
        return min(
            (at for at in (self._timer, self._ack_at) if at is not None), default=None
        )

    # Out

    def output(self, now: float) -> list[bytes]:
        """Give the packets that are due."""
        if self.open:
            self._send_more(now)
        out, self._out = self._out, []
        return out

    def _establish(self, seg_seq: int, window: int, said: tcp.Options, now: float) -> None:
        self.open = True
        self.peer_shift = said.window_scale or 0
        self.sack = said.sack_permitted
        self.timestamps = said.timestamps is not None
        self.irs = seg_seq
        self.una = self.nxt = self.rcv_nxt = 1
        self._edge = 1 + self._buffer
        self.wnd = 1 + window
        self.mss = MSS - 12 * self.timestamps
        self.cwnd = INITIAL_WINDOW * self.mss
        self._read_at = now
        self._timer = None

    # As a sender

    def _take_ack(self, ack: int, blocks: tuple[tuple[int, int], ...], now: float) -> None:
        board = self._board
        acked = ack - self.una
        if acked < 0 or ack > self.nxt:
            return
        newest: Sent | None = None
        while board and board[0].end <= ack:
            sent = board.pop(0)
            newest = self._deliver(sent, newest)
        if board and board[0].start < ack:
            if not (board[0].sacked or board[0].lost):
                self._pipe -= ack - board[0].start
            board[0].start = ack
        for left, right in blocks:
            left, right = self._near(left - ISN, ack), self._near(right - ISN, ack)
            for sent in board:
                if sent.start >= right:
                    break
                if not sent.sacked and left <= sent.start and sent.end <= right:
                    newest = self._deliver(sent, newest)
                    sent.sacked, sent.lost = True, False
        self.una = ack
        if newest is not None:
            self._backoff = 0
            self._delivered = max(self._delivered, newest.order)
            if not newest.again:
                self._sample(now - newest.at)
        if self.recover and ack >= self.recover:
            self.recover, self.after_timeout = 0, False
        self._find_lost()
        if acked:
            self._probed = False
            self._backoff = 0
            if not self.recover or self.after_timeout:
                self._grow(acked)
            self._arm(now)

    def _deliver(self, sent: Sent, newest: Sent | None) -> Sent | None:
        if sent.sacked:
            return newest
        if not sent.lost:
            self._pipe -= sent.end - sent.start
        return sent if newest is None or sent.order > newest.order else newest

    def _find_lost(self) -> None:
        """What was sent well before something that has arrived did not arrive."""
        before = self._delivered - DUPLICATES
        found = False
        for sent in self._board:
            if sent.order <= before and not (sent.sacked or sent.lost):
                sent.lost = found = True
                self._pipe -= sent.end - sent.start
            elif sent.order > self._delivered and not sent.again:
                break
        if found and not self.recover:
            self._reduce()
            self.cwnd = self.ssthresh

    def _reduce(self) -> None:
        flight = self.nxt - self.una
        self.ssthresh = max(min(flight, self.cwnd) / 2, 2 * self.mss)
        self.recover = self.nxt

    def _grow(self, acked: int) -> None:
        if self.cwnd < self.ssthresh:
            self.cwnd += acked
        else:
            self.cwnd += self.mss * acked / self.cwnd

    def _send_more(self, now: float) -> None:
        if self.recover:
            for sent in self._board:
                if self._pipe >= self.cwnd:
                    break
                if sent.lost:
                    self._send_again(sent, now)
        most = LARGEST // MSS * self.mss if self.vnet else self.mss
        while self.nxt < self.end and self._pipe < self.cwnd:
            room = min(self.cwnd - self._pipe, most)
            size = max(int(room // self.mss) * self.mss, self.mss)
            size = min(size, self.end - self.nxt, self.wnd - self.nxt)
            if size <= 0 or (
                size < self.mss and self.nxt + size < self.end and self._board
            ):
                break  # a closed window, or a silly one (RFC 9293, 3.8.6.2.1)
            self._order += 1
            self._board.append(Sent(self.nxt, self.nxt + size, self._order, now))
            self._pipe += size
            self._segment(self.nxt, text(self.nxt, size), now)
            self.nxt += size
        if self._timer is None:
            self._arm(now)

    def _send_again(self, sent: Sent, now: float) -> None:
        self._order += 1
        if sent.lost:
            self._pipe += sent.end - sent.start
        sent.order, sent.at, sent.again, sent.lost = self._order, now, True, False
        self._segment(sent.start, text(sent.start, sent.end - sent.start), now)
        if sent is self._board[0]:
            self._timer = now + self._rto()

    def _probe(self, now: float) -> None:
        """Tail loss probe: RFC 8985, section 7."""
        self._probed = True
        last = self._board[-1]
        if not last.sacked:
            self._send_again(last, now)
        self._timer = now + self._rto()

    def _time_out(self, now: float) -> None:
        self._backoff += 1
        self._reduce()
        self.after_timeout = True
        self.cwnd = self.mss
        for sent in self._board:
            if not (sent.sacked or sent.lost):
                sent.lost = True
                self._pipe -= sent.end - sent.start
        self._timer = now + self._rto()

    def _arm(self, now: float) -> None:
        if not self._board and self.nxt == self.end:
            self._timer = None
        elif self._probed or self.recover or self._srtt is None or not self._board:
            self._timer = now + self._rto()
        else:
            self._timer = now + max(2 * self._srtt, PROBE_MINIMUM)

    def _sample(self, rtt: float) -> None:
        """RFC 6298, sections 2.2 and 2.3."""
        if self._srtt is None:
            self._srtt, self._var = rtt, rtt / 2
        else:
            self._var += (abs(self._srtt - rtt) - self._var) / 4
            self._srtt += (rtt - self._srtt) / 8

    def _rto(self) -> float:
        base = RTO_INITIAL
        if self._srtt is not None:
            base = self._srtt + max(RTO_MINIMUM, 4 * self._var)
        return base * (1 << min(self._backoff, 8))

    # As a receiver

    def _take_text(self, start: int, end: int, now: float) -> None:
        assert end <= self._edge, "the stack sent more than the window"
        if end <= self.rcv_nxt:
            self._acknowledge(now)  # it had come before
            return
        in_order = start <= self.rcv_nxt and not self._ranges
        merged: list[tuple[int, int]] = []
        for left, right in sorted([*self._ranges, (max(start, self.rcv_nxt), end)]):
            if merged and left <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], right))
            else:
                merged.append((left, right))
        self._latest = start
        if merged[0][0] == self.rcv_nxt:
            self.rcv_nxt = merged.pop(0)[1]
        self._ranges = merged
        self._unacked += end - start
        if not in_order or self._unacked >= 2 * self.mss:
            self._acknowledge(now)
        elif self._ack_at is None:
            self._ack_at = now + DELAYED_ACK

    def _read_on(self, now: float) -> None:
        """Let the reader read what it could since the last time."""
        if not self.open:
            return
        self._read, at = float(self.rcv_nxt), self._read
        if self._speed is not None:
            self._read = min(self._read, at + (now - self._read_at) * self._speed)
        self._read_at = now

    def _acknowledge(self, now: float) -> None:
        self._segment(self.nxt, b"", now)

    # Packets

    def _segment(self, at: int, piece: bytes, now: float) -> None:
        options = b""
        if self.timestamps:
            options = tcp.timestamps_option(_milliseconds(now), self._echo)
        if self.sack and self._ranges:
            most = 3 if self.timestamps else 4
            options += tcp.sack_option(self._latest_blocks(most))
        self._read_on(now)
        self._edge = max(self._edge, int(self._read) + self._buffer)
        window = -(-(self._edge - self.rcv_nxt) >> WINDOW_SCALE)
        self._edge = self.rcv_nxt + (window << WINDOW_SCALE)
        self._packet(at, ACK | PSH if piece else ACK, piece, options, window)
        self._unacked, self._ack_at = 0, None
        if self._speed is not None and window << WINDOW_SCALE < self._buffer // 2:
            self._ack_at = now + self._buffer / 2 / self._speed  # a window update

    def _packet(
        self, at: int, flags: int, piece: bytes, options: bytes, window: int
    ) -> None:
        packet = make_segment(
            self.key,
            ISN + at,
            self.irs + self.rcv_nxt,
            flags,
            piece,
            window=window,
            options=options,
            vnet=self.vnet,
            gso=self.mss if len(piece) > self.mss else 0,
        )
        self._out.append(packet)

    def _latest_blocks(self, most: int) -> tuple[tuple[int, int], ...]:
        blocks = sorted(
            self._ranges, key=lambda block: not block[0] <= self._latest < block[1]
        )[:most]
        return tuple(
            ((self.irs + left) & 0xFFFF_FFFF, (self.irs + right) & 0xFFFF_FFFF)
            for left, right in blocks
        )

    @staticmethod
    def _near(number: int, reference: int) -> int:
        """Unwrap a sequence number: the position next to ``reference``."""
        return reference + ((number - reference + (1 << 31)) & 0xFFFF_FFFF) - (1 << 31)


def _milliseconds(now: float) -> int:
    return int(now * 1000) & 0xFFFF_FFFF
