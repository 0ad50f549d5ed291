"""Octets that decide: how harnesses make values of what a fuzzer gives them."""


class Octets:
    """Reads values from the front; past the end everything is zero.

    Args:
        data: what the fuzzer gave.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def octet(self) -> int:
        """Give a number of 8 bits."""
        return self.number(1)

    def number(self, size: int) -> int:
        """Give a number of ``size`` octets, in network order."""
        return int.from_bytes(self.text(size).ljust(size, b"\0"))

    def signed(self) -> int:
        """Give a number from -128 to 127."""
        return (self.octet() ^ 0x80) - 0x80

    def text(self, size: int) -> bytes:
        """Give up to ``size`` octets."""
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece
