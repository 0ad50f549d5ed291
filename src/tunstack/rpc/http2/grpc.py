"""gRPC over HTTP/2: what its header fields say.

Source: the gRPC project's protocol description, "gRPC over HTTP2".
"""

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from tunstack.rpc.http2.frame import Code
from tunstack.rpc.http2.headers import Headers, find
from tunstack.rpc.http2.status import Metadata, Outcome, Status

CONTENT_TYPE = b"application/grpc"


_OF_HTTP = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
"""The gRPC project's table for answers of proxies and other servers."""

_OF_CODE = {
    Code.REFUSED_STREAM: Status.UNAVAILABLE,
    Code.CANCEL: Status.CANCELLED,
    Code.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    Code.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
"""What RST_STREAM means to a call; the others are INTERNAL."""

_TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_RESERVED = frozenset((b"te", b"content-type", b"user-agent", b"content-length"))


def request(
    path: str,
    authority: str,
    *,
    scheme: str,
    user_agent: str,
    timeout: float | None = None,
    metadata: Metadata = (),
) -> Headers:
    """Make the fields of a request.

    Args:
        path: ``/package.Service/Method``.
        authority: the host that is meant, for proxies and certificates.
        scheme: ``http`` or ``https``.
        user_agent: who asks.
        timeout: seconds until nobody waits any more.
        metadata: of the application.
    """
    headers = [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", CONTENT_TYPE),
        (b"user-agent", user_agent.encode()),
    ]
    if timeout is not None:
        headers.append((b"grpc-timeout", pack_timeout(timeout)))
    return headers + pack_metadata(metadata)


def response(metadata: Metadata = ()) -> Headers:
    """Make the fields of a response to which messages will follow."""
    return [
        (b":status", b"200"),
        (b"content-type", CONTENT_TYPE),
        *pack_metadata(metadata),
    ]


def trailers(outcome: Outcome) -> Headers:
    """Make the fields that end a response."""
    fields = [(b"grpc-status", b"%d" % outcome.status)]
    if outcome.message:
        # Percent-encoded UTF-8: space to tilde stay, but for the percent sign.
        text = quote_from_bytes(outcome.message.encode(), safe=_PLAIN)
        fields.append((b"grpc-message", text.encode()))
    return fields + pack_metadata(outcome.metadata)


_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet != ord("%"))


def is_grpc(headers: Headers) -> bool:
    """Whether a request is one of gRPC, by its content type."""
    kind = find(headers, b"content-type") or b""
    return kind.startswith(CONTENT_TYPE) and kind[len(CONTENT_TYPE) :][:1] in b"+;"


def outcome_of_trailers(fields: Headers) -> Outcome:
    """Read how a call ended from the fields that end its response."""
    text = find(fields, b"grpc-status")
    if text is None or not re.fullmatch(rb"\d{1,9}", text):
        return Outcome(Status.UNKNOWN, "the answer ended without a status")
    try:
        status = Status(int(text))
    except ValueError:
        status = Status.UNKNOWN
    message = unquote_to_bytes(find(fields, b"grpc-message") or b"")
    return Outcome(status, message.decode(errors="replace"), unpack_metadata(fields))


def outcome_of_http(fields: Headers) -> Outcome | None:
    """Say what a response means that is not one of gRPC; ``None`` when it is one."""
    status = int(find(fields, b":status") or b"0")
    kind = find(fields, b"content-type")
    if status == 200 and is_grpc(fields):
        return None
    text = f"the answer is HTTP {status}, {(kind or b'no content type').decode('latin-1')}"
    return Outcome(_OF_HTTP.get(status, Status.UNKNOWN), text)


def outcome_of_reset(code: int, reason: str) -> Outcome:
    """Say what it means for a call that its stream was reset."""
    status = _OF_CODE.get(code, Status.INTERNAL)  # type: ignore[call-overload]
    return Outcome(status, reason)


def pack_timeout(seconds: float) -> bytes:
    """Make ``grpc-timeout``: at most eight digits, in the finest unit that holds it."""
    nanoseconds = max(int(seconds * 1e9), 0)
    for unit, size in ((b"n", 1), (b"u", 10**3), (b"m", 10**6), (b"S", 10**9)):
        count = -(-nanoseconds // size)
        if count < 10**8:
            return b"%d%s" % (count, unit)
    return b"99999999S"


def unpack_timeout(value: bytes) -> float | None:
    """Read ``grpc-timeout`` as seconds; ``None`` when it is malformed."""
    match = re.fullmatch(rb"(\d{1,8})([HMSmun])", value)
    return None if match is None else int(match[1]) * _TIMEOUT_UNITS[match[2]]


def pack_metadata(metadata: Metadata) -> Headers:
    """Make fields of metadata; octets travel as base64 without padding."""
    return [
        (
            name.encode(),
            base64.b64encode(value).rstrip(b"=")
            if isinstance(value, bytes)
            else value.encode("ascii", "replace"),
        )
        for name, value in metadata
    ]


def unpack_metadata(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """Read the metadata among fields; what is no base64 where it should be is left out."""
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name[:1] == b":" or name in _RESERVED or name.startswith(b"grpc-"):
            continue
        if not name.endswith(b"-bin"):
            metadata.append((name.decode("ascii"), value.decode("latin-1")))
            continue
        for item in value.split(b","):
            padded = item.strip() + b"=" * (-len(item.strip()) % 4)
            try:
                octets = base64.b64decode(padded, validate=True)
            except binascii.Error:
                continue
            metadata.append((name.decode("ascii"), octets))
    return metadata
