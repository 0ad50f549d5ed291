"""The cluster's names resolve on this host as the cluster's own resolver has them.

By mode ``overriding``: the host reads resolv.conf, and its questions come to us.
"""

import json
import random
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.support.lab import V4, V6, Lab, Namespace, Site, rss, tunstack, wait_until
from tests.support.name_server import PORT, addresses, ask, exchange, records
from tests.support.names import (
    CLIENTS,
    DOMAIN,
    ECHO,
    MANY,
    PUBLIC,
    Client,
    Names,
    by_getent,
)
from tests.support.questions import query

pytestmark = pytest.mark.usefixtures("own_resolver")

EVERY_TYPE = [
    (f"{name}.svc.{DOMAIN}", kind)
    for name, kind in [
        *(("echo.default", kind) for kind in ("A", "AAAA", "MX", "HTTPS", "SVCB")),
        ("echo.default", "TYPE65280"),
        ("echo.default", "TXT"),  # there is none
        ("alias.default", "CNAME"),
        ("alias.default", "A"),
        ("_http._tcp.echo.default", "SRV"),
        ("text.default", "TXT"),
        ("missing.default", "A"),
    ]
] + [(ip_address(site.server).reverse_pointer, "PTR") for site in (V4, V6)]

FOREIGN = [
    *((name, "A") for name in PUBLIC),
    ("www.example.com", "AAAA"),
    ("www.example.com", "TXT"),
    ("www.example.com", "TYPE65280"),
    ("missing.example.com", "A"),
    ("missing", "A"),
    ("5.113.0.203.in-addr.arpa", "PTR"),
]

Answers = dict[tuple[str, str, bool], bytes]


def foreign_answers(lab: Lab) -> Answers:
    """Ask the host's name server for what is not the cluster's."""
    return {
        (name, kind, tcp): exchange(lab.client, V4.gateway, query(name, kind), tcp=tcp)
        for name, kind in FOREIGN
        for tcp in (False, True)
    }


@pytest.fixture(scope="module")
def unconnected(bare: Lab, own_resolver: None) -> Names:
    """A lab with names and a manager, and no session."""
    names = Names(bare)
    names.manage()
    return names


@pytest.fixture(scope="module")
def before(unconnected: Names) -> Answers:
    """What was answered before there was a session."""
    return foreign_answers(unconnected.lab)


@pytest.fixture(scope="module")
def names(unconnected: Names, before: Answers) -> Names:
    """The same lab, connected."""
    unconnected.lab.connect(dns=True)
    assert unconnected.lab.status()["dns"]["mode"] == "overriding"
    return unconnected


@pytest.fixture(scope="module")
def server(names: Names) -> str:
    """Where the session's name server is."""
    return names.server


# Records


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(("name", "kind"), EVERY_TYPE)
def test_an_answer_is_the_one_that_the_clusters_resolver_gives(
    names: Names, server: str, name: str, kind: str, tcp: bool
) -> None:
    theirs = ask(names.lab.gateway, V4.server, name, kind, tcp=tcp)
    ours = ask(names.lab.client, server, name, kind, tcp=tcp)
    assert ours.rcode() == theirs.rcode()
    assert records(ours) == records(theirs)


@pytest.mark.parametrize("kind", ["A", "AAAA", "MX", "HTTPS", "SVCB", "TYPE65280"])
def test_a_short_name_has_the_records_of_the_long_one(
    names: Names, server: str, kind: str
) -> None:
    long = records(ask(names.lab.client, server, f"echo.default.svc.{DOMAIN}", kind))
    assert long
    for name in ("echo.default", "echo.default.svc", "echo"):
        short = records(ask(names.lab.client, server, name, kind))
        assert short == [(f"{name}.", *rest) for _, *rest in long]


def test_what_is_too_long_for_udp_is_cut_and_whole_over_tcp(
    names: Names, server: str
) -> None:
    name = f"big.default.svc.{DOMAIN}"
    question = query(name, "TXT", payload=None)
    cut = exchange(names.lab.client, server, question)
    assert len(cut) <= 512
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    theirs = ask(names.lab.gateway, V4.server, name, "TXT", tcp=True)
    for payload in (None, 1232):
        ours = ask(names.lab.client, server, name, "TXT", tcp=True, payload=payload)
        assert not ours.flags & dns.flags.TC
        assert records(ours) == records(theirs) != []
    by_dig = names.lab.client.run("dig", "+short", "+bufsize=512", name, "TXT")
    assert by_dig.count('"') == 20


@pytest.mark.parametrize("name", [f"echo.default.svc.{DOMAIN}", "echo.default", "docs.rs"])
def test_letters_keep_their_case(names: Names, server: str, name: str) -> None:
    for seed in range(3):
        flip = random.Random(seed)
        cased = "".join(flip.choice((letter.lower, letter.upper))() for letter in name)
        message = ask(names.lab.client, server, cased)
        assert str(message.question[0].name) == f"{cased}."
        assert [owner for owner, *_ in records(message)] == [f"{cased}."]


