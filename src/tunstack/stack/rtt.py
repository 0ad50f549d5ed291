"""The retransmission time-out (RFC 6298) and the one that probes before it (RFC 8985)."""

RTO_INITIAL = 1.0
RTO_FALLBACK = 3.0
"""RFC 6298, section 5.7: for text, when the SYN-ACK had to be sent again."""
RTO_MINIMUM = 0.2
"""Seconds. RFC 6298 recommends 1 s for the Internet; Linux uses 0.2, and so does our
peer, which is the kernel on the other side of a TUN."""
RTO_MAXIMUM = 60.0

PTO_MINIMUM = 0.05
"""More than a delayed ACK of Linux, which takes 40 ms."""
PTO_RECOVERY = 0.02
"""While something is missing the host acknowledges at once."""


class RoundTrip:
    """Estimates SRTT and RTTVAR; gives RTO. All in seconds."""

    __slots__ = ("_base", "backoff", "initial", "srtt", "var")

    def __init__(self) -> None:
        self.srtt: float | None = None
        self.var = 0.0
        self._base = 0.0
        self.initial = RTO_INITIAL
        """RTO until something has been measured."""
        self.backoff = 0
        """Times the timer has gone off since the last measurement (section 5.7)."""

    def sample(self, rtt: float) -> None:
        """Take one measurement: RFC 6298, sections 2.2 and 2.3."""
        if self.srtt is None:
            self.srtt = rtt
            self.var = rtt / 2
        else:
            self.var += (abs(self.srtt - rtt) - self.var) / 4
            self.srtt += (rtt - self.srtt) / 8
        self._base = max(RTO_MINIMUM, self.srtt + 4 * self.var)
        self.backoff = 0

    @property
    def rto(self) -> float:
        """Seconds until an unacknowledged segment is sent again (sections 2, 5.5)."""
        base = self.initial if self.srtt is None else self._base
        if self.backoff:
            base *= 1 << min(self.backoff, 10)
        return min(RTO_MAXIMUM, base)

    def pto(self, least: float) -> float | None:
        """Give the probe time-out, not less than ``least`` (RFC 8985, section 7.2).

        ``None`` when there is none: nothing was measured yet, or RTO comes first.
        """
        if self.srtt is None:
            return None
        pto = max(least, 2 * self.srtt)
        return pto if pto < self.rto else None
