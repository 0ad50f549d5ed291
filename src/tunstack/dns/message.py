"""DNS messages as octets: what has to be known of one, and what is patched in one.

An answer passes through as it came, byte for byte: only identifier, question (for the
case of its letters), TTLs and the OPT record are the server's own. So what is needed on
the way is read here with offsets; whatever has to be taken apart (a record under another
name) is done with dnspython in ``rewrite.py``.

Sources: RFC 1035 section 4, RFC 2308 section 5, RFC 6891 section 6, RFC 8914.
"""

import struct
from dataclasses import dataclass

HEADER = struct.Struct("!HHHHHH")
"""Identifier, flags, counts of the four sections."""

QR, OPCODE, AA, TC, RD, RA, AD, CD = (
    *(0x8000, 0x7800, 0x0400, 0x0200),
    *(0x0100, 0x0080, 0x0020, 0x0010),
)
RCODE = 0x000F

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

CNAME, SOA, OPT, IXFR, AXFR = 5, 6, 41, 251, 252
IN = 1

CLASSIC = 512
"""Octets of an answer over UDP for who says nothing else (RFC 1035, section 2.3.4)."""

PAYLOAD = 1232
"""Octets over UDP that we say to take: what no network cuts (RFC 9715)."""

MOST_TTL = 86_400
"""Seconds; more is taken as this (RFC 8767, section 4, allows for a cap)."""

STALE, PROHIBITED, NETWORK_ERROR = 3, 18, 23
"""Extended errors (RFC 8914, section 4): Stale Answer, Prohibited, Network Error."""

_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_OPT = struct.Struct("!BHHIH")
_DO = 0x8000


@dataclass(slots=True)
class Question:
    """One question, as its client wrote it."""

    message: bytes
    id: int
    flags: int
    name: bytes
    """In wire format, in the client's letters."""
    key: bytes
    """The same in small letters."""
    type: int
    cls: int
    payload: int | None
    """Octets over UDP that the client takes; ``None`` without EDNS."""
    dnssec: bool
    """The client wants DNSSEC records (DO)."""
    version: int
    """Of EDNS."""


@dataclass(slots=True)
class Answer:
    """An answer without its OPT record, and where its TTLs are."""

    body: bytes
    rcode: int
    ttls: list[tuple[int, int]]
    """Offset and seconds."""
    ttl: int
    """Seconds that it may be kept: 0 when not at all."""


def parse_question(message: bytes) -> Question | int:
    """Read what a client sent.

    Returns the question; or the RCODE to answer with; or -1 when it is nothing that
    should be answered. Nothing in it makes this raise.
    """
    if len(message) < HEADER.size:
        return -1
    identifier, flags, questions, answers, authorities, additional = HEADER.unpack_from(
        message
    )
    if flags & QR:
        return -1
    if flags & OPCODE:
        return NOTIMP
    if questions != 1:
        return FORMERR
    try:
        end = _skip_labels(message, HEADER.size)
        kind, cls = _QUESTION.unpack_from(message, end)
        payload, extended = None, 0
        if additional:
            found = _find_opt(message, end + 4, answers + authorities + additional)
            if found is not None:
                payload, extended = found
    except (IndexError, struct.error, ValueError):
        return FORMERR
    name = bytes(message[HEADER.size : end])
    return Question(
        message=message,
        id=identifier,
        flags=flags,
        name=name,
        key=name.lower(),
        type=kind,
        cls=cls,
        payload=payload,
        dnssec=bool(extended & _DO),
        version=extended >> 16 & 0xFF,
    )


def _skip_labels(message: bytes, at: int) -> int:
    """Give the offset behind a name that is not compressed.

    Raises:
        ValueError, IndexError: it is none.
    """
    start = at
    while length := message[at]:
        if length > 63:
            raise ValueError("a pointer or an unknown kind of label")
        at += 1 + length
    if at - start > 254:
        raise ValueError("longer than 255 octets")
    return at + 1


