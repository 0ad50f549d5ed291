"""The kernels in C, called through CFFI; :mod:`.reference` documents each function.

CFFI lets other threads run during a call, so each call has memory of its own. What is
small and needed for every packet comes from a stock, as making it costs more than the
kernel; ``list.pop`` and ``append`` are atomic.
"""

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from tunstack._fastpath._kernels import ffi, lib
from tunstack._fastpath.record import RECORD, Record

NAME = "kernels"

Buffer = bytes | bytearray | memoryview

_ABI = 3
if lib.TS_ABI != _ABI:
    raise ImportError(f"kernels of ABI {lib.TS_ABI}, not {_ABI}: build them again")

_HEADERS = 110
"""Octets that the headers of a packet take at most."""
_HEADERS_OCTETS = f"uint8_t[{_HEADERS}]"

_BATCH = 64
"""Packets in one batch, at most nearly always."""
_BATCH_RECORDS = f"ts_record[{_BATCH}]"

_WORDS = ffi.typeof("uint32_t[]")
_SPAN = struct.Struct("=4I")

_FEW = 32
"""Most messages have fewer frames, and room for so many costs nothing."""
_FEW_SPANS = ffi.typeof(f"uint32_t[{4 * _FEW}]")

_E_SPACE, _E_RANGE, _E_FRAME = lib.TS_E_SPACE, lib.TS_E_RANGE, lib.TS_E_FRAME

_from_buffer = ffi.from_buffer
_new = ffi.new
_view = ffi.buffer
_frame_tcp = lib.ts_frame_tcp
_parse_batch = lib.ts_parse_batch

_Memory = tuple[Any, Any]
"""A piece of memory, as C sees it and as Python does."""

_headers: list[_Memory] = []
_records: list[_Memory] = []
"""The stock: for the headers of one packet, and for the records of a batch."""


def _take(stock: list[_Memory], kind: str) -> _Memory:
    try:
        return stock.pop()
    except IndexError:
        return _make(kind)


def _make(kind: str) -> _Memory:
    memory = _new(kind)
    return memory, _view(memory)


def sum16(data: Buffer, partial: int) -> int:
    """Add ``data`` to an Internet checksum."""
    total: int = lib.ts_sum16(_from_buffer(data), len(data), partial)
    return total


def parse_batch(
    arena: Buffer, stride: int, lengths: Sequence[int], vnet: int
) -> Iterable[Record]:
    """Validate packets and say where their parts are."""
    count = len(lengths)
    many = count > _BATCH
    memory = _make(f"ts_record[{count}]") if many else _take(_records, _BATCH_RECORDS)
    records, view = memory
    octets = _from_buffer(arena)
    _check(_parse_batch(octets, len(octets), stride, lengths, count, vnet, records))
    parsed = RECORD.iter_unpack(view[: RECORD.size * count])
    if not many:
        _records.append(memory)
    return parsed


def frame_tcp(
    key: bytes,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes,
    payload_len: int,
    payload_sum: int,
    ident: int,
    gso: int,
    vnet: int,
) -> bytes:
    """Make the headers of a segment that answers a flow."""
    out, view = memory = _take(_headers, _HEADERS_OCTETS)
    length = _frame_tcp(
        out,
        _HEADERS,
        key,
        seq,
        ack,
        flags,
        window,
        options,
        len(options),
        payload_len,
        payload_sum,
        ident,
        gso,
        vnet,
    )
    headers: bytes = view[: length if length > 0 else _check(length)]
    _headers.append(memory)
    return headers


def frame_udp(
    key: bytes, payload_len: int, payload_sum: int, ident: int, vnet: int
) -> bytes:
    """Make the headers of a datagram that answers a flow."""
    out, view = memory = _take(_headers, _HEADERS_OCTETS)
    length = lib.ts_frame_udp(out, _HEADERS, key, payload_len, payload_sum, ident, vnet)
    headers: bytes = view[: _check(length)]
    _headers.append(memory)
    return headers


def pack_frames(out: bytearray, offset: int, source: Buffer, spans: list[int]) -> int:
    """Write mux frames one behind the other."""
    count, rest = divmod(len(spans), 4)
    if rest or not 0 <= offset <= len(out):
        raise ValueError(f"{len(spans)} numbers of spans, from octet {offset}")
    written = lib.ts_pack_frames(
        _from_buffer(out) + offset,
        len(out) - offset,
        _from_buffer(source),
        len(source),
        _from_buffer(_WORDS, array("I", spans)),
        count,
    )
    return offset + _check(written)


def split_frames(message: Buffer) -> Iterable[tuple[int, int, int, int]] | None:
    """Find the frames of one message."""
    memory = _from_buffer(message)
    size = len(memory)
    spans = _new(_FEW_SPANS)
    count = lib.ts_split_frames(memory, size, spans, _FEW)
    if count == _E_SPACE:
        spans = _new(_WORDS, size // 8 * 4)
        count = lib.ts_split_frames(memory, size, spans, size // 8)
    if count == _E_FRAME:
        return None
    return _SPAN.iter_unpack(_view(spans, 16 * _check(count)))


def _check(result: int) -> int:
    """Pass on what a kernel returned; raise when the caller was wrong."""
    if result >= 0:
        return result
    if result == _E_RANGE:
        raise ValueError("an offset or a length points outside the input")
    raise ValueError("the result does not fit the memory given for it")
