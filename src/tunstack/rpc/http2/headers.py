"""Header fields: HPACK (RFC 7541), and what is well formed (RFC 9113, 8.2 and 8.3)."""

import re
from collections.abc import Iterable, Sequence

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.limits import Limits
from tunstack.rpc.http2.violation import ConnectionViolation

Headers = list[tuple[bytes, bytes]]
"""Fields in order, pseudo-header fields first; names in lower case."""

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[^\x00\r\n]*")

_CONNECTION = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
"""Fields of HTTP/1.1 connections: section 8.2.2."""

_REQUEST = frozenset((b":method", b":scheme", b":path"))
_REQUEST_ALSO = frozenset((b":authority",))
_RESPONSE = frozenset((b":status",))


class HeaderCodec:
    """Both directions of one connection; the order of calls is the order on the wire."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._encoder = Encoder()
        self._decoder = Decoder(limits.header_list)
        self._decoder.max_allowed_table_size = limits.header_table

    def limit_table(self, size: int) -> None:
        """Take what the other end allows for the table that our fields fill."""
        self._encoder.header_table_size = min(size, self._limits.header_table)

    def encode(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Compress a list of fields."""
        return self._encoder.encode(headers)

    def decode(self, block: bytes) -> Headers:
        """Restore a list of fields.

        Raises:
            ConnectionViolation: that is not HPACK, or the list is too long. Either way
                the table is no longer the other end's, so the connection cannot go on.
        """
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM,
                f"a header list of more than {self._limits.header_list} octets",
            ) from None
        except (HPACKError, ValueError, IndexError) as exc:
            reason = f"a header block that is not HPACK: {exc}"
            raise ConnectionViolation(Code.COMPRESSION_ERROR, reason) from None
        headers = [(bytes(name), bytes(value)) for name, value in fields]
        if len(headers) > self._limits.headers:
            raise ConnectionViolation(
                Code.ENHANCE_YOUR_CALM, f"{len(headers)} fields in one header list"
            )
        return headers


def request_fault(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Say what makes a request malformed; ``None`` when it is well formed."""
    return _fault(headers, _REQUEST, _REQUEST_ALSO) or _path_fault(headers)


def response_fault(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Say what makes a response malformed; ``None`` when it is well formed."""
    return _fault(headers, _RESPONSE, frozenset()) or (
        None if re.fullmatch(rb"[1-5]\d\d", find(headers, b":status") or b"") else ":status"
    )


def trailers_fault(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Say what makes trailers malformed; ``None`` when they are well formed."""
    return _fault(headers, frozenset(), frozenset())


def find(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Give the value of the first field of that name."""
    return next((value for field, value in headers if field == name), None)


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Give what the fields promise of the octets of DATA; -1 when they contradict."""
    values = {value for name, value in headers if name == b"content-length"}
    if not values:
        return None
    value = values.pop()
    return int(value) if not values and value.isdigit() and len(value) < 20 else -1


def _fault(
    headers: Sequence[tuple[bytes, bytes]],
    needed: frozenset[bytes],
    allowed: frozenset[bytes],
) -> str | None:
    pseudo = set()
    regular = False
    for name, value in headers:
        if _VALUE.fullmatch(value) is None or value != value.strip(b" \t"):
            return f"a value of {name[:40]!r} that no field may have"
        if name.startswith(b":"):
            if regular or name in pseudo or name not in needed | allowed:
                return f"{name[:40]!r} where it may not be"
            pseudo.add(name)
            continue
        regular = True
        if _NAME.fullmatch(name) is None:
            return f"a field called {name[:40]!r}"
        if name in _CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            return f"{name.decode()}, which is for connections of HTTP/1.1"
    if content_length(headers) == -1:
        return "a content-length that is none"
    missing = needed - pseudo
    return f"no {min(missing).decode()}" if missing else None


def _path_fault(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    return "an empty :path" if not find(headers, b":path") else None
