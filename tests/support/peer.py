"""A TCP that is simple and right: the other end of a connection under test.

It acknowledges each segment at once, and when its timer goes off it sends again what is
not acknowledged. That is slow, and leaves nothing to go wrong: what does not arrive is
the stack's fault. What it is sent it checks against what the cluster gave the stack.

Sans-IO: packets and the time in, packets and one deadline out. Positions in the streams
are plain integers; the SYN is at 0.
"""

from dataclasses import dataclass

from tests.support.host import ACK, FIN, MTU, PSH, RST, SYN, make_segment
from tunstack._fastpath import reference
from tunstack.stack import seq
from tunstack.wire import key as flow_key
from tunstack.wire import tcp

RTO = 0.25
"""Seconds at first; doubles up to :data:`RTO_MAXIMUM`. Nobody is ever given up."""
RTO_MAXIMUM = 1.5


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a SYN offers."""

    mss: int = 1460
    scale: int | None = 7
    sack: bool = True
    timestamps: bool = False


class Peer:
    """The host's end of one connection.

    Args:
        key: flow key of the packets that it sends.
        text: what it has to say.
        expected: what the cluster has to say.
        buffer: octets that wait for the reader at most.
        offer: the options of its SYN.
        vnet: octets of virtio header before each packet.
        iss: initial send sequence number.
    """

    def __init__(
        self,
        key: bytes,
        *,
        text: bytes,
        expected: bytes,
        buffer: int,
        offer: Offer,
        vnet: int,
        iss: int,
    ) -> None:
        self.open = False
        self.reset = False
        """A RST that counts has come."""
        self.aborted = False
        self.received = 0
        """Octets of ``expected`` that have come in order."""
        self.finished = False
        """The stack's FIN has come, behind all of its text."""
        self.deadline: float | None = None
        self._key = key
        self._text = text
        self._expected = expected
        self._offer = offer
        self._vnet = vnet
        self._out: list[bytes] = []
        # As a sender.
        self._iss = iss
        self._una = self._nxt = 0
        self._said = 0  # octets of text that may be sent by now
        self._fin_due = False
        self._wnd = 0
        self._mss = 536
        self._shift = 0
        self._backoff = 0
        # As a receiver.
        self._irs = 0
        self._rcv_nxt = 0
        self._ranges: list[tuple[int, int]] = []
        self._fin_at: int | None = None
        self._buffer = buffer
        self._read = 0
        self._edge = 0
        # Options that both offered.
        self._scale = 0
        self._sack = self._timestamps = False
        self._echo = 0

    @property
    def acknowledged(self) -> int:
        """Octets of the text that the stack has acknowledged."""
        return min(max(self._una - 1, 0), len(self._text))

    @property
    def end_acknowledged(self) -> bool:
        """Everything is, FIN included."""
        return self._fin_due and self._una == self._end

    # What the program does

    def connect(self, now: float) -> None:
        """Send the SYN."""
        offer = self._offer
        timestamps = (_milliseconds(now), 0) if offer.timestamps else None
        options = tcp.syn_options(offer.mss, offer.scale, offer.sack, timestamps)
        self._packet(0, SYN, b"", options, min(self._buffer, 65_535))
        self._nxt = 1
        self._start_timer(now)

    def say(self, octets: int) -> None:
        """Let so many octets more of the text go."""
        self._said = min(self._said + octets, len(self._text))

    def finish(self) -> None:
        """Let all of the text go, and FIN behind it."""
        self._said = len(self._text)
        self._fin_due = True

    def read(self, octets: int, now: float) -> None:
        """Read what has come; says so when the window was too small (RFC 9293, 3.8.6)."""
        self._read = min(self._read + octets, self.received)
        worth = min(self._offer.mss, self._buffer // 2)
        if self._edge - self._rcv_nxt < worth <= self._window() << self._scale:
            self._acknowledge(now)

    def abort(self, now: float) -> None:
        """Close with a RST; whatever comes from now on meets another one."""
        if self.open and not self.reset:
            self._segment(self._nxt, RST | ACK, b"", now)
        self.aborted = True
        self.deadline = None

    # Segments

    def receive(self, packet: bytes, now: float) -> None:
        """Take one packet of the stack, which has to be without fault."""
        (record,) = reference.parse_batch(packet, len(packet), [len(packet)], self._vnet)
        seg_seq, seg_ack, _, options, start, end, window, _, verdict, flags, *_ = record
        assert verdict == 0, f"the stack made a packet that is {verdict!r}"
        assert record[11] == flow_key.reverse(self._key)
        if self._vnet == 0:
            assert len(packet) <= MTU
        if self.aborted or self.reset:
            if not flags & RST:
                self._packet(seq.sub(seg_ack, self._iss), RST, b"", b"", 0)
            return
        if flags & SYN:
            assert flags == SYN | ACK
            if not self.open:
                self._establish(record, packet)
            self._acknowledge(now)
            return
        if not self.open:
            assert flags == RST | ACK, "before a SYN-ACK there is nothing but refusal"
            self.reset = seg_ack == seq.add(self._iss, 1)
            self.deadline = None
            return
        at = self._rcv_nxt + _distance(seg_seq, seq.add(self._irs, self._rcv_nxt))
        if flags & RST:
            if at == self._rcv_nxt:
                self.reset = True
                self.deadline = None
            return
        blocks = self._read_options(packet[options:start], at)
        self._take_ack(seg_ack, window << self._shift, blocks, now)
        if end > start or flags & FIN:
            self._take_text(at, packet[start:end], bool(flags & FIN))
            self._acknowledge(now)
        elif at != self._rcv_nxt:
            self._acknowledge(now)  # a probe: unacceptable, so answered

    def expire(self, now: float) -> None:
        """Let the timer go off, if it is due: everything outstanding goes again."""
        if self.deadline is None or self.deadline > now:
            return
        self._backoff += 1
        if not self.open:
            self.connect(now)
            return
        at = max(self._una, 1)
        if at == self._nxt:
            self._segment(at - 1, ACK, b"", now)  # a window probe
        while at < self._nxt:
            at = self._send_from(at, self._nxt, now)
        self._start_timer(now)

    def output(self, now: float) -> list[bytes]:
        """Give the packets that are due."""
        if self.open and not (self.aborted or self.reset):
            limit = min(self._wnd, 1 + self._said)
            while self._nxt < limit:
                self._nxt = self._send_from(self._nxt, limit, now)
            if self._fin_due and self._nxt == 1 + len(self._text):
                self._nxt = self._send_from(self._nxt, self._nxt + 1, now)
            if self.deadline is None and self._una < 1 + self._said + self._fin_due:
                self._start_timer(now)
        out, self._out = self._out, []
        return out

    @property
    def _end(self) -> int:
        return 1 + len(self._text) + self._fin_due

    def _establish(self, record: tuple, packet: bytes) -> None:
        self.open = True
        self._irs = record[0]
        self._una = self._nxt = 1
        self._read = 0
        self._rcv_nxt = 1
        self._edge = 1 + min(self._buffer, 65_535)
        self._wnd = 1 + record[6]  # of a SYN: never scaled
        self._backoff = 0
        self.deadline = None
        offer, said = self._offer, tcp.parse_options(packet[record[3] : record[4]])
        if said.mss is not None:
            self._mss = min(said.mss, offer.mss)
        if said.window_scale is not None:
            assert offer.scale is not None
            self._shift, self._scale = said.window_scale, offer.scale
        self._sack = said.sack_permitted
        assert offer.sack or not self._sack
        if said.timestamps is not None:
            assert offer.timestamps
            self._timestamps = True
            self._echo = said.timestamps[0]

    def _read_options(self, data: bytes, at: int) -> list[tuple[int, int]]:
        """Take note of the timestamp; give the SACK blocks, as positions."""
        said = tcp.parse_options(data)
        if said.timestamps is not None:
            assert self._timestamps
            tsval, _ = said.timestamps
            if at <= self._rcv_nxt and _distance(tsval, self._echo) > 0:
                self._echo = tsval
        assert self._sack or not said.sack
        una = seq.add(self._iss, self._una)
        return [
            tuple(self._una + _distance(edge, una) for edge in block) for block in said.sack
        ]

    def _take_ack(
        self, seg_ack: int, window: int, blocks: list[tuple[int, int]], now: float
    ) -> None:
        ack = self._una + _distance(seg_ack, seq.add(self._iss, self._una))
        assert ack <= self._nxt, "the stack acknowledged what was never sent"
        for left, right in blocks:
            assert left < right <= self._nxt, "a SACK block of what was never sent"
            assert left > ack or right <= ack, "a SACK block that is not behind a hole"
        self._wnd = max(self._wnd, ack + window)
        if ack > self._una:
            self._una = ack
            self._backoff = 0
            self.deadline = None
            if ack < self._nxt:
                self._start_timer(now)

    def _take_text(self, at: int, text: bytes, fin: bool) -> None:
        end = at + len(text)
        assert text == self._expected[at - 1 : end - 1], "the text is not the text"
        assert end <= self._edge, "the stack sent more than the window takes"
        if fin:
            assert end == 1 + len(self._expected), "a FIN in the middle of the text"
            self._fin_at = end
        if end > at:
            self._ranges.append((at, end))
        self._ranges.sort()
        while self._ranges and self._ranges[0][0] <= self._rcv_nxt:
            self._rcv_nxt = max(self._rcv_nxt, self._ranges.pop(0)[1])
        self.received = max(self.received, min(self._rcv_nxt - 1, len(self._expected)))
        if self._fin_at == self._rcv_nxt:
            self._rcv_nxt += 1
            self.finished = True

    # Packets

    def _send_from(self, at: int, limit: int, now: float) -> int:
        """Send one segment of what lies from ``at`` to ``limit``; returns its end."""
        most = self._mss - (12 if self._timestamps else 0)
        text = self._text[at - 1 : min(limit - 1, at - 1 + most)]
        end = at + len(text)
        flags = ACK | PSH
        if end == 1 + len(self._text) and self._fin_due and end < limit:
            flags |= FIN
            end += 1
        self._segment(at, flags, text, now)
        if self.deadline is None:
            self._start_timer(now)
        return end

    def _acknowledge(self, now: float) -> None:
        self._segment(self._nxt, ACK, b"", now)

    def _window(self) -> int:
        """In units; rounded up, as the right edge does not go back."""
        edge = max(self._edge, 1 + self._read + self._buffer)
        return -(-max(0, edge - self._rcv_nxt) >> self._scale)

    def _segment(self, at: int, flags: int, text: bytes, now: float) -> None:
        options = b""
        if self._timestamps:
            options = tcp.timestamps_option(_milliseconds(now), self._echo)
        blocks = self._merged()[: 3 if self._timestamps else 4]
        if self._sack:
            options += tcp.sack_option(
                tuple(
                    (seq.add(self._irs, left), seq.add(self._irs, right))
                    for left, right in blocks
                )
            )
        window = min(self._window(), 65_535)
        self._edge = max(self._edge, self._rcv_nxt + (window << self._scale))
        self._packet(at, flags, text, options, window)

    def _merged(self) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for left, right in self._ranges:
            if merged and left <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], right)
            else:
                merged.append((left, right))
        return merged

    def _packet(
        self, at: int, flags: int, text: bytes, options: bytes, window: int
    ) -> None:
        packet = make_segment(
            self._key,
            self._iss + at,
            self._irs + self._rcv_nxt,
            flags,
            text,
            window=window,
            options=options,
            vnet=self._vnet,
        )
        self._out.append(packet)

    def _start_timer(self, now: float) -> None:
        self.deadline = now + min(RTO * (1 << min(self._backoff, 8)), RTO_MAXIMUM)


def _distance(a: int, b: int) -> int:
    """How far ``a`` is behind ``b``, in sequence numbers: negative when it is before."""
    return (a - b + (1 << 31) & seq.MASK) - (1 << 31)


def _milliseconds(now: float) -> int:
    return int(now * 1000) & seq.MASK
