"""DNS messages that somebody else made: dnspython writes and reads them."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

SOA = "cluster.local. 30 SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 9 8 7 20"
"""What CoreDNS denies with; the time of the denial is 20 s."""


def query(
    name,
    kind="A",
    *,
    number=0x1234,
    cls="IN",
    payload=1232,
    dnssec=False,
    checking=False,
    options=None,
    flags=dns.flags.RD,
):
    """Write a question; without EDNS where ``payload`` is ``None``."""
    message = dns.message.make_query(name, kind, cls, id=number, flags=flags)
    if payload is not None:
        ednsflags = dns.flags.DO if dnssec else 0
        message.use_edns(0, ednsflags, payload=payload, options=options)
    if checking:
        message.flags |= dns.flags.CD
    return message.to_wire()


def records(*lines, name=None):
    """Make records of lines as ``name TTL TYPE data``; ``@`` is ``name``."""
    found = []
    for line in lines:
        owner, ttl, kind, data = line.split(None, 3)
        owner = name if owner == "@" else owner
        found.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
    return found


def response(
    question, *lines, rcode="NOERROR", authority=(), additional=(), flags=0, opt=False
):
    """Make the answer to a question, as a message of dnspython."""
    asked = dns.message.from_wire(question)
    message = dns.message.Message(asked.id)
    message.flags = dns.flags.QR | dns.flags.RD | dns.flags.RA | flags
    message.question = asked.question
    name = asked.question[0].name
    message.answer = records(*lines, name=name)
    message.authority = records(*authority, name=name)
    message.additional = records(*additional, name=name)
    message.set_rcode(dns.rcode.from_text(rcode))
    if opt:
        message.use_edns(0, payload=4096, options=[dns.edns.GenericOption(65001, b"xy")])
    return message


def answer(question, *lines, **more):
    """Write the answer to a question; see :func:`response`."""
    return response(question, *lines, **more).to_wire(max_size=65_535)


def read(message):
    """Read what was sent; a message of dnspython."""
    return dns.message.from_wire(message)


def texts(rrsets):
    """Give records as lines: ``name TTL TYPE data``, classes left out."""
    return [
        line.replace(" IN ", " ") for rrset in rrsets for line in str(rrset).split("\n")
    ]


def said(message):
    """Give the text of the extended error in an answer (RFC 8914); else nothing."""
    options = read(message).options
    return [option.text for option in options if isinstance(option, dns.edns.EDEOption)]
