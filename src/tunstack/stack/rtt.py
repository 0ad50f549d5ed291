"""The retransmission time-out (RFC 6298)."""

RTO_INITIAL = 1.0
RTO_MINIMUM = 0.2
"""Seconds. RFC 6298 recommends 1 s for the Internet; Linux uses 0.2, and so does our
peer, which is the kernel on the other side of a TUN."""
RTO_MAXIMUM = 60.0


class RoundTrip:
    """Estimates SRTT and RTTVAR; gives RTO. All in seconds."""

    __slots__ = ("backoff", "srtt", "var")

    def __init__(self) -> None:
        self.srtt: float | None = None
        self.var = 0.0
        self.backoff = 0
        """Times the timer has gone off since the last acknowledgment."""

    def sample(self, rtt: float) -> None:
        """Take one measurement: RFC 6298, sections 2.2 and 2.3."""
        if self.srtt is None:
            self.srtt = rtt
            self.var = rtt / 2
        else:
            self.var += (abs(self.srtt - rtt) - self.var) / 4
            self.srtt += (rtt - self.srtt) / 8

    @property
    def rto(self) -> float:
        """Seconds until an unacknowledged segment is sent again (sections 2, 5.5)."""
        base = RTO_INITIAL
        if self.srtt is not None:
            base = max(RTO_MINIMUM, self.srtt + 4 * self.var)
        return float(min(RTO_MAXIMUM, base * (1 << min(self.backoff, 10))))
