"""A limit on how often something may happen."""


class TokenBucket:
    """So many at once, and so many a second in the long run (RFC 4443, section 2.4 (f)).

    Args:
        burst: tokens at most.
        rate: tokens a second.
    """

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        gained = (now - self._at) * self._rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
