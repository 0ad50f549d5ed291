"""Frames of a capture file, pcap or pcapng, as scapy reads them.

scapy takes the end of a file and a forged length for the same: silently, its frames end.
So it reads from :class:`_Source`, which knows where each record began, whether the file
ended inside it, and how much memory a length may ask for.
"""

import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tunstack.capture import link
from tunstack.errors import ConfigError

MAX_FRAME = 262_140
"""Octets: the most that scapy reads as one; libpcap's MAXIMUM_SNAPLEN is 4 more."""

MAX_BLOCK = 16 * 1024 * 1024
"""Octets of a pcapng block, as in Wireshark."""

_GZIP = b"\x1f\x8b"

_PACKET_BLOCKS = {2, 3, 6}
"""Obsolete, simple and enhanced packet block (draft-ietf-opsawg-pcapng, section 4)."""

_SIMPLE = 3
_AROUND_PACKET = 32
"""Octets of an enhanced or obsolete packet block that are not the packet's."""

_LINK_TYPE = 0xFFFF
"""The rest of a link type says how long the frame check sequence is."""


class CaptureError(ConfigError):
    """A capture file cannot be read, or not to its end."""

    hint = "capture it again, or cut it with editcap before what is damaged"

    def __init__(
        self, path: Path, what: str, *, offset: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(f"{path}: {what}", hint=hint)
        self.offset = offset


class Frame(NamedTuple):
    """One captured frame."""

    time: float | None
    """Seconds since the epoch; ``None`` where the file does not tell."""
    link: int
    octets: bytes


def frames(path: Path) -> Iterator[Frame]:
    """Read the frames of a capture file, in the order of the file.

    Raises:
        CaptureError: at the record that cannot be read, after the frames before it.
    """
    try:
        file = path.open("rb")
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    with file:
        source = _Source(path, file)
        reader = _open(source)
        if hasattr(reader, "_read_block"):
            yield from _blocks(source, reader)
        else:
            yield from _records(source, reader)


class _Source:
    """A file for scapy to read from, which keeps an eye on it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.offset = 0
        self.start = 0
        """Offset of the record that is being read."""
        self.head = b""
        """The first octets of that record."""
        self.ended = False
        """Whether the last read was cut short by the end of the file."""
        self._path = path
        self._file = file

    def read(self, size: int) -> bytes:
        if size > MAX_BLOCK:
            raise self.error(f"claims {size} octets")
        try:
            octets = self._file.read(size)
        except OSError as exc:
            raise _unreadable(self._path, exc) from exc
        self.offset += len(octets)
        self.ended = len(octets) < size
        if len(self.head) < _AROUND_PACKET:
            self.head += octets[:_AROUND_PACKET]
        return octets

    def begin_record(self) -> None:
        self.start = self.offset
        self.head = b""

    def error(self, what: str | None = None) -> CaptureError:
        """Say what is wrong with the record, or what can be seen from here."""
        if what is None:
            what = "is cut off by the end of the file" if self.ended else "is malformed"
        return CaptureError(
            self._path, f"the record at offset {self.start} {what}", offset=self.start
        )

    def no_capture(self) -> CaptureError:
        how = "is cut off" if self.ended else "is that of neither"
        hint = "gunzip it first" if self.head[:2] == _GZIP else "check the path"
        return CaptureError(
            self._path,
            f"no pcap or pcapng: the header at offset 0 {how}",
            offset=0,
            hint=hint,
        )


def _unreadable(path: Path, exc: OSError) -> CaptureError:
    return CaptureError(path, f"cannot be read: {exc.strerror}", hint="check the path")


def _open(source: _Source) -> Any:
    # What scapy warns of is an error here, in our words.
    logging.getLogger("scapy").setLevel(logging.CRITICAL)
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapNgReader

    try:
        return RawPcapNgReader(cast(str, source))
    # scapy would look into a gzip file, and wants to seek there.
    except (Scapy_Exception, EOFError, AttributeError) as exc:
        raise source.no_capture() from exc


def _each(source: _Source, read: Callable[..., Any]) -> Iterator[Any]:
    """Let scapy read one record after the other."""
    from scapy.error import Scapy_Exception

    while True:
        source.begin_record()
        try:
            found = read(size=MAX_FRAME)
        except (EOFError, Scapy_Exception) as exc:
            if source.offset == source.start:
                return
            raise source.error() from exc
        yield found


def _records(source: _Source, reader: Any) -> Iterator[Frame]:
    """Read pcap: draft-ietf-opsawg-pcap, section 5."""
    kind = _link(source, reader.linktype)
    unit = 1e-9 if reader.nano else 1e-6
    for octets, about in _each(source, reader._read_packet):
        if about.caplen > MAX_FRAME:
            raise source.error(f"claims {about.caplen} octets")
        if len(octets) < about.caplen:
            raise source.error()
        yield Frame(about.sec + about.usec * unit, kind, octets)


def _blocks(source: _Source, reader: Any) -> Iterator[Frame]:
    """Read pcapng: draft-ietf-opsawg-pcapng, section 3."""
    for found in _each(source, reader._read_block):
        kind, size = struct.unpack_from(f"{reader.endian}II", source.head)
        if kind not in _PACKET_BLOCKS:
            continue
        if found is None:
            raise source.error("names an interface that the file does not describe")
        octets, about = found
        if kind != _SIMPLE:
            (captured,) = struct.unpack_from(f"{reader.endian}I", source.head, 20)
            if captured > min(size - _AROUND_PACKET, MAX_FRAME):
                raise source.error(f"claims {captured} octets")
        time = None
        if about.tshigh is not None:
            time = ((about.tshigh << 32) + about.tslow) / about.tsresol
        yield Frame(time, _link(source, about.linktype), octets)


def _link(source: _Source, number: int) -> int:
    number &= _LINK_TYPE
    if number not in link.NAMES:
        known = ", ".join(sorted(set(link.NAMES.values())))
        raise source.error(f"has link type {number}, which is none of {known}")
    return number
