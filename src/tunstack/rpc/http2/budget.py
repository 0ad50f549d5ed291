"""How often the other end may do what costs us more than it."""

WORTH = 256
"""Octets that a whole message counts for beside its own. However short it is, it may
bring the other end to widen two windows."""


class Budget:
    """A token bucket that time and honest traffic fill.

    A peer that moves data may have its pings and window updates in proportion, however
    fast the link is; one that only keeps us busy runs dry.

    Args:
        burst: what may be done at once.
        rate: what may be done in each second beyond that.
        octets: moved, either way, that earn one more.
        now: seconds.
    """

    __slots__ = ("_at", "_burst", "_earned_at", "_octets", "_rate", "_tokens")

    def __init__(self, burst: int, rate: float, octets: int, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._octets = octets
        self._tokens = float(burst)
        self._at = now
        self._earned_at = 0

    def spend(self, now: float, moved: int) -> bool:
        """Do it once; false when that is too often.

        Args:
            now: seconds.
            moved: octets of data that the connection has carried so far, each message
                with :data:`WORTH` on top.
        """
        earned = (now - self._at) * self._rate + (moved - self._earned_at) / self._octets
        self._tokens = min(self._burst, self._tokens + earned) - 1
        self._at = now
        self._earned_at = moved
        return self._tokens >= 0
