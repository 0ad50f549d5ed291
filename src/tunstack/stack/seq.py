"""Arithmetic on TCP sequence numbers, modulo 2**32 (RFC 9293, section 3.4)."""

MODULUS = 1 << 32
MASK = MODULUS - 1
_HALF = 1 << 31


def add(a: int, n: int) -> int:
    """``a + n``."""
    return (a + n) & MASK


def sub(a: int, b: int) -> int:
    """How far ``a`` is behind ``b``, in octets, 0 to 2**32 - 1."""
    return (a - b) & MASK


def lt(a: int, b: int) -> bool:
    """Whether ``a`` comes before ``b``."""
    return (b - a) & MASK < _HALF and a != b


def le(a: int, b: int) -> bool:
    """Whether ``a`` comes before ``b`` or is ``b``."""
    return (b - a) & MASK < _HALF
