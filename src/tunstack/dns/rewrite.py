"""Answers under another name than they were asked for: taken apart and made anew."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tunstack.dns.message import Answer, Question, parse_answer

_COMPRESSED = (
    *("NS", "CNAME", "SOA", "PTR", "MX", "RP"),
    *("AFSDB", "RT", "PX", "NAPTR", "SRV", "DNAME"),
)
"""Types of records whose names may be pointers into the message (RFC 3597, section 4)."""

for _kind in (*_COMPRESSED, "A", "AAAA"):
    # dnspython would load each when it meets it. By then the engine may no longer be able
    # to read it, and a record that is copied as octets points to where nothing is any more.
    _type = dns.rdatatype.from_text(_kind)
    dns.rdata.get_rdata_class(dns.rdataclass.IN, _type)  # type: ignore[no-untyped-call]

Alias = tuple[bytes, bytes]
"""A name and what it stands for, in wire format."""

ALIAS_TTL = 5
"""Seconds that a mapping of the settings may be kept by whoever asked."""


def rename(
    answer: Answer, asked: bytes, question: Question, aliases: Sequence[Alias]
) -> Answer:
    """Make the answer to ``question`` of one to another name.

    What was said of ``asked`` is said of the question's name, or where aliases lead
    from there: they come first, as CNAME records. A zone that denies is named by its
    last label, so that whoever keeps denials finds the name within (RFC 2308, section 5).
    Records stay in their order.

    Args:
        answer: of the cluster.
        asked: the name it is about.
        question: the client's.
        aliases: the way from the question's name, in order.

    Raises:
        ValueError: dnspython cannot read the answer.
    """
    old, shown = _name(asked), _name(aliases[-1][1] if aliases else question.name)
    try:
        message = dns.message.from_wire(answer.body, one_rr_per_rrset=True)
    except dns.exception.DNSException as exc:
        raise ValueError(f"the answer cannot be read: {exc}") from exc
    for section in (message.answer, message.authority, message.additional):
        for rrset in section:
            if rrset.name == old:
                rrset.name = shown
            elif rrset.rdtype == dns.rdatatype.SOA and not shown.is_subdomain(rrset.name):
                rrset.name = dns.name.Name(shown.labels[-2:])
    message.answer[:0] = [_cname(alias) for alias in aliases]
    return _remake(message, question)


def local(
    question: Question,
    aliases: Sequence[Alias],
    address: IPv4Address | IPv6Address | None,
) -> Answer:
    """Answer from the settings: aliases, and the address at their end.

    Args:
        question: the client's.
        aliases: the way from the question's name, in order.
        address: answers questions for its type; ``None`` when there is none to say.
    """
    message = dns.message.Message()
    message.flags = dns.flags.QR | dns.flags.RA
    message.answer = [_cname(alias) for alias in aliases]
    kind = dns.rdatatype.A if address and address.version == 4 else dns.rdatatype.AAAA
    if address is not None and question.type == kind:
        owner = _name(aliases[-1][1] if aliases else question.name)
        message.answer.append(
            dns.rrset.from_text(owner, ALIAS_TTL, "IN", kind, str(address))
        )
    return _remake(message, question)


def _remake(message: dns.message.Message, question: Question) -> Answer:
    name = _name(question.name)
    message.question = [
        dns.rrset.RRset(name, dns.rdataclass.IN, dns.rdatatype.RdataType(question.type))
    ]
    try:
        return parse_answer(message.to_wire(max_size=65_535))
    except dns.exception.DNSException as exc:
        raise ValueError(f"the answer cannot be written: {exc}") from exc


def _cname(alias: Alias) -> dns.rrset.RRset:
    owner, target = alias
    return dns.rrset.from_text(
        _name(owner), ALIAS_TTL, "IN", "CNAME", _name(target).to_text()
    )


def _name(wire: bytes) -> dns.name.Name:
    return dns.name.from_wire(wire, 0)[0]
