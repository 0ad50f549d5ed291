"""What one connection may cost, whoever is at the other end."""

from dataclasses import dataclass

from tunstack.config import KiB, MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the other end of a connection may do. Beyond it the connection ends.

    Those that HTTP/2 has settings for are announced (RFC 9113, section 6.5.2).
    """

    frame: int = 512 * KiB
    """Octets in one frame. Most messages fit, and need no copy to be whole."""

    header_list: int = 16 * KiB
    """Octets in one list of header fields, as section 6.5.2 counts them; and in the
    compressed block."""

    headers: int = 100
    """Fields in one list."""

    header_table: int = 4096
    """Octets of the dynamic table of HPACK, either way."""

    continuations: int = 8
    """CONTINUATION frames behind one HEADERS (CVE-2024-27316)."""

    streams: int = 16
    """Streams that the other end may have open at once. More are refused."""

    message: int = 16 * MiB
    """Octets in one message. A longer one ends its stream."""

    window: int = 1 * MiB
    """Octets of one stream that may wait to be read, at first."""

    window_most: int = 16 * MiB
    """Where windows stop growing."""

    connection_window: int = 64 * MiB
    """Octets of all streams together that may wait to be read."""

    answers: int = 1000
    """PING and SETTINGS at once, which must be answered (CVE-2019-9512, 9515)."""

    resets: int = 100
    """Streams at once that end before their time (CVE-2019-9514, CVE-2023-44487)."""

    idle_frames: int = 10_000
    """Frames at once that move nothing: empty DATA, PRIORITY, WINDOW_UPDATE and unknown
    ones (CVE-2019-9511, 9513, 9518)."""

    unread: int = 256 * KiB
    """Octets of answers that the other end leaves unread (CVE-2019-9517)."""

    handshake: float = 10.0
    """Seconds until the preface and the first SETTINGS have come."""

    stall: float = 60.0
    """Seconds that a stream with data to send may meet a closed window."""
