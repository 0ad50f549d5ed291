"""DNS messages, against dnspython, and against whatever may come in a datagram."""

import random
import struct

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.questions import SOA, answer, query, read, response, said, texts
from tunstack.dns import message as msg

ECHO = "Echo.Default.svc.cluster.local."
KEY = b"\4echo\7default\3svc\7cluster\5local\0"

HEAD = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
NAME = b"\1a\7example\0"
A = struct.pack("!HH", 1, 1)
OPT = struct.pack("!BHHIH", 0, 41, 1232, 0, 0)

REPLY = struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0)
RECORD = struct.pack("!HHIH", 1, 1, 30, 4) + bytes(4)

ANSWERS = {
    "A": ["@ 30 A 10.96.0.7", "@ 30 A 10.96.0.8"],
    "AAAA": ["@ 30 AAAA fd00::7"],
    "PTR": ["@ 30 PTR 10-0-0-7.echo.default.svc.cluster.local."],
    "SRV": ["@ 30 SRV 0 50 80 echo-0.echo.default.svc.cluster.local."],
    "TXT": ['@ 30 TXT "one" "two; three"'],
    "MX": ["@ 30 MX 10 mail.example.", "@ 30 MX 20 mail2.example."],
    "CNAME": ["@ 30 CNAME www.example."],
    "HTTPS": ["@ 30 HTTPS 1 . alpn=h2,h3 ipv4hint=10.96.0.7"],
    "SVCB": ["@ 30 SVCB 1 pool.example. port=8443"],
    "NS": ["@ 30 NS ns.example."],
    "SOA": ["@ 30 SOA ns.example. hostmaster.example. 1 2 3 4 5"],
    "TYPE65280": [r"@ 30 TYPE65280 \# 5 c00cff0029"],
    "NAPTR": ['@ 30 NAPTR 1 2 "s" "http" "" _http._tcp.example.'],
}


def parse(message):
    question = msg.parse_question(message)
    assert isinstance(question, msg.Question)
    return question


def asking(name=ECHO, kind="A", **more):
    return parse(query(name, kind, **more))


def kept(message):
    return msg.parse_answer(message)


# Questions


def test_questions_for_every_type_are_read():
    kinds = {int(kind) for kind in dns.rdatatype.RdataType} | {0, 65280, 65535}
    for kind in kinds:
        question = parse(HEAD + NAME + struct.pack("!HH", kind, 1))
        assert (question.name, question.type, question.cls) == (NAME, kind, 1)


def test_a_question_keeps_the_letters_of_its_client():
    question = asking(number=0xBEEF)
    assert question.id == 0xBEEF
    assert question.name == b"\4Echo\7Default\3svc\7cluster\5local\0"
    assert question.key == KEY


@pytest.mark.parametrize(
    ("more", "payload", "dnssec", "checking"),
    [
        ({"payload": None}, None, False, 0),
        ({"payload": 512}, 512, False, 0),
        ({"payload": 4096, "dnssec": True}, 4096, True, 0),
        ({"checking": True}, 1232, False, msg.CD),
        ({"checking": True, "payload": None}, None, False, msg.CD),
        ({"options": [dns.edns.ECSOption("192.0.2.0", 24)]}, 1232, False, 0),
        (
            {"dnssec": True, "options": [dns.edns.GenericOption(10, bytes(8))]},
            1232, True, 0,
        ),
    ],
)  # fmt: skip
def test_edns_says_what_the_client_takes(more, payload, dnssec, checking):
    question = asking(**more)
    assert question.payload == payload
    assert question.dnssec is dnssec
    assert question.flags & msg.CD == checking
    assert question.version == 0


def test_the_version_of_edns_is_read():
    wire = query(ECHO)
    assert parse(wire[:-6] + b"\0\7\0\0\0\0").version == 7


def test_opt_is_found_behind_other_records():
    """So does a question for the changes of a zone: it has an SOA record."""
    soa = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 0, 22) + bytes(22)
    head = struct.pack("!HHHHHH", 7, 0, 1, 0, 1, 1)
    ixfr = head + NAME + struct.pack("!HH", 251, 1) + soa + OPT
    assert parse(ixfr).payload == 1232


def long_name(octets):
    """Make a name of so many octets on the wire, more than 200."""
    labels = [b"a" * 63] * 3
    rest = octets - 1 - 3 * 64 - 1
    labels.append(b"a" * rest)
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


@pytest.mark.parametrize(
    "name", [long_name(254), long_name(255), b"\0", b"\x3f" + 63 * b"x" + b"\0"]
)
def test_a_name_may_be_as_long_as_names_can_be(name):
    assert parse(HEAD + name + A).key == name


def counts(*numbers, flags=0x0100):
    return struct.pack("!HHHHHH", 7, flags, *numbers)


NO_QUESTION = {
    "nothing": (-1, b""),
    "half a header": (-1, HEAD[:11]),
    "an answer": (-1, counts(1, 0, 0, 0, flags=0x8180) + NAME + A),
    "an answer to an update": (-1, counts(1, 0, 0, 0, flags=0xA100)),
    "an update": (4, counts(1, 0, 0, 0, flags=0x2800) + NAME + A),
    "an inverse query": (4, counts(1, 0, 0, 0, flags=0x0800) + NAME + A),
    "no question": (1, counts(0, 0, 0, 0)),
    "two questions": (1, counts(2, 0, 0, 0) + (NAME + A) * 2),
    "no name": (1, HEAD),
    "a name without end": (1, HEAD + NAME[:-1]),
    "half a label": (1, HEAD + NAME[:4]),
    "no type": (1, HEAD + NAME),
    "half a class": (1, HEAD + NAME + A[:3]),
    "a pointer to itself": (1, HEAD + b"\xc0\x0c" + A),
    "a pointer in the name": (1, HEAD + b"\1a\xc0\x0c" + A),
    "a label of 64": (1, HEAD + b"\x40" + b"a" * 64 + b"\0" + A),
    "an unknown kind of label": (1, HEAD + b"\x80a\0" + A),
    "a name of 256": (1, HEAD + long_name(256) + A),
    "a huge name": (1, HEAD + (b"\x3f" + b"a" * 63) * 900 + b"\0" + A),
    "no OPT": (1, counts(1, 0, 0, 1) + NAME + A),
    "no second record": (1, counts(1, 0, 0, 2) + NAME + A + OPT),
    "no answers": (1, counts(1, 9, 0, 1) + NAME + A + OPT),
    "not 65 535 records": (1, counts(1, 0, 0, 65535) + NAME + A),
    "OPT, cut": (1, counts(1, 0, 0, 1) + NAME + A + OPT[:-1]),
    "OPT, no options": (1, counts(1, 0, 0, 1) + NAME + A + OPT[:-2] + b"\0\4\0\12\0"),
    "two OPT": (1, counts(1, 0, 0, 2) + NAME + A + OPT + OPT),
    "half a record": (1, counts(1, 0, 0, 1) + NAME + A + NAME + RECORD[:-1]),
}


@pytest.mark.parametrize("name", NO_QUESTION)
def test_what_is_no_question_is_a_value(name):
    want, message = NO_QUESTION[name]
    assert msg.parse_question(message) == want


@st.composite
def damaged(draw, originals):
    """Take a message and change some of it, or cut it."""
    message = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))]) + draw(
        st.binary(max_size=8)
    )


QUERIES = [query(ECHO), query(ECHO, payload=None), query(".", "NS", dnssec=True)]


@given(st.binary(max_size=80) | st.binary(max_size=60).map(HEAD.__add__) | damaged(QUERIES))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_nothing_in_a_question_raises(message):
    question = msg.parse_question(message)
    if isinstance(question, int):
        assert question in (-1, msg.FORMERR, msg.NOTIMP)
        if question >= 0:
            reply = msg.refuse_unread(message, question)
            assert reply[:2] == message[:2]
            assert read(reply).rcode() == question
        return
    reply = msg.refuse(question, msg.SERVFAIL, error=msg.NETWORK_ERROR, text="why")
    assert msg.is_answer(reply, message)
    assert read(reply).rcode() == msg.SERVFAIL


def test_what_could_not_be_read_is_refused_with_its_header():
    reply = msg.refuse_unread(counts(1, 2, 3, 4, flags=0x2910) + b"junk", msg.NOTIMP)
    assert reply == struct.pack("!HHHHHH", 7, 0x8000 | 0x2800 | 0x0100 | 4, 0, 0, 0, 0)


# Answers


def everything(kind, *, opt):
    """An answer of some type, with records in all sections."""
    question = query(ECHO, kind)
    authority = ["cluster.local. 40 NS ns.dns.cluster.local."]
    additional = [
        "ns.dns.cluster.local. 50 A 10.96.0.10",
        "ns.dns.cluster.local. 60 AAAA ::1",
    ]
    return response(
        question, *ANSWERS[kind], authority=authority, additional=additional, opt=opt
    )


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_is_kept_byte_for_byte_without_its_opt_record(kind):
    plain = everything(kind, opt=False).to_wire()
    for message in (plain, everything(kind, opt=True).to_wire()):
        found = kept(message)
        assert found.body[2:] == plain[2:]
        assert found.rcode == 0
        assert found.ttl == 30


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("opt", [True, False])
def test_times_to_live_count_down_and_nothing_else_changes(kind, opt):
    wire = everything(kind, opt=opt).to_wire()
    client = asking(kind=kind, payload=None)
    for age in (0, 7, 35, 45, 1000):
        reply = read(msg.complete(kept(wire), client, age=age, ttl=None))
        for before, after in zip(read(wire).sections[1:], reply.sections[1:], strict=True):
            for old, new in zip(before, after, strict=True):
                assert new == old  # which leaves out the TTL
                assert new.ttl == max(old.ttl - age, 0)
        assert reply.opt is None


def test_times_to_live_are_at_most_a_day_and_none_below_zero():
    """RFC 2181, section 8: what has the highest bit is taken as zero."""
    question = query(ECHO)
    lines = ["@ 2147483647 A 10.96.0.7", "a.example. 90000 A 10.96.0.8"]
    assert kept(answer(question, *lines)).ttl == 86_400
    wire = answer(question, "@ 1 A 10.96.0.7")
    wire = wire.replace(b"\0\0\0\1\0\4", b"\x80\0\0\1\0\4")
    found = kept(wire)
    assert found.ttl == 0
    assert read(msg.complete(found, asking(), age=0, ttl=None)).answer[0].ttl == 0


SHORT_SOA = SOA.replace(" 30 ", " 5 ")
CHAIN = ["@ 12 CNAME gone.example."]


@pytest.mark.parametrize(
    ("ttl", "rcode", "lines", "authority", "flags"),
    [
        (20, "NXDOMAIN", [], [SOA], 0),  # the SOA record's minimum
        (5, "NXDOMAIN", [], [SHORT_SOA], 0),  # the SOA record's own
        (20, "NOERROR", [], [SOA], 0),
        (5, "NOERROR", [], [SHORT_SOA], 0),
        (0, "NXDOMAIN", [], [], 0),
        (0, "NOERROR", [], [], 0),
        (0, "NOERROR", [], ["example. 30 NS ns.example."], 0),
        (0, "NXDOMAIN", CHAIN, [], 0),
        (12, "NXDOMAIN", CHAIN, [SOA], 0),
        (5, "NXDOMAIN", CHAIN, [SHORT_SOA], 0),
        (12, "NOERROR", CHAIN, [], 0),
        (5, "NOERROR", CHAIN, [SHORT_SOA], 0),
        (3, "NOERROR", ["@ 9 A 10.0.0.1", "@ 3 A 10.0.0.2"], [], 0),
        (0, "NOERROR", ["@ 0 A 10.0.0.1"], [], 0),
        (9, "NOERROR", ["@ 9 A 10.0.0.1"], ["example. 2 NS ns.example."], 0),
        (0, "NOERROR", ["@ 9 A 10.0.0.1"], [], dns.flags.TC),
        (0, "NXDOMAIN", [], [SOA], dns.flags.TC),
        (0, "SERVFAIL", [], [SOA], 0),
        (0, "REFUSED", ["@ 9 A 10.0.0.1"], [], 0),
        (0, "BADVERS", ["@ 9 A 10.0.0.1"], [], 0),
    ],
)
def test_an_answer_may_be_kept_as_long_as_it_says(ttl, rcode, lines, authority, flags):
    message = response(query(ECHO), *lines, rcode=rcode, authority=authority, flags=flags)
    found = kept(message.to_wire())
    assert found.ttl == ttl
    assert found.rcode == message.rcode()


def test_an_answer_with_255_records_is_read():
    lines = [f"@ {30 + number} A 10.0.1.{number}" for number in range(255)]
    found = kept(answer(query(ECHO), *lines, opt=True))
    assert len(found.ttls) == 255
    assert found.ttl == 30


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(struct.pack("!H", 0xC000 | 12 + len(NAME + A)), id="to itself"),
        pytest.param(b"\1a" + struct.pack("!H", 0xC000 | 12 + len(NAME + A)), id="back"),
        pytest.param(b"\xff\xff", id="beyond the end"),
        pytest.param(b"\xc0\0", id="into the header"),
    ],
)
def test_pointers_are_not_followed(owner):
    """Nobody needs the names; so a loop of them costs nothing."""
    message = REPLY + NAME + A + owner + RECORD
    assert kept(message).body == message


NO_ANSWER = {
    "nothing": b"",
    "half a header": REPLY[:11],
    "a question": HEAD + NAME + A,
    "no question": counts(0, 0, 0, 0, flags=0x8180),
    "two questions": counts(2, 0, 0, 0, flags=0x8180) + (NAME + A) * 2,
    "a pointer for its name": REPLY + b"\xc0\x0c" + A,
    "no record": REPLY + NAME + A,
    "half a pointer": REPLY + NAME + A + b"\xc0",
    "an unknown kind of label": REPLY + NAME + A + b"\x80" + RECORD,
    "half a record": REPLY + NAME + A + b"\xc0\x0c" + RECORD[:9],
    "half an address": REPLY + NAME + A + b"\xc0\x0c" + RECORD[:-1],
    "counts that lie": counts(1, 65535, 65535, 65535, flags=0x8180) + NAME + A,
    "SOA without its times": (
        counts(1, 0, 1, 0, flags=0x8183) + NAME + A + b"\0\0\6\0\1" + bytes(5) + b"\3soa"
    ),
    "OPT, an answer": counts(1, 1, 0, 0, flags=0x8180) + NAME + A + OPT,
    "OPT, authority": counts(1, 0, 1, 0, flags=0x8180) + NAME + A + OPT,
    "two OPT": counts(1, 0, 0, 2, flags=0x8180) + NAME + A + OPT * 2,
    "OPT, cut": counts(1, 0, 0, 1, flags=0x8180) + NAME + A + OPT[:-2] + b"\0\4\0",
    "OPT, not the last": (
        counts(1, 0, 0, 2, flags=0x8180) + NAME + A + OPT + b"\xc0\x0c" + RECORD
    ),
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_what_is_no_answer_is_a_value_error(name):
    with pytest.raises(ValueError):
        kept(NO_ANSWER[name])


REPLIES = [everything(kind, opt=bool(at % 2)).to_wire() for at, kind in enumerate(ANSWERS)]


@given(
    st.binary(max_size=80) | st.binary(max_size=60).map(REPLY.__add__) | damaged(REPLIES)
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_an_answer_raises_nothing_but_value_error(message):
    try:
        found = kept(message)
    except ValueError:
        return
    assert 0 <= found.ttl <= 86_400
    assert all(offset + 4 <= len(found.body) for offset, _ in found.ttls)
    # What was taken can be read again, as it is.
    assert kept(found.body).ttls == found.ttls


# What clients are told


def given_to(question, *, flags=0, age=0, ttl=None, lines=("@ 30 A 10.96.0.7",)):
    cluster = response(query(ECHO.lower(), number=0), *lines, flags=flags)
    cluster.flags &= ~dns.flags.RA
    return msg.complete(kept(cluster.to_wire()), question, age=age, ttl=ttl)


def test_a_client_gets_its_own_identifier_and_letters():
    question = asking("eCHo.DEFAULT.svc.cluster.LOCAL.", number=0xABCD)
    wire = given_to(question)
    reply = read(wire)
    assert reply.id == 0xABCD
    assert wire[12 : 12 + len(question.name)] == question.name
    # The record's name is compressed: whoever compares letters finds them (0x20).
    assert reply.answer[0].name.to_text() == "eCHo.DEFAULT.svc.cluster.LOCAL."


@pytest.mark.parametrize("wanted", [0, dns.flags.RD])
@pytest.mark.parametrize("flags", [0, dns.flags.AA, dns.flags.AD | dns.flags.TC])
def test_flags_are_the_resolver_s_but_recursion_is_ours(wanted, flags):
    reply = read(given_to(asking(flags=wanted), flags=flags))
    assert reply.flags == dns.flags.QR | dns.flags.RA | wanted | flags


@pytest.mark.parametrize("payload", [None, 512, 4096])
@pytest.mark.parametrize("dnssec", [False, True])
def test_edns_is_spoken_to_those_who_speak_it(payload, dnssec):
    question = asking(payload=payload, dnssec=dnssec)
    for wire in (
        given_to(question),
        msg.refuse(question, msg.REFUSED),
        msg.truncate(question, msg.QR),
    ):
        opt = read(wire).opt
        assert (opt is not None) is (payload is not None)
        if opt is not None:
            assert read(wire).payload == 1232
            assert bool(read(wire).ednsflags & dns.flags.DO) is dnssec
            assert read(wire).edns == 0


def test_a_stale_answer_says_so():
    """RFC 8914, section 4.4: Stale Answer."""
    reply = read(given_to(asking(), age=5000, ttl=1))
    assert texts(reply.answer) == [f"{ECHO} 1 A 10.96.0.7"]
    assert [option.code for option in reply.options] == [dns.edns.EDECode.STALE_ANSWER]
    assert texts(read(given_to(asking(payload=None), age=5000, ttl=1)).answer)
    assert read(given_to(asking(), age=29)).options == ()


def test_a_refusal_says_why_to_those_who_can_read_it():
    reply = msg.refuse(asking(), msg.SERVFAIL, error=msg.NETWORK_ERROR, text="it is away")
    assert said(reply) == ["it is away"]
    assert read(reply).options[0].code == dns.edns.EDECode.NETWORK_ERROR
    reply = msg.refuse(
        asking(payload=None), msg.SERVFAIL, error=msg.NETWORK_ERROR, text="it is away"
    )
    assert read(reply).opt is None
    assert read(reply).rcode() == msg.SERVFAIL


@pytest.mark.parametrize("rcode", [msg.FORMERR, msg.SERVFAIL, msg.REFUSED, msg.BADVERS])
def test_a_refusal_is_an_answer_to_the_question(rcode):
    asked = query(ECHO, "TYPE65280", checking=True)
    reply = msg.refuse(parse(asked), rcode)
    assert msg.is_answer(reply, asked)
    assert read(reply).rcode() == rcode
    assert read(reply).flags & ~0xF == 0x8190  # QR, RD, RA, CD
    assert read(reply).question == read(asked).question


def test_a_long_reason_is_cut():
    reply = msg.refuse(asking(), msg.SERVFAIL, error=msg.NETWORK_ERROR, text="x" * 5000)
    assert said(reply) == ["x" * 200]


@pytest.mark.parametrize(
    ("payload", "most"), [(None, 512), (0, 512), (511, 512), (512, 512), (1232, 1232)]
)
def test_over_udp_an_answer_has_the_size_that_its_client_takes(payload, most):
    question = asking(payload=payload)
    padding = most - len(given_to(question, lines=['@ 30 TXT "x"'])) + 1
    for more, fits in ((0, True), (1, False)):
        wire = given_to(question, lines=[txt(padding + more)])
        assert len(wire) == most + more
        sent = msg.fit(wire, question)
        if fits:
            assert sent == wire
            continue
        reply = read(sent)
        assert reply.flags & dns.flags.TC
        assert reply.sections[1:] == [[], [], []]
        assert msg.is_answer(sent, question.message)
        assert (reply.opt is not None) is (payload is not None)


def txt(octets):
    """A record with so many octets of text; each 255 have one more for their length."""
    strings = []
    octets += 1
    while octets > 0:
        size = min(octets - 1, 255)
        if octets - size - 1 == 1:
            size -= 1
        strings.append('"' + "x" * size + '"')
        octets -= size + 1
    return "@ 30 TXT " + " ".join(strings)


def test_what_does_not_fit_keeps_its_rcode():
    question = asking(payload=None)
    message = response(question.message, txt(700), rcode="NXDOMAIN")
    reply = read(msg.fit(message.to_wire(), question))
    assert reply.rcode() == msg.NXDOMAIN
    assert reply.flags & dns.flags.TC


# Between us and a name server


def is_answer(asked, *, number=None, flags=0x8180, name=None, kind=1, count=1):
    message = dns.message.from_wire(asked)
    head = struct.pack("!HHHHHH", number or message.id, flags, count, 0, 0, 0)
    tail = (name or message.question[0].name.to_wire()) + struct.pack("!HH", kind, 1)
    return msg.is_answer(head + (tail if count else b""), asked)


@pytest.mark.parametrize(
    ("want", "more"),
    [
        (True, {}),
        (True, {"flags": 0x8182}),
        (True, {"name": KEY}),
        (True, {"name": KEY.upper()}),
        (True, {"count": 0, "flags": 0x8181}),  # FORMERR: it may not have read that far
        (True, {"count": 0, "flags": 0x8185}),
        (False, {"count": 0}),
        (False, {"count": 0, "flags": 0x8183}),
        (False, {"number": 0x1235}),
        (False, {"flags": 0x0100}),
        (False, {"kind": 28}),
        (False, {"name": b"\4echo\5other\3svc\7cluster\5local\0"}),
        (False, {"name": KEY[5:]}),
    ],
)
def test_an_answer_has_the_identifier_and_the_question(want, more):
    assert is_answer(query(ECHO), **more) is want


def test_letters_are_alike_in_names_only():
    """Types 65 (HTTPS) and 97 differ by what makes a letter small."""
    assert is_answer(query(ECHO, "HTTPS"), kind=65)
    assert not is_answer(query(ECHO, "HTTPS"), kind=97)


@pytest.mark.parametrize("length", range(12))
def test_less_than_a_header_is_no_answer(length):
    assert not msg.is_answer(answer(query(ECHO))[:length], query(ECHO))


@given(st.binary(max_size=60), st.binary(max_size=60))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_whether_it_is_an_answer_can_be_said_of_anything(one, other):
    assert msg.is_answer(one, other) in (True, False)
    assert msg.is_answer(REPLY + one, REPLY + other) in (True, False)


@pytest.mark.parametrize("kind", ["A", "HTTPS", "TYPE65280"])
@pytest.mark.parametrize("dnssec", [False, True])
@pytest.mark.parametrize("checking", [0, msg.CD])
@pytest.mark.parametrize("edns", [False, True])
def test_our_own_questions_are_understood(kind, dnssec, checking, edns):
    number = int(dns.rdatatype.from_text(kind))
    wire = msg.make_question(KEY, number, dnssec=dnssec, checking=checking, edns=edns)
    message = read(wire)
    assert message.flags == dns.flags.RD | checking
    assert str(message.question[0]) == f"{ECHO.lower()} IN {kind}"
    assert (message.edns, message.payload) == ((0, 1232) if edns else (-1, 0))
    assert bool(message.ednsflags & dns.flags.DO) is (dnssec and edns)


# Names


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", b"\0"),
        (".", b"\0"),
        ("com", b"\3com\0"),
        (".Cluster.Local.", b"\7cluster\5local\0"),
        ("_http._tcp.echo", b"\5_http\4_tcp\4echo\0"),
        ("a" * 63, b"\x3f" + b"a" * 63 + b"\0"),
    ],
)
def test_names_in_wire_format_have_small_letters_and_no_dots(text, wire):
    assert msg.wire(text) == wire
    assert msg.text(wire) == (text.strip(".").lower() or ".")


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "é.example", ".".join(["a" * 49] * 6)])
def test_what_is_no_name_has_no_wire_format(name):
    with pytest.raises(ValueError):
        msg.wire(name)


def test_any_name_can_be_shown():
    """What is not ASCII in it is written with backslashes."""
    octets = random.Random(53).sample(range(256), 63)
    shown = msg.text(b"\x3f" + bytes(octets) + b"\1a\0")
    assert shown.isascii()
    assert shown.endswith(".a")