# Programs


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_a_program_resolves_names_of_the_cluster(names: Names, client: Client) -> None:
    lab = names.lab
    for name in ("echo.default", "echo.default.svc", f"echo.default.svc.{DOMAIN}", "echo"):
        assert client(lab.client, lab.directory, name) == ECHO, name


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_a_program_resolves_other_names(names: Names, client: Client) -> None:
    lab = names.lab
    for name, address in PUBLIC.items():
        assert client(lab.client, lab.directory, name) == {address}, name


@pytest.mark.parametrize("name", ["echo.default", f"echo.default.svc.{DOMAIN}", "echo"])
def test_curl_gets_a_page_by_name(names: Names, name: str) -> None:
    url = f"http://{name}:8080/bytes/5"
    for version in ("-4", "-6"):
        said = names.lab.client.run(
            "curl", "-sf", version, "--max-time", "30", "-o/dev/null", url,
            "--write-out", "%{http_code} %{remote_ip}",
        )  # fmt: skip
        assert said == f"200 {(V6 if version == '-6' else V4).server}"


# Whose names


def test_other_names_are_answered_exactly_as_before(names: Names, before: Answers) -> None:
    assert foreign_answers(names.lab) == before


def test_a_public_suffix_stays_the_hosts(names: Names, server: str) -> None:
    lab = names.lab
    names.cluster.forget()
    assert addresses(ask(lab.client, server, "docs.rs")) == [PUBLIC["docs.rs"]]
    assert ask(lab.client, server, "echo.rs").rcode() == dns.rcode.NXDOMAIN
    assert names.cluster.names() == set()
    assert addresses(ask(lab.client, server, f"echo.rs.svc.{DOMAIN}")) == ["10.98.2.22"]
    assert addresses(ask(lab.client, server, "echo.rs.svc")) == ["10.98.2.22"]
    skipped = lab.status()["dns"]["skipped"]
    assert skipped == [{"namespace": "rs", "reason": "public suffix"}]


def test_a_name_that_the_cluster_does_not_know_is_the_hosts(
    names: Names, server: str
) -> None:
    answer = ask(names.lab.client, server, "printer.lan")
    assert addresses(answer) == [PUBLIC["printer.lan"]]
    assert f"printer.lan.svc.{DOMAIN}" in names.cluster.names()


def test_wpad_is_never_the_clusters(names: Names, server: str) -> None:
    wanted = {"wpad", "wpad.default", "wpad.default.svc", f"wpad.default.svc.{DOMAIN}"}
    for name in wanted:
        assert ask(names.lab.client, server, name).rcode() == dns.rcode.NXDOMAIN
    assert not any(name.startswith("wpad") for name in names.cluster.names())
    assert wanted <= names.host.names()


# Containers


def test_a_container_behind_this_host_resolves_names(names: Names, site: Site) -> None:
    lab = names.lab
    assert addresses(ask(lab.pod, site.gateway, "echo.default")) == [V4.server]
    assert addresses(ask(lab.pod, site.gateway, "echo.default", tcp=True)) == [V4.server]
    lab.pod.resolve_by(site.gateway)
    assert by_getent(lab.pod, lab.directory, "echo.default.svc") == ECHO
    found = by_getent(lab.pod, lab.directory, "www.example.com")
    assert found == {PUBLIC["www.example.com"]}
    url = "http://echo.default:8080/bytes/5"
    lab.pod.run("curl", "-sf", "--max-time", "30", "-o/dev/null", url)


# Load


def load(where: Namespace, server: str, expected: dict[str, str | None]) -> None:
    """Ask 10 000 questions, 64 at a time; each must be answered, and right."""
    asked = [query(name, payload=None)[2:] for name in expected]
    wanted = [address and ip_address(address).packed for address in expected.values()]
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with where:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    waiting: set[int] = set()
    with sock:
        sock.settimeout(20)
        sock.connect((server, PORT))
        for number in range(10_000 + 64):
            if number >= 64:
                answer = sock.recv(2048)
                identifier, flags, _, answers = struct.unpack_from("!HHHH", answer)
                waiting.remove(identifier)
                address = wanted[identifier % len(wanted)]
                assert answers == (address is not None)
                assert flags & 0xF == (dns.rcode.NXDOMAIN if address is None else 0)
                assert address is None or answer.endswith(address)
            if number < 10_000:
                waiting.add(number)
                sock.send(struct.pack("!H", number) + asked[number % len(asked)])
    assert not waiting


@pytest.mark.parametrize("by", ["device", "ipv4", "ipv6"])
def test_of_10_000_questions_none_is_lost(names: Names, server: str, by: str) -> None:
    expected: dict[str, str | None] = {**MANY, **PUBLIC, "missing.example.com": None}
    expected[f"missing.default.svc.{DOMAIN}"] = None
    where = {"device": server, "ipv4": V4.gateway, "ipv6": V6.gateway}[by]
    load(names.lab.client, where, expected)


