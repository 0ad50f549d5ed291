"""What each end announces of itself: RFC 9113, section 6.5."""

import struct
from enum import IntEnum

from tunstack.rpc.http2.frame import MAX_WINDOW, Code
from tunstack.rpc.http2.violation import ConnectionViolation

_SETTING = struct.Struct(">HI")

DEFAULT_WINDOW = 65_535
MIN_FRAME = 16_384
MAX_FRAME = (1 << 24) - 1


class Setting(IntEnum):
    """The settings of section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


_RANGES = {
    Setting.ENABLE_PUSH: (0, 1, Code.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, MAX_WINDOW, Code.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (MIN_FRAME, MAX_FRAME, Code.PROTOCOL_ERROR),
}

MOST = 64
"""Settings in one frame: there are six, and whoever is polite sends each once."""


def pack(settings: dict[Setting, int]) -> bytes:
    """Make the payload of a SETTINGS frame."""
    return b"".join(_SETTING.pack(*item) for item in settings.items())


def unpack(payload: bytes) -> dict[Setting, int]:
    """Read the payload of a SETTINGS frame. Settings that nobody knows are ignored.

    Raises:
        ConnectionViolation: it is malformed, or a value is out of its range.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionViolation(
            Code.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} octets"
        )
    if len(payload) > MOST * _SETTING.size:
        raise ConnectionViolation(
            Code.ENHANCE_YOUR_CALM, f"more than {MOST} settings in one frame"
        )
    settings = {}
    for number, value in _SETTING.iter_unpack(payload):
        try:
            setting = Setting(number)
        except ValueError:
            continue
        low, high, code = _RANGES.get(setting, (0, 0xFFFF_FFFF, Code.PROTOCOL_ERROR))
        if not low <= value <= high:
            raise ConnectionViolation(code, f"{setting.name} of {value}")
        settings[setting] = value
    return settings