def _skip_name(message: bytes, at: int) -> int:
    """Give the offset behind a name; pointers are not followed."""
    while length := message[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise ValueError("an unknown kind of label")
        at += 1 + length
    return at + 1


def _find_opt(message: bytes, at: int, records: int) -> tuple[int, int] | None:
    """Give class and TTL of the OPT record: payload size, and extended flags.

    Raises:
        ValueError, IndexError, struct.error: there are two, or not all the records.
    """
    found = None
    for _ in range(records):
        at = _skip_name(message, at)
        kind, cls, ttl, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size + length
        if kind == OPT:
            if found is not None:
                raise ValueError("two OPT records")  # RFC 6891, section 6.1.1
            found = cls, ttl
    if at > len(message):
        raise ValueError("cut short")
    return found


def parse_answer(message: bytes) -> Answer:
    """Read an answer to one question.

    Raises:
        ValueError: it is not one, or its records do not fit its length.
    """
    try:
        _, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
        if not flags & QR or questions != 1:
            raise ValueError("not an answer to one question")
        at = _skip_labels(message, HEADER.size) + 4
        ttls: list[tuple[int, int]] = []
        positive: int | None = None
        negative: int | None = None
        cut: tuple[int, int] | None = None
        rcode = flags & RCODE
        for number in range(answers + authorities + additional):
            start = at
            at = _skip_name(message, at)
            kind, _, ttl, length = _RECORD.unpack_from(message, at)
            if kind == OPT:
                if cut is not None or number < answers + authorities:
                    raise ValueError("an OPT record where none may be")
                at += _RECORD.size + length
                cut = start, at
                rcode |= ttl >> 24 << 4  # RFC 6891, section 6.1.3
                continue
            ttl = 0 if ttl >= 1 << 31 else min(ttl, MOST_TTL)  # RFC 2181, section 8
            ttls.append((at + 4, ttl))
            at += _RECORD.size + length
            if number < answers:
                positive = ttl if positive is None else min(positive, ttl)
            elif kind == SOA and number < answers + authorities:
                if length < 20:
                    raise ValueError("an SOA record without its times")
                (minimum,) = struct.unpack_from("!I", message, at - 4)
                negative = min(ttl, minimum)
        if at > len(message):
            raise ValueError("cut short")
    except (IndexError, struct.error) as exc:
        raise ValueError("cut short") from exc
    body = bytes(message[:at])
    if cut is not None:
        if cut[1] != at:
            raise ValueError("an OPT record that is not the last")
        body = HEADER.pack(0, flags, questions, answers, authorities, additional - 1)
        body += message[HEADER.size : cut[0]]
    return Answer(body, rcode, ttls, _ttl(rcode, positive, negative, bool(flags & TC)))


def _ttl(rcode: int, positive: int | None, negative: int | None, cut: bool) -> int:
    """RFC 2308, section 5: what denies has the time of its SOA record, or none.

    So has an alias of a name without such records (section 2.2).
    """
    if cut or rcode not in (NOERROR, NXDOMAIN):
        return 0
    if positive is None or rcode == NXDOMAIN:
        negative = negative or 0
    return min(x for x in (positive, negative) if x is not None)


def make_question(
    name: bytes, kind: int, *, dnssec: bool, checking: int, edns: bool
) -> bytes:
    """Ask in our own words.

    Args:
        name: in wire format.
        kind: type of record.
        dnssec: DNSSEC records are wanted.
        checking: :data:`CD` or 0, as the client said.
        edns: with an OPT record.
    """
    head = HEADER.pack(0, RD | checking, 1, 0, 0, int(edns))
    tail = _OPT.pack(0, OPT, PAYLOAD, _DO if dnssec else 0, 0) if edns else b""
    return head + name + _QUESTION.pack(kind, IN) + tail


def is_answer(answer: bytes, question: bytes) -> bool:
    """Whether a message answers a question: same identifier, same question.

    What cannot be answered with its question is answered without (RFC 1035, 4.1.1).
    """
    if len(answer) < HEADER.size or answer[:2] != question[:2]:
        return False
    _, flags, count, *_ = HEADER.unpack_from(answer)
    if not flags & QR:
        return False
    if count == 0:
        return flags & RCODE not in (NOERROR, NXDOMAIN)
    try:
        end = _skip_labels(question, HEADER.size)
    except (IndexError, ValueError):
        return False
    if question[end : end + 4] != answer[end : end + 4]:
        return False
    return question[HEADER.size : end].lower() == answer[HEADER.size : end].lower()


def complete(answer: Answer, question: Question, *, age: int, ttl: int | None) -> bytes:
    """Give an answer to a client whose question it answers.

    Args:
        answer: to the same question, whatever its letters.
        question: the client's.
        age: seconds since the answer came.
        ttl: seconds to say instead of what is left; for an answer that is stale.
    """
    body = bytearray(answer.body)
    (flags,) = struct.unpack_from("!H", body, 2)
    struct.pack_into("!HH", body, 0, question.id, flags & ~RD | question.flags & RD | RA)
    body[HEADER.size : HEADER.size + len(question.name)] = question.name
    for offset, seconds in answer.ttls:
        left = max(seconds - age, 0) if ttl is None else ttl
        struct.pack_into("!I", body, offset, left)
    if question.payload is not None:
        _add_opt(body, question, None if ttl is None else STALE)
    return bytes(body)


def refuse(
    question: Question, rcode: int, *, error: int | None = None, text: str = ""
) -> bytes:
    """Answer with an RCODE and nothing else; to those who know EDNS, with the reason.

    Args:
        question: the client's.
        rcode: up to 4095; its upper part needs EDNS.
        error: an extended error of RFC 8914.
        text: for people, with ``error``.
    """
    flags = QR | RA | question.flags & (RD | CD) | rcode & RCODE
    body = bytearray(HEADER.pack(question.id, flags, 1, 0, 0, 0))
    body += question.name + _QUESTION.pack(question.type, question.cls)
    if question.payload is not None:
        _add_opt(body, question, error, text, rcode >> 4)
    return bytes(body)


def refuse_unread(message: bytes, rcode: int) -> bytes:
    """Answer what could not be read: its header, and an RCODE."""
    identifier, flags, *_ = HEADER.unpack_from(message)
    return HEADER.pack(identifier, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0)


def truncate(question: Question, flags: int) -> bytes:
    """Say that the answer does not fit: whoever wants it asks over TCP."""
    body = bytearray(HEADER.pack(question.id, flags | TC, 1, 0, 0, 0))
    body += question.name + _QUESTION.pack(question.type, question.cls)
    if question.payload is not None:
        _add_opt(body, question)
    return bytes(body)


def fit(reply: bytes, question: Question) -> bytes:
    """Give what of a reply goes over UDP: all of it, or that it does not fit."""
    if len(reply) <= max(question.payload or CLASSIC, CLASSIC):
        return reply
    return truncate(question, HEADER.unpack_from(reply)[1])


def _add_opt(
    body: bytearray,
    question: Question,
    error: int | None = None,
    text: str = "",
    upper: int = 0,
) -> None:
    """Append our OPT record (RFC 6891, section 6.1.2; an error by RFC 8914, section 2)."""
    option = b""
    if error is not None:
        said = text.encode()[:200]
        option = struct.pack("!HHH", 15, 2 + len(said), error) + said
    extended = upper << 24 | (_DO if question.dnssec else 0)
    body += _OPT.pack(0, OPT, PAYLOAD, extended, len(option)) + option
    (count,) = struct.unpack_from("!H", body, 10)
    struct.pack_into("!H", body, 10, count + 1)


def wire(name: str) -> bytes:
    """Give a name in wire format, in small letters; a dot at its end means nothing.

    Raises:
        ValueError: it is no name.
    """
    text = name.strip(".").lower()
    labels = text.encode("ascii").split(b".") if text else []
    if not all(0 < len(label) < 64 for label in labels) or len(text) > 253:
        raise ValueError(f"{name!r} is not a name")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def text(name: bytes) -> str:
    r"""Give a name in wire format to people, without the dot at its end.

    What is not printable is written as RFC 1035, section 5.1 has it: ``\DDD``.
    """
    labels, at = [], 0
    while length := name[at]:
        label = name[at + 1 : at + 1 + length]
        labels.append(
            "".join(
                chr(octet) if 0x20 < octet < 0x7F and octet != 0x2E else f"\\{octet:03}"
                for octet in label
            )
        )
        at += 1 + length
    return ".".join(labels) or "."
