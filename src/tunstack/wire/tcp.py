"""TCP options (RFC 9293 section 3.2, RFC 7323, RFC 2018)."""

import struct
from typing import NamedTuple

_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8

MAX_WINDOW_SCALE = 14
"""RFC 7323, section 2.3: a larger one counts as this."""

_BLOCK = struct.Struct("!II")
_PADDED_TIMESTAMPS = struct.Struct("!4BII")
_TIMESTAMP_OPTION = struct.Struct("!BBII")


class Options(NamedTuple):
    """The options that mean something here; everything else is passed over."""

    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()
    """``(left, right)`` of each block, in the order of the segment."""
    timestamps: tuple[int, int] | None = None
    """TSval and TSecr."""


def parse_options(data: memoryview | bytes) -> Options:
    """Read the options of a segment.

    A malformed option ends the reading, and what came before it counts: an
    implementation must survive any illegal option (RFC 9293, MUST-7).
    """
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None
    at = 0
    while at < len(data) and data[at] != _END:
        kind = data[at]
        if kind == _NOP:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        if length < 2 or at + length > len(data):
            break
        value = bytes(data[at + 2 : at + length])
        if kind == _MSS and length == 4:
            mss = int.from_bytes(value, "big")
        elif kind == _WINDOW_SCALE and length == 3:
            window_scale = min(value[0], MAX_WINDOW_SCALE)
        elif kind == _SACK_PERMITTED and length == 2:
            sack_permitted = True
        elif kind == _SACK and len(value) % _BLOCK.size == 0:
            sack = tuple(_BLOCK.iter_unpack(value))
        elif kind == _TIMESTAMPS and length == 10:
            timestamps = _BLOCK.unpack(value)
        at += length
    return Options(mss, window_scale, sack_permitted, sack, timestamps)


def syn_options(
    mss: int,
    window_scale: int | None,
    sack_permitted: bool,
    timestamps: tuple[int, int] | None = None,
) -> bytes:
    """Build the options of a SYN, padded to a multiple of four octets, as Linux does.

    Args:
        mss: octets of text that fit one segment.
        window_scale: ``None`` when the other end did not offer it.
        sack_permitted: the same as a flag.
        timestamps: TSval and TSecr, ``None`` as above.
    """
    options = struct.pack("!BBH", _MSS, 4, min(mss, 0xFFFF))
    if timestamps is not None:
        # SACK-permitted takes the place of the two NOPs, if it is there.
        options += bytes((_SACK_PERMITTED, 2) if sack_permitted else (_NOP, _NOP))
        options += _TIMESTAMP_OPTION.pack(_TIMESTAMPS, 10, *timestamps)
    elif sack_permitted:
        options += bytes((_NOP, _NOP, _SACK_PERMITTED, 2))
    if window_scale is not None:
        options += bytes((_NOP, _WINDOW_SCALE, 3, window_scale))
    return options


def timestamps_option(tsval: int, tsecr: int) -> bytes:
    """Build the timestamps of a segment, padded in front (RFC 7323, appendix A)."""
    return _PADDED_TIMESTAMPS.pack(_NOP, _NOP, _TIMESTAMPS, 10, tsval, tsecr)


def sack_option(blocks: tuple[tuple[int, int], ...]) -> bytes:
    """Build a SACK option of at most four blocks, padded in front (RFC 2018, 3)."""
    if not blocks:
        return b""
    head = bytes((_NOP, _NOP, _SACK, 2 + _BLOCK.size * len(blocks)))
    return head + b"".join(_BLOCK.pack(left, right) for left, right in blocks)