# Nonsense

NONSENSE = 40_000
BATCH = 500
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; the module has no name for it
MOST_GROWTH = 20 * 1024 * 1024


def nonsense() -> Iterator[bytes]:
    """Make datagrams: octets at random, and questions that are not what they were."""
    chance = random.Random(53)
    kinds = ("A", "TXT", "SRV", "ANY", "TYPE65280")
    seeds = [
        query(f"echo.default.svc.{DOMAIN}", kind, payload=payload, dnssec=bool(payload))
        for kind in kinds
        for payload in (None, 1232)
    ]
    for number in range(NONSENSE):
        if number % 2:
            yield chance.randbytes(chance.randrange(600))
            continue
        message = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(message))
            match chance.randrange(5):
                case 0:
                    message[at] = chance.randrange(256)
                case 1:
                    message[at] ^= 1 << chance.randrange(8)
                case 2:  # a pointer, RFC 1035, section 4.1.4
                    message[at : at + 2] = (0xC000 | chance.randrange(64)).to_bytes(2)
                case 3:
                    message[at:at] = chance.randbytes(chance.randrange(1, 80))
                case 4:
                    del message[max(at, 4) :]
        yield bytes(message)


def test_nonsense_is_endured(names: Names, server: str) -> None:
    lab = names.lab
    pid = lab.status()["engine"]["pid"]
    question = query(f"echo.default.svc.{DOMAIN}", number=0xFFFF, payload=None)

    def is_answer(message: bytes) -> bool:
        # Perhaps SERVFAIL, for that more questions wait than may.
        return message[:2] == question[:2] and message[12:].startswith(question[12:])

    with lab.client:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 * 1024 * 1024)
        sock.settimeout(20)
        sock.connect((server, PORT))
        resident = rss(pid)
        for number, message in enumerate(nonsense(), 1):
            sock.send(message)
            if number % BATCH == 0:
                # What is answered after it was sent says that all of it was taken.
                sock.send(question)
                while not is_answer(sock.recv(65_535)):
                    pass
        grown = rss(pid) - resident

    def answers() -> bool:
        return addresses(ask(lab.client, server, "echo.default")) == [V4.server]

    wait_until(answers, 30, "the name server answers")
    status = lab.status()
    assert status["engine"]["pid"] == pid
    assert status["dns"]["questions"]["malformed"] > NONSENSE / 4
    assert grown < MOST_GROWTH


def test_nonsense_over_tcp_is_endured(names: Names, server: str) -> None:
    chance = random.Random(54)
    for number in range(200):
        with names.lab.client.connect(V4, server, PORT) as sock:
            message = chance.randbytes(chance.randrange(1, 3000))
            length = (2, len(message), 65_535)[number % 3].to_bytes(2)
            sock.sendall(length + message)
    answer = ask(names.lab.client, server, "echo.default", tcp=True)
    assert addresses(answer) == [V4.server]


# The command line


def test_dns_query_says_how_a_name_was_answered(names: Names) -> None:
    lab = names.lab

    def asked(name: str, kind: str = "A") -> dict[str, object]:
        result = lab.tunstack("dns", "query", "--json", "--name", lab.name, name, kind)
        assert result.returncode == 0, result.stderr
        document: dict[str, object] = json.loads(result.stdout)
        return document

    report = asked("later.default")
    assert report["rule"] == "namespace default"
    assert report["by"] == "cluster"
    assert report["rcode"] == "NOERROR"
    assert report["records"] == ["later.default. 60 IN A 10.98.2.21"]
    (step,) = report["steps"]  # type: ignore[misc]
    assert step["server"].startswith(V4.server)
    assert step["name"] == f"later.default.svc.{DOMAIN}"
    assert asked("later.default")["by"] == "cache"
    assert asked("www.example.com", "TXT")["by"] == "host"
    missing = asked(f"missing.default.svc.{DOMAIN}")
    assert (missing["rcode"], missing["records"]) == ("NXDOMAIN", [])


def test_dns_log_shows_questions_as_they_are_answered(names: Names, server: str) -> None:
    lab = names.lab
    log = lab.client.log("dns-log")
    process = lab.client.start(
        *tunstack("dns", "log", "--json", "--name", lab.name),
        log="dns-log",
        env=lab.environment,
    )

    def shown() -> list[dict[str, object]]:
        ask(lab.client, server, "echo.default", "AAAA")
        return [json.loads(line) for line in log.read_text().splitlines()]

    report = wait_until(shown, 10, "a question is shown")[0]
    assert (report["name"], report["type"]) == ("echo.default", 28)
    assert report["rule"] == "namespace default"
    assert report["rcode"] == "NOERROR"
    process.terminate()
    process.wait(10)
