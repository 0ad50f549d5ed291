"""What a refusal is to a program on this computer: the error a socket would give."""

import errno
import os

from tunstack.wire.frame import Refusal

_ERRORS = {
    Refusal.UNSPECIFIED: errno.EIO,
    Refusal.REFUSED: errno.ECONNREFUSED,
    Refusal.NETWORK_UNREACHABLE: errno.ENETUNREACH,
    Refusal.HOST_UNREACHABLE: errno.EHOSTUNREACH,
    Refusal.PROHIBITED: errno.EACCES,
    Refusal.TIMED_OUT: errno.ETIMEDOUT,
    Refusal.PROTOCOL_UNREACHABLE: errno.ENOPROTOOPT,
    Refusal.TOO_BIG: errno.EMSGSIZE,
    Refusal.LIMIT: errno.ENOBUFS,
    Refusal.UNAVAILABLE: errno.EOPNOTSUPP,
    Refusal.RESET: errno.ECONNRESET,
    Refusal.LOST: errno.ECONNRESET,
}


def as_error(refusal: Refusal, peer: str, text: str = "") -> OSError:
    """Make the exception: :class:`ConnectionRefusedError`, :class:`TimeoutError`, ...

    Args:
        refusal: what the manager said.
        peer: whom it was about: ``10.96.0.10:53``.
        text: the manager's own words, instead of the kernel's.
    """
    number = _ERRORS[refusal]
    if refusal is Refusal.LOST:
        text = "the tunnel was lost"
    return OSError(number, f"{peer}: {text or os.strerror(number)}")
