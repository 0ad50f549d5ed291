"""The layout of frames: RFC 9113, sections 4 and 6, and its codes for errors, section 7."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says before everything (section 3.4)."""

HEADER = struct.Struct(">BHBBI")
"""Length in 24 bits (the high 8, the low 16), type, flags, stream."""

WORD = struct.Struct(">I")

STREAM = 0x7FFF_FFFF
"""The bits of a stream's number or a window's increment; the highest is reserved."""

MAX_WINDOW = 0x7FFF_FFFF


class Type(IntEnum):
    """What a frame is (section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag:
    """The bits of a frame's flags; what they mean depends on its type."""

    ACK = 0x01
    END_STREAM = 0x01
    END_HEADERS = 0x04
    PADDED = 0x08
    PRIORITY = 0x20


class Code(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def code_name(code: int) -> str:
    """Name a code for people; codes that nobody knows have their number."""
    try:
        return Code(code).name
    except ValueError:
        return f"error {code:#x}"


def pack(kind: Type, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Make one frame; ``payload`` has less than 2^24 octets."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload
