"""Answers under another name: what is said of it stays the same."""

import subprocess
import sys
from ipaddress import ip_address
from itertools import pairwise

import dns.flags
import dns.name
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.questions import SOA, answer, query, read, records, texts
from tunstack.dns.message import Answer, complete, parse_answer, parse_question, text, wire
from tunstack.dns.rewrite import ALIAS_TTL, local, rename

FULL = "echo.default.svc.cluster.local."
SHORT = "Echo.Default."

RECORDS = {
    "A": ["@ 5 A 10.96.0.7", "@ 5 A 10.96.0.8"],
    "AAAA": ["@ 5 AAAA fd00::7"],
    "SRV": [
        f"@ 5 SRV 0 50 80 10-0-0-7.{FULL}", f"@ 5 SRV 0 50 80 10-0-0-8.{FULL}",
    ],
    "TXT": [r'@ 5 TXT "a=\"b\"" "\000\255"'],
    "MX": [f"@ 5 MX 10 {FULL}"],
    "NS": ["@ 5 NS ns.dns.cluster.local."],
    "PTR": [f"@ 5 PTR {FULL}"],
    "SOA": ["@ 5 SOA ns.dns.cluster.local. root.cluster.local. 1 2 3 4 5"],
    "HTTPS": ["@ 5 HTTPS 1 . alpn=h2,h3 port=8443 ipv6hint=fd00::7"],
    "SVCB": [f"@ 5 SVCB 1 {FULL} port=8443"],
    "CAA": ['@ 5 CAA 0 issue "ca.example"'],
    "NAPTR": ['@ 5 NAPTR 1 2 "s" "http" "" _http._tcp.example.'],
    "TLSA": ["@ 5 TLSA 3 1 0 0123456789abcdef"],
    "RRSIG": [
        "@ 5 RRSIG A 8 2 5 20300101000000 20200101000000 7 cluster.local. AAECAwQF",
    ],
    "NSEC": [f"@ 5 NSEC {FULL} A RRSIG"],
    "TYPE65280": [r"@ 5 TYPE65280 \# 5 c00cff0029"],
}  # fmt: skip


def asking(name=SHORT, kind="A"):
    return parse_question(query(name, kind, payload=None))


def renamed(*lines, name=SHORT, kind="A", aliases=(), **more):
    """Rename the answer for FULL, and read what its client is given."""
    question = asking(name, kind)
    given = parse_answer(answer(query(FULL.lower(), kind), *lines, **more))
    pairs = [
        (question.name if at == 0 else wire(a), wire(b))
        for at, (a, b) in enumerate(aliases)
    ]
    made = rename(given, wire(FULL), question, pairs)
    assert made.ttl == min((given.ttl, *[ALIAS_TTL] * len(pairs)))
    return read(complete(made, question, age=0, ttl=None))


@pytest.mark.parametrize("kind", RECORDS)
def test_what_is_said_of_one_name_is_said_of_the_other(kind):
    reply = renamed(*RECORDS[kind], kind=kind)
    assert [str(question) for question in reply.question] == [f"{SHORT} IN {kind}"]
    assert {rrset.name.to_text() for rrset in reply.answer} == {SHORT}
    want = [data for rrset in records(*RECORDS[kind], name=FULL) for data in rrset]
    assert {data for rrset in reply.answer for data in rrset} == set(want)
    assert {rrset.ttl for rrset in reply.answer} == {5}


def test_records_stay_in_their_order_and_have_their_own_times():
    """The cluster's resolver shuffles them, which is all the balance there may be."""
    lines = [f"@ {at} A 10.0.0.{at}" for at in (9, 3, 7, 1, 8)]
    given = parse_answer(answer(query(FULL), *lines))
    made = rename(given, wire(FULL), asking(), ())
    assert [made.body[at + 6 : at + 10][-1] for at, _ in made.ttls] == [9, 3, 7, 1, 8]
    assert [ttl for _, ttl in made.ttls] == [9, 3, 7, 1, 8]


def test_every_section_keeps_what_is_said_of_others():
    reply = renamed(
        "@ 5 CNAME www.example.", "www.example. 9 A 192.0.2.7",
        authority=["example. 70 NS ns.example.", f"{FULL} 60 NS ns.example."],
        additional=["ns.example. 80 A 192.0.2.53", f"{FULL} 50 A 192.0.2.8"],
    )  # fmt: skip
    assert texts(reply.answer) == [
        f"{SHORT} 5 CNAME www.example.", "www.example. 9 A 192.0.2.7",
    ]  # fmt: skip
    assert texts(reply.authority) == [
        "example. 70 NS ns.example.", f"{SHORT} 60 NS ns.example.",
    ]  # fmt: skip
    assert texts(reply.additional) == [
        "ns.example. 80 A 192.0.2.53", f"{SHORT} 50 A 192.0.2.8",
    ]  # fmt: skip


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
@pytest.mark.parametrize("flags", [dns.flags.AA, dns.flags.AD, dns.flags.TC])
def test_rcode_and_flags_stay(rcode, flags):
    reply = renamed(rcode=rcode, authority=[SOA], flags=flags)
    assert dns.rcode.to_text(reply.rcode()) == rcode
    assert reply.flags & ~0xF == 0x8180 | flags


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("gone.default.", "default."),
        ("a.b.gone.default.", "default."),
        ("gone.", "gone."),
        ("gone.default.svc.cluster.local.", "cluster.local."),
        (".", "."),
    ],
)
@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_a_denied_name_lies_within_the_zone_that_denies(name, zone, rcode):
    """Else nobody keeps the denial (RFC 2308, section 5)."""
    reply = renamed(name=name, rcode=rcode, authority=[SOA])
    (soa,) = reply.authority
    assert soa.name.to_text() == zone
    assert reply.question[0].name.is_subdomain(soa.name)
    assert texts([soa])[0].split(None, 3)[3] == SOA.split(None, 3)[3]
    assert soa.ttl == 30


def test_with_an_alias_the_zone_holds_its_target():
    aliases = [("db", "pg.data")]
    reply = renamed(name="db.", aliases=aliases, rcode="NXDOMAIN", authority=[SOA])
    assert reply.authority[0].name.to_text() == "data."


def test_aliases_come_first_and_in_order():
    aliases = [("db.", "db.test"), ("db.test", "pg.data")]
    reply = renamed("@ 60 A 10.96.0.7", name="DB.", aliases=aliases)
    assert texts(reply.answer) == [
        "DB. 5 CNAME db.test.", "db.test. 5 CNAME pg.data.", "pg.data. 60 A 10.96.0.7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        answer(query(FULL), "@ 5 A 10.96.0.7").replace(
            b"\0\4\x0a\x60\0\7", b"\0\3\x0a\x60\0"
        ),
        answer(query(FULL), "@ 5 CNAME a.example.").replace(b"\7example\0", b"\7example\7"),
        answer(query(FULL), "@ 5 A 10.96.0.7").replace(b"\xc0\x0c", b"\xc0\xff"),
    ],
    ids=["a short address", "a name without end", "a pointer to nowhere"],
)
def test_what_cannot_be_read_is_a_value_error(body):
    with pytest.raises(ValueError, match="cannot be read"):
        rename(Answer(body, 0, [], 5), wire(FULL), asking(), ())


REPLIES = [
    answer(query(FULL, kind), *lines, authority=[SOA], opt=True)
    for kind, lines in RECORDS.items()
]


@given(
    st.sampled_from(REPLIES),
    st.lists(st.tuples(st.integers(2, 999), st.binary()), max_size=4),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_damaged_answer_raises_nothing_but_value_error(reply, damage):
    message = bytearray(reply)
    for at, octets in damage:
        at %= len(reply)
        message[max(at, 2) : max(at, 2) + len(octets)] = octets
    try:
        made = rename(parse_answer(bytes(message)), wire(FULL), asking(), ())
    except ValueError:
        return
    assert parse_answer(made.body) == made


@pytest.mark.parametrize(
    ("aliases", "address", "kind", "want"),
    [
        ([], "10.0.0.7", "A", ["db.test. 5 A 10.0.0.7"]),
        ([], "10.0.0.7", "AAAA", []),
        ([], "fd00::7", "AAAA", ["db.test. 5 AAAA fd00::7"]),
        ([], "fd00::7", "A", []),
        ([], "10.0.0.7", "TXT", []),
        ([], "10.0.0.7", "TYPE65280", []),
        (["x.test"], "10.0.0.7", "A", ["db.test. 5 CNAME x.test.", "x.test. 5 A 10.0.0.7"]),
        (["x.test"], "10.0.0.7", "MX", ["db.test. 5 CNAME x.test."]),
        (["x.test"], None, "CNAME", ["db.test. 5 CNAME x.test."]),
        (
            ["x.test", "y"], "fd00::7", "AAAA",
            ["db.test. 5 CNAME x.test.", "x.test. 5 CNAME y.", "y. 5 AAAA fd00::7"],
        ),
    ],
)  # fmt: skip
def test_the_settings_answer_for_the_type_of_their_address(aliases, address, kind, want):
    question = asking("db.test.", kind)
    names = ["db.test", *aliases]
    pairs = [(wire(a), wire(b)) for a, b in pairwise(names)]
    made = local(question, pairs, ip_address(address) if address else None)
    reply = read(complete(made, question, age=0, ttl=None))
    assert texts(reply.answer) == want
    assert reply.rcode() == 0
    assert [str(question) for question in reply.question] == [f"db.test. IN {kind}"]
    assert made.ttl == (ALIAS_TTL if want else 0)


def test_names_with_odd_letters_are_renamed():
    """A dot within a label, and octets beyond ASCII."""
    name = dns.name.Name([b"a.b", b"\xff\0", b"default", b""])
    question = parse_question(query(name, payload=None))
    assert text(question.key) == r"a\046b.\255\000.default"
    given = parse_answer(answer(query(FULL), "@ 5 A 10.96.0.7"))
    made = rename(given, wire(FULL), question, [(question.name, question.key)])
    reply = read(complete(made, question, age=0, ttl=None))
    assert [rrset.name for rrset in reply.answer] == [name, name]


TARGET = f"target.{FULL}"

COMPRESSED = {
    "NS": TARGET, "CNAME": TARGET, "PTR": TARGET, "DNAME": TARGET, "MX": f"10 {TARGET}",
    "SRV": f"0 5 80 {TARGET}", "SOA": f"{TARGET} {TARGET} 1 2 3 4 5",
    "RP": f"{TARGET} .", "AFSDB": f"1 {TARGET}", "RT": f"1 {TARGET}",
    "PX": f"1 {TARGET} {TARGET}", "NAPTR": f'1 1 "" "" "" {TARGET}',
}  # fmt: skip

ALONE = """
import sys
from tunstack.dns.message import complete, parse_answer, parse_question, wire
from tunstack.dns.rewrite import rename

sys.meta_path.clear()
for line in sys.stdin:
    asked, given = map(bytes.fromhex, line.split())
    question = parse_question(asked)
    made = rename(parse_answer(given), wire(sys.argv[1]), question, ())
    print(complete(made, question, age=0, ttl=None).hex())
"""


def test_names_within_records_stay_where_no_module_can_be_loaded_any_more():
    """As in an engine that has given up root. A pointer copied as it is leads astray."""
    asked = [query(SHORT, kind, payload=None) for kind in COMPRESSED]
    given = [
        answer(query(FULL, kind, payload=None), f"@ 5 {kind} {data}")
        for kind, data in COMPRESSED.items()
    ]
    lines = "".join(
        f"{one.hex()} {other.hex()}\n" for one, other in zip(asked, given, strict=True)
    )
    done = subprocess.run(
        [sys.executable, "-c", ALONE, FULL],
        input=lines,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said = [texts(read(bytes.fromhex(line)).answer) for line in done.stdout.split()]
    assert said == [[f"{SHORT} 5 {kind} {data}"] for kind, data in COMPRESSED.items()]
