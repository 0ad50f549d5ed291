"""The name server in virtual time: who is asked, and what clients are told."""

import random
import struct
from collections import Counter
from ipaddress import ip_address, ip_network

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.questions import SOA, answer, query, read, said, texts
from tunstack.config import DnsConfig, NameMapping
from tunstack.dns import message as msg
from tunstack.dns.machine import (
    CLUSTER,
    HOST,
    HOST_TIMEOUT,
    LATE,
    MOST_JOBS,
    STALE_TTL,
    Ask,
    Machine,
    Reply,
)
from tunstack.dns.rules import CHECK, Names, Rules

FULL = "echo.default.svc.cluster.local."
A7 = "@ 30 A 10.96.0.7"
A8 = "@ 30 A 10.96.0.8"
NEVER = {"rcode": "NXDOMAIN", "authority": [SOA]}
ROOT_SOA = ". 900 SOA a.root-servers.net. nstld.example. 1 2 3 4 900"

NAMES = {
    "domain": "cluster.local",
    "namespaces": ("default", "data"),
    "networks": (ip_network("10.96.0.0/12"),),
    "public": frozenset(("rs", "dev")),
    "server": ip_address("10.9.0.2"),
}


def rules(mappings=(), **settings):
    pairs = [mapping.split("=") for mapping in mappings]
    config = DnsConfig(mappings=tuple(NameMapping(*pair) for pair in pairs), **settings)
    return Rules(Names(config=config, **NAMES))


class House:
    """A machine, and whoever deals with it."""

    def __init__(self, mappings=(), timeout=4.0, has_host=True, **settings):
        self.now = 1000.0
        self.machine = Machine(
            DnsConfig(lookup_timeout=timeout), rules(mappings, **settings)
        )
        self.machine.has_host = has_host
        self.replies = []

    def _take(self):
        """Keep the replies, and give what is asked."""
        out = self.machine.take()
        self.replies += [each for each in out if isinstance(each, Reply)]
        return [each for each in out if isinstance(each, Ask)]

    def receive(self, message, client="me", *, tcp=False):
        self.machine.receive(message, client, self.now, tcp=tcp)
        return self._take()

    def ask(self, name, kind="A", client="me", *, tcp=False, **more):
        """Ask; gives what the machine asks in turn."""
        return self.receive(query(name, kind, **more), client, tcp=tcp)

    def say(self, ask, *lines, **more):
        """Let whoever was asked answer; gives what is asked next."""
        return self.give(ask, answer(ask.message, *lines, **more))

    def give(self, ask, message):
        self.machine.answered(ask.number, message, self.now, "10.96.0.10")
        return self._take()

    def fail(self, ask, why="the tunnel is down"):
        self.machine.failed(ask.number, why, self.now)
        return self._take()

    def wait(self, seconds):
        self.now += seconds
        self.machine.expire(self.now)
        return self._take()

    def reply(self):
        """Give the only reply there is."""
        (reply,) = self.replies
        self.replies.clear()
        return reply

    def lines(self):
        """Give the records of the only reply."""
        reply = read(self.reply().message)
        assert reply.rcode() == msg.NOERROR
        return texts(reply.answer)

    def rcode(self):
        return dns.rcode.to_text(read(self.reply().message).rcode())

    def look_up(self, name, *lines, **more):
        """Ask, and let the cluster answer at once."""
        (ask,) = self.ask(name)
        assert self.say(ask, *lines, **more) == []
        return self.lines()


def asked(*asks):
    """Show what is asked: of whom, for what, of what type."""
    return [
        f"{ask.to} {read(ask.message).question[0]}".replace(" IN ", " ") for ask in asks
    ]


@pytest.fixture
def house():
    """A house that is left in order."""
    house = House()
    yield house
    while (deadline := house.machine.deadline()) is not None:
        house.machine.expire(deadline)
    assert house.machine.waiting == 0


# The cluster


@pytest.mark.parametrize(
    ("name", "full"),
    [
        (FULL, FULL),
        ("echo.default.svc.", FULL),
        ("echo.default.", FULL),
        ("echo.", FULL),
        ("pg.data.", "pg.data.svc.cluster.local."),
        ("7.0.96.10.in-addr.arpa.", "7.0.96.10.in-addr.arpa."),
    ],
)
def test_the_cluster_answers_under_the_name_that_was_asked_for(house, name, full):
    (ask,) = house.ask(name)
    assert asked(ask) == [f"cluster {full} A"]
    house.say(ask, A7)
    reply = house.replies[0]
    assert reply.job.by == CLUSTER
    assert [
        (step.to, step.name, step.outcome, step.server) for step in reply.job.steps
    ] == [(CLUSTER, full[:-1], "NOERROR", "10.96.0.10")]
    assert house.lines() == [f"{name} 30 A 10.96.0.7"]
    assert house.machine.waiting == 0
    assert house.machine.deadline() is None


def test_the_full_name_s_answer_passes_byte_for_byte(house):
    """Whatever is in it: it is a type that nobody knows."""
    (ask,) = house.ask(FULL, "TYPE65280", payload=None)
    wire = answer(
        ask.message, r"@ 30 TYPE65280 \# 3 c00c29", additional=["a. 7 A 10.0.0.1"]
    )
    house.give(ask, wire)
    assert house.reply().message[2:] == wire[2:]


def test_the_cluster_is_asked_in_our_own_words(house):
    for dnssec in (False, True):
        for checking in (False, True):
            (ask,) = house.ask(FULL, payload=4096, dnssec=dnssec, checking=checking)
            message = read(ask.message)
            assert message.flags == dns.flags.RD | (checking and dns.flags.CD)
            assert (message.edns, message.payload) == (0, 1232)
            assert bool(message.ednsflags & dns.flags.DO) is dnssec
            assert not ask.tcp


def test_equal_questions_are_asked_once_and_each_client_gets_its_own(house):
    names = ["ECHO.default.svc.cluster.local.", "echo.Default.", "echo.", FULL] * 25
    (ask, *more) = [
        ask
        for at, name in enumerate(names)
        for ask in house.ask(name, client=at, number=at)
    ]
    assert more == []
    assert house.machine.waiting == 100
    house.say(ask, A7)
    assert [reply.client for reply in house.replies] == list(range(100))
    for at, reply in enumerate(house.replies):
        message = read(reply.message)
        assert message.id == at
        assert message.question[0].name.to_text() == names[at]
        assert texts(message.answer) == [f"{names[at]} 30 A 10.96.0.7"]
    assert house.machine.counts == {CLUSTER: 100}


def test_other_types_and_dnssec_are_other_questions(house):
    house.ask(FULL)
    for kind, more in (("AAAA", {}), ("A", {"dnssec": True}), ("A", {"checking": True})):
        (ask,) = house.ask(FULL, kind, **more)
        assert asked(ask) == [f"cluster {FULL} {kind}"]


def test_an_answer_that_came_once_is_given_again_with_less_time(house):
    house.look_up(FULL, A7)
    for waited, left in ((0, 30), (10.5, 20), (10.5, 9)):
        house.now += waited
        assert house.ask("echo.default.", client="other", number=7) == []
        assert house.replies[0].job.by == "cache"
        assert read(house.replies[0].message).id == 7
        assert house.lines() == [f"echo.default. {left} A 10.96.0.7"]
    house.now += 9
    assert asked(*house.ask(FULL)) == [f"cluster {FULL} A"]


def test_an_answer_in_use_is_fetched_anew_before_its_time_is_over(house):
    house.look_up(FULL, A7)
    house.now += 28
    (ask,) = house.ask(FULL)
    assert house.lines() == [f"{FULL} 2 A 10.96.0.7"]
    assert asked(ask) == [f"cluster {FULL} A"]
    assert house.ask(FULL, client="other") == []
    assert house.lines() == [f"{FULL} 2 A 10.96.0.7"]
    assert house.machine.waiting == 0
    house.say(ask, A8)
    assert house.replies == []
    house.now += 20
    assert house.ask(FULL) == []
    assert house.lines() == [f"{FULL} 10 A 10.96.0.8"]


def test_that_an_answer_cannot_be_fetched_anew_is_not_noticed(house):
    house.look_up(FULL, A7)
    house.now += 28
    (ask,) = house.ask(FULL)
    house.replies.clear()
    house.fail(ask)
    assert house.replies == []
    assert len(house.ask(FULL)) == 1
    assert house.lines() == [f"{FULL} 2 A 10.96.0.7"]


def test_an_answer_that_may_not_be_kept_is_given_to_those_who_wait(house):
    (ask,) = house.ask(FULL, client=1)
    house.ask("echo.", client=2)
    house.say(ask, "@ 0 A 10.96.0.7")
    assert [reply.client for reply in house.replies] == [1, 2]
    assert len(house.ask(FULL)) == 1


def test_an_answer_that_was_cut_is_not_kept(house):
    (ask,) = house.ask(FULL)
    house.say(ask, A7, flags=dns.flags.TC)
    assert read(house.reply().message).flags & dns.flags.TC
    assert len(house.ask(FULL)) == 1


def test_no_record_of_a_type_is_the_answer_for_any_name(house):
    for name in (FULL, "pg.data.", "single."):
        (ask,) = house.ask(name, "AAAA")
        assert house.say(ask, authority=[SOA]) == []
        assert house.lines() == []
        assert house.ask(name, "AAAA") == []
        assert house.lines() == []


@pytest.mark.parametrize("payload", [None, 512, 1232, 4096])
def test_what_does_not_fit_over_udp_is_fetched_over_tcp(house, payload):
    lines = [f"@ 30 A 10.0.{at // 250}.{at % 250}" for at in range(300)]
    (ask,) = house.ask(FULL, payload=payload)
    house.say(ask, *lines)
    wire = house.reply().message
    assert len(wire) <= max(payload or 512, 512)
    assert read(wire).flags & dns.flags.TC
    house.ask(FULL, payload=payload, tcp=True)
    (rrset,) = read(house.reply().message).answer
    assert len(rrset) == 300


# When the cluster does not answer


def test_an_old_answer_is_better_than_a_late_one(house):
    house.look_up(FULL, A7)
    house.now += 3600
    (ask,) = house.ask(FULL, client="first")
    house.wait(LATE - 0.01)
    assert house.replies == []
    assert house.machine.deadline() == pytest.approx(house.now + 0.01)
    assert house.wait(0.01) == []
    assert house.replies[0].job.by == "stale"
    assert house.lines() == [f"{FULL} {STALE_TTL} A 10.96.0.7"]
    # Who comes later does not wait, and nobody is asked twice.
    assert house.ask("echo.", client="second") == []
    assert house.lines() == [f"echo. {STALE_TTL} A 10.96.0.7"]
    # The answer counts when it comes.
    house.now += 1
    house.say(ask, A8)
    assert house.replies == []
    assert house.ask(FULL) == []
    assert house.lines() == [f"{FULL} 30 A 10.96.0.8"]


def test_an_answer_in_time_is_better_than_an_old_one(house):
    house.look_up(FULL, A7)
    house.now += 3600
    (ask,) = house.ask(FULL)
    house.wait(LATE - 0.01)
    house.say(ask, A8)
    assert house.lines() == [f"{FULL} 30 A 10.96.0.8"]


@pytest.mark.parametrize(
    "how", ["SERVFAIL", "REFUSED", "failed", "another question", "junk"]
)
@pytest.mark.parametrize("name", [FULL, "echo.default.", "echo."])
def test_a_failure_gives_the_old_answer_at_once(house, how, name):
    house.look_up(FULL, A7)
    house.now += 3600
    (ask,) = house.ask(name)
    assert let_fail(house, ask, how) == []
    assert house.replies[0].job.by == "stale"
    assert house.lines() == [f"{name} {STALE_TTL} A 10.96.0.7"]
    assert house.machine.deadline() is None
    assert len(house.ask(name)) == 1


def let_fail(house, ask, how):
    if how == "failed":
        return house.fail(ask)
    if how == "silence":
        return house.wait(4)
    if how == "another question":
        return house.give(ask, answer(query("other.", number=0), A7))
    if how == "junk":
        return house.give(ask, answer(ask.message, A7)[:-1])
    return house.say(ask, rcode=how)


FAILURES = {
    "silence": "did not answer within 4.0 s",
    "failed": "the tunnel is down",
    "SERVFAIL": "the cluster's resolver says SERVFAIL",
    "REFUSED": "the cluster's resolver says REFUSED",
    "YXDOMAIN": "the cluster's resolver says RCODE 6",
    "BADVERS": "the cluster's resolver says RCODE 16",
    "another question": "the answer is to another question",
    "junk": "a malformed answer",
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("name", [FULL, "echo.default.svc.", "echo.default."])
def test_a_failure_is_said_and_never_kept(house, how, name):
    """Not even for names that the host could know: who cannot know must not deny."""
    (ask,) = house.ask(name)
    assert let_fail(house, ask, how) == []
    reply = house.reply()
    assert read(reply.message).rcode() == msg.SERVFAIL
    assert FAILURES[how] in said(reply.message)[0]
    assert reply.job.by == "nobody"
    assert FAILURES[how] in reply.job.steps[0].outcome
    assert len(house.machine.cache) == 0
    # It is right again as soon as the cluster is.
    assert house.look_up(name, A7) == [f"{name} 30 A 10.96.0.7"]


def test_silence_lasts_as_long_as_the_settings_say():
    house = House(timeout=2.0)
    house.ask(FULL, client=1)
    house.wait(1.5)
    house.ask(FULL, client=2)
    assert house.machine.deadline() == 1002.0
    house.wait(0.49)
    assert house.replies == []
    house.wait(0.01)
    assert [reply.client for reply in house.replies] == [1, 2]
    assert said(house.replies[0].message) == [
        "the cluster's resolver did not answer within 2.0 s"
    ]
    assert house.machine.deadline() is None


def test_an_answer_that_comes_too_late_is_ignored_and_counted(house):
    (ask,) = house.ask(FULL)
    house.wait(4)
    house.replies.clear()
    house.say(ask, A7)
    house.fail(ask)
    assert house.replies == []
    assert house.machine.counts["too-late"] == 1
    assert len(house.machine.cache) == 0


def test_an_answer_to_another_question_is_counted(house):
    (ask,) = house.ask(FULL)
    let_fail(house, ask, "another question")
    assert house.machine.counts["not-the-question"] == 1


def test_an_old_denial_is_not_told(house):
    """What was not there may be by now."""
    (ask,) = house.ask(FULL)
    house.say(ask, **NEVER)
    assert house.rcode() == "NXDOMAIN"
    house.now += 20
    (ask,) = house.ask(FULL)
    house.fail(ask)
    assert house.rcode() == "SERVFAIL"


# Resolvers that do not know EDNS


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
@pytest.mark.parametrize("bare", [True, False])
def test_a_resolver_that_does_not_know_edns_is_asked_without(house, rcode, bare):
    (ask,) = house.ask(FULL, dnssec=True)
    if bare:
        number = dns.rcode.from_text(rcode)
        again = house.give(ask, struct.pack("!HHHHHH", 0, 0x8000 | number, 0, 0, 0, 0))
    else:
        again = house.say(ask, rcode=rcode)
    assert house.replies == []
    assert asked(*again) == [f"cluster {FULL} A"]
    assert read(again[0].message).edns == -1
    assert house.ask("echo.", client="other", dnssec=True) == []
    house.say(again[0], A7)
    assert house.replies.pop().client == "other"
    reply = read(house.replies.pop(0).message)
    assert texts(reply.answer) == [f"{FULL} 30 A 10.96.0.7"]
    assert reply.edns == 0  # the client speaks it with us


def test_a_resolver_that_understands_nothing_has_failed(house):
    (ask,) = house.ask(FULL)
    (again,) = house.say(ask, rcode="FORMERR")
    assert house.say(again, rcode="FORMERR") == []
    assert house.rcode() == "SERVFAIL"


def test_to_be_asked_again_gives_nobody_more_time(house):
    (ask,) = house.ask(FULL)
    house.wait(3)
    house.say(ask, rcode="FORMERR")
    house.wait(1)
    assert house.rcode() == "SERVFAIL"


# Names that both may know


def test_what_the_cluster_denies_below_a_namespace_is_asked_of_the_host(house):
    (ask,) = house.ask("www.data.")
    (host,) = house.say(ask, **NEVER)
    assert asked(host) == ["host www.data. A"]
    house.say(host, "@ 60 A 192.0.2.7")
    reply = house.replies[0]
    assert (reply.job.by, [step.to for step in reply.job.steps]) == (HOST, [CLUSTER, HOST])
    assert house.lines() == ["www.data. 60 A 192.0.2.7"]
    # The denial is kept: the host is asked at once.
    assert asked(*house.ask("www.data.")) == ["host www.data. A"]
    house.now += 20
    assert asked(*house.ask("www.data.", client="later")) == [
        "cluster www.data.svc.cluster.local. A"
    ]


@pytest.mark.parametrize("name", [FULL, "echo.default.svc."])
def test_what_the_cluster_denies_of_its_own_names_is_the_answer(house, name):
    (ask,) = house.ask(name)
    assert house.say(ask, **NEVER) == []
    reply = read(house.reply().message)
    assert reply.rcode() == msg.NXDOMAIN
    assert reply.question[0].name.is_subdomain(reply.authority[0].name)
    assert house.ask(name) == []
    assert house.replies[0].job.by == "cache"
    assert house.rcode() == "NXDOMAIN"


def test_without_name_servers_of_the_host_the_denial_is_the_answer():
    house = House(has_host=False)
    for name in ("www.data.", "single."):
        (ask,) = house.ask(name)
        assert house.say(ask, **NEVER) == []
        assert house.rcode() == "NXDOMAIN"


def test_a_single_label_is_the_host_s_after_the_cluster(house):
    (ask,) = house.ask("nas.")
    (host,) = house.say(ask, **NEVER)
    assert asked(ask, host) == ["cluster nas.default.svc.cluster.local. A", "host nas. A"]
    house.say(host, **{**NEVER, "authority": [ROOT_SOA]})
    reply = read(house.reply().message)
    assert reply.rcode() == msg.NXDOMAIN
    assert texts(reply.authority) == [ROOT_SOA]


@pytest.mark.parametrize("how", [*FAILURES, "late"])
def test_a_single_label_is_the_host_s_when_the_cluster_fails(house, how):
    (ask,) = house.ask("nas.")
    if how == "late":
        house.wait(LATE - 0.01)
        assert house.machine.waiting == 1
        (host,) = house.wait(0.01)
    elif how == "silence":
        (host,) = house.wait(4)
    else:
        (host,) = let_fail(house, ask, how)
    assert asked(host) == ["host nas. A"]
    house.say(host, "@ 60 A 192.168.1.2")
    assert house.replies[0].job.by == HOST
    assert house.lines() == ["nas. 60 A 192.168.1.2"]


@pytest.mark.parametrize("how", ["NXDOMAIN", "NOERROR", "SERVFAIL", "failed"])
@pytest.mark.parametrize("late", [True, False])
def test_nobody_denies_a_single_label_while_the_cluster_fails(house, how, late):
    """It may be the cluster's: that would be kept, and be wrong when it is back.

    Top-level domains have no addresses, and say so for a day.
    """
    (ask,) = house.ask("echo.")
    (host,) = house.wait(LATE) if late else house.fail(ask)
    let_fail(house, host, how)
    reply = house.reply()
    assert read(reply.message).rcode() == msg.SERVFAIL
    assert len(said(reply.message)) == 1
    assert reply.job.by == "nobody"
    if late:
        house.say(ask, A7)
    else:
        house.look_up("echo.", A7)
    assert house.ask("echo.") == []
    assert house.lines() == ["echo. 30 A 10.96.0.7"]


def test_while_the_cluster_is_late_single_labels_go_to_the_host_at_once(house):
    (ask,) = house.ask("nas.")
    house.wait(LATE)
    (host,) = house.ask("nas.", client="other", number=7, payload=None)
    assert host.to == HOST
    # What the cluster says meanwhile is for those who come later.
    house.say(ask, A7)
    assert house.replies == []
    assert house.ask("nas.", client="third") == []
    assert house.lines() == ["nas. 30 A 10.96.0.7"]


def test_a_single_label_without_anybody_else_to_ask_has_failed():
    house = House(has_host=False)
    house.ask("nas.")
    house.wait(LATE)
    reply = house.reply()
    assert read(reply.message).rcode() == msg.SERVFAIL
    assert said(reply.message) == ["the cluster's resolver is late"]


def test_search_domains_are_asked_in_order():
    house = House(search=("corp.test", "lab.test"))
    (one,) = house.ask("db.")
    (two,) = house.say(one, **NEVER)
    (three,) = house.say(two, **NEVER)
    assert asked(one, two, three) == [
        "cluster db.default.svc.cluster.local. A",
        "cluster db.corp.test. A",
        "cluster db.lab.test. A",
    ]
    house.say(three, A7)
    assert house.lines() == ["db. 30 A 10.96.0.7"]
    # Two denials and an answer are known by now.
    assert house.ask("db.") == []
    assert house.lines() == ["db. 30 A 10.96.0.7"]


# The host


def test_the_host_s_name_servers_get_the_question_as_it_is(house):
    options = [dns.edns.GenericOption(10, b"cookie42")]
    message = query("WWW.Example.org.", "HTTPS", payload=4000, options=options, number=99)
    (ask,) = house.receive(message)
    assert ask == Ask(ask.number, HOST, message, False)
    wire = answer(message, "@ 60 HTTPS 1 . alpn=h3", opt=True)
    house.give(ask, wire)
    assert house.replies[0].job.by == HOST
    assert house.reply().message == wire


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "BADVERS"])
def test_the_host_s_answers_pass_byte_for_byte_whatever_they_say(house, rcode):
    message = query("www.example.org.")
    (ask,) = house.receive(message)
    wire = answer(message, rcode=rcode, authority=[ROOT_SOA], flags=dns.flags.AD)
    house.give(ask, wire)
    assert house.reply().message == wire


def test_the_host_s_answers_are_not_kept(house):
    for _ in range(3):
        (ask,) = house.ask("www.example.org.")
        house.say(ask, "@ 600 A 192.0.2.7")
    assert [reply.job.by for reply in house.replies] == [HOST] * 3
    assert len(house.machine.cache) == 0


def test_equal_questions_to_the_host_are_asked_once(house):
    asks = [
        ask
        for number in range(50)
        for ask in house.ask("www.example.org.", client=number, number=number)
    ]
    (ask,) = asks
    house.say(ask, "@ 60 A 192.0.2.7")
    assert [(reply.client, read(reply.message).id) for reply in house.replies] == [
        (number, number) for number in range(50)
    ]
    assert len({reply.message[2:] for reply in house.replies}) == 1


def test_the_host_is_asked_anew_for_other_letters_options_and_transports(house):
    """Else the answer could not pass as it is."""
    house.ask("www.example.org.")
    assert len(house.ask("WWW.example.org.")) == 1
    assert len(house.ask("www.example.org.", payload=None)) == 1
    assert len(house.ask("www.example.org.", checking=True)) == 1
    (ask,) = house.ask("www.example.org.", tcp=True)
    assert ask.tcp


def test_the_host_s_name_servers_are_given_up_at_last(house):
    house.ask("www.example.org.")
    assert house.machine.deadline() == 1000 + HOST_TIMEOUT
    house.wait(HOST_TIMEOUT - 0.01)
    assert house.replies == []
    house.wait(0.01)
    reply = house.reply()
    assert read(reply.message).rcode() == msg.SERVFAIL
    assert said(reply.message) == ["the host's name servers did not answer within 12.0 s"]


@pytest.mark.parametrize("how", ["failed", "another question"])
def test_the_host_s_failure_is_said(house, how):
    (ask,) = house.ask("www.example.org.")
    let_fail(house, ask, how)
    reply = house.reply()
    assert read(reply.message).rcode() == msg.SERVFAIL
    assert reply.job.steps[0].outcome == said(reply.message)[0]
    assert len(house.ask("www.example.org.")) == 1


def test_without_name_servers_of_the_host_its_names_fail():
    house = House(has_host=False)
    assert house.ask("www.example.org.") == []
    reply = house.reply()
    assert said(reply.message) == ["this host has no name server"]
    assert read(reply.message).rcode() == msg.SERVFAIL


def test_a_public_suffix_is_the_host_s_though_a_namespace_has_its_name():
    house = House()
    house.machine.follow(
        Rules(Names(**{**NAMES, "namespaces": ("rs", "default"), "config": DnsConfig()}))
    )
    assert asked(*house.ask("docs.rs.")) == ["host docs.rs. A"]
    assert asked(*house.ask("echo.rs.svc.cluster.local.")) == [
        "cluster echo.rs.svc.cluster.local. A"
    ]


@pytest.mark.parametrize("cls", ["CH", "ANY", "HS"])
def test_other_classes_are_the_host_s(house, cls):
    message = query("version.bind." if cls == "CH" else FULL, "TXT", cls=cls)
    (ask,) = house.receive(message)
    assert (ask.to, ask.message) == (HOST, message)
    house.give(ask, answer(message))
    assert house.replies[0].job.rule == "class"
    assert house.rcode() == "NOERROR"


# Mappings


def chain(house, name):
    """Give the way to an answer, without times."""
    found = house.lines()
    assert found[0].startswith(f"{name} 5 ")
    return [line.split(None, 2)[2] for line in found]


def test_a_mapping_to_an_address_is_answered_from_the_settings():
    house = House(["db.test=10.0.0.7", "db6.test=fd00::7"])
    for name, kind, want in [
        ("db.test.", "A", ["db.test. 5 A 10.0.0.7"]),
        ("DB.Test.", "A", ["DB.Test. 5 A 10.0.0.7"]),
        ("db6.test.", "AAAA", ["db6.test. 5 AAAA fd00::7"]),
        ("db.test.", "AAAA", []),
        ("db6.test.", "A", []),
        ("db.test.", "TXT", []),
        ("db.test.", "CNAME", []),
    ]:
        assert house.ask(name, kind) == []
        reply = house.replies[0]
        assert (reply.job.by, reply.job.rule) == ("settings", "mapping")
        assert house.lines() == want


def test_a_mapping_to_a_name_of_the_cluster_is_completed():
    house = House(["db=pg.data"])
    (ask,) = house.ask("DB.")
    assert asked(ask) == ["cluster pg.data.svc.cluster.local. A"]
    house.say(ask, A7)
    assert house.replies[0].job.rule == "mapping, namespace data"
    assert house.lines() == ["DB. 5 CNAME pg.data.", "pg.data. 30 A 10.96.0.7"]
    # Its answer is the target's.
    assert house.ask("pg.data.svc.cluster.local.") == []
    assert house.lines() == ["pg.data.svc.cluster.local. 30 A 10.96.0.7"]


def test_a_mapping_to_a_name_of_the_host_is_asked_of_the_host():
    house = House(["db.test=www.example.org"])
    (ask,) = house.ask("db.test.", client=1, number=1, dnssec=True)
    assert house.ask("DB.test.", client=2, number=2, dnssec=True, payload=4096) == []
    assert asked(ask) == ["host www.example.org. A"]
    assert read(ask.message).ednsflags & dns.flags.DO
    house.say(ask, "@ 60 CNAME x.example.", "x.example. 70 A 192.0.2.7", opt=True)
    for number, name in ((1, "db.test."), (2, "DB.test.")):
        reply = read(house.replies.pop(0).message)
        assert reply.id == number
        assert str(reply.question[0]) == f"{name} IN A"
        assert texts(reply.answer) == [
            f"{name} 5 CNAME www.example.org.",
            "www.example.org. 60 CNAME x.example.",
            "x.example. 70 A 192.0.2.7",
        ]
    assert len(house.machine.cache) == 0


def test_a_mapping_whose_target_is_denied_is_denied():
    house = House(["db.test=www.example.org"])
    (ask,) = house.ask("db.test.")
    house.say(ask, **{**NEVER, "authority": [ROOT_SOA]})
    reply = read(house.reply().message)
    assert reply.rcode() == msg.NXDOMAIN
    assert texts(reply.answer) == ["db.test. 5 CNAME www.example.org."]


def test_a_mapping_below_a_namespace_goes_on_to_the_host():
    house = House(["db=www.data"])
    (ask,) = house.ask("db.")
    (host,) = house.say(ask, **NEVER)
    assert asked(ask, host) == ["cluster www.data.svc.cluster.local. A", "host www.data. A"]
    house.say(host, "@ 60 A 192.0.2.7")
    assert house.lines() == ["db. 5 CNAME www.data.", "www.data. 60 A 192.0.2.7"]


@pytest.mark.parametrize("message", [b"", b"\0\0\x81\x83" + bytes(8)])
def test_a_mapping_to_what_cannot_be_read_has_failed(message):
    house = House(["db.test=www.example.org"])
    (ask,) = house.ask("db.test.")
    wire = message or answer(ask.message, "@ 5 A 10.0.0.1")[:-1]
    house.give(ask, wire)
    assert house.rcode() == "SERVFAIL"


def test_mappings_lead_to_mappings():
    house = House(["a.test=b.test", "b.test=c.test", "c.test=10.0.0.7", "x.test=pg.data"])
    assert house.ask("a.test.") == []
    assert house.lines() == [
        "a.test. 5 CNAME b.test.", "b.test. 5 CNAME c.test.", "c.test. 5 A 10.0.0.7",
    ]  # fmt: skip
    for kind in ("AAAA", "CNAME"):
        assert house.ask("a.test.", kind) == []
        assert house.lines()[0] == "a.test. 5 CNAME b.test."
    assert house.ask("x.test.", "CNAME") == []
    assert house.lines() == ["x.test. 5 CNAME pg.data."]


@pytest.mark.parametrize(
    "mappings", [["a=a"], ["a=b", "b=a"], ["a=b", "b=c", "c=d", "d=b"]]
)
def test_mappings_in_a_circle_are_named(mappings):
    house = House(mappings)
    assert house.ask("a.") == []
    reply = house.reply()
    assert read(reply.message).rcode() == msg.SERVFAIL
    assert "circle" in said(reply.message)[0]


def test_eight_mappings_in_a_row_are_followed():
    house = House([f"n{at}.test=n{at + 1}.test" for at in range(8)])
    assert asked(*house.ask("n0.test.")) == ["host n8.test. A"]
    house = House([f"n{at}.test=n{at + 1}.test" for at in range(9)])
    assert house.ask("n0.test.") == []
    assert house.rcode() == "SERVFAIL"


@pytest.mark.parametrize("late", [True, False])
def test_a_mapping_has_old_answers_too(late):
    house = House(["db=pg.data.svc"])
    house.look_up("db.", A7)
    house.now += 3600
    (ask,) = house.ask("db.")
    if late:
        house.wait(LATE)
    else:
        house.fail(ask)
    assert house.lines() == ["db. 1 CNAME pg.data.svc.", "pg.data.svc. 1 A 10.96.0.7"]


def test_the_self_check_is_answered_here(house):
    for name, kind, want in [
        (f"x1.{CHECK}.", "A", [f"x1.{CHECK}. 5 A 10.9.0.2"]),
        (f"x1.{CHECK}.", "AAAA", []),
    ]:
        assert house.ask(name, kind) == []
        assert house.lines() == want


# What is refused


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
@pytest.mark.parametrize("name", ["cluster.local.", "svc.cluster.local.", "x.default."])
def test_the_cluster_s_zones_are_not_transferred(house, kind, name):
    assert house.ask(name, kind, tcp=True) == []
    assert house.rcode() == "REFUSED"


def test_other_zones_are_the_host_s(house):
    (ask,) = house.ask("example.org.", "AXFR", tcp=True)
    assert (ask.to, ask.tcp) == (HOST, True)


@pytest.mark.parametrize("name", [FULL, "www.example.org.", "single."])
def test_another_version_of_edns_is_refused(house, name):
    """RFC 6891, section 6.1.3."""
    wire = query(name)
    assert house.receive(wire[:-6] + b"\0\1\0\0\0\0") == []
    reply = read(house.reply().message)
    assert reply.rcode() == msg.BADVERS
    assert reply.edns == 0


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (query(FULL)[:20], "FORMERR"),
        (query(FULL, payload=None) + b"junk", None),
        (b"\0\7\x28\0" + bytes(8), "NOTIMP"),
        (b"\0\7\1\0" + bytes(8), "FORMERR"),
    ],
)
def test_what_is_malformed_is_said_to_be(house, message, rcode):
    asks = house.receive(message)
    if rcode is None:  # what lies behind a question does no harm
        assert len(asks) == 1
        return
    assert asks == []
    assert house.replies[0].job is None
    assert house.replies[0].message[:2] == message[:2]
    assert house.rcode() == rcode
    assert house.machine.counts == {"malformed": 1}


@pytest.mark.parametrize(
    "message", [b"", b"\0" * 11, answer(query(FULL), A7), b"\0\7\xa8\0" + bytes(8)]
)
def test_what_is_no_question_is_not_answered(house, message):
    """Answers that were answered would go on for ever."""
    assert house.receive(message) == []
    assert house.replies == []
    assert house.machine.counts == {"malformed": 1}


def test_the_number_of_questions_that_wait_is_bounded(house):
    message = query(FULL, payload=None)
    for number in range(MOST_JOBS):
        house.receive(message, number)
    assert house.machine.waiting == MOST_JOBS
    assert house.replies == []
    assert house.ask("other.default.svc.", client="more") == []
    assert said(house.replies[0].message) == ["too many questions wait"]
    assert house.rcode() == "SERVFAIL"
    assert house.machine.counts["overload"] == 1
    # What the host is asked, and what is known, is another matter.
    house.replies.clear()
    (ask,) = house.ask("www.example.com.", client="public")
    house.say(ask, **NEVER)
    assert [reply.client for reply in house.replies] == ["public"]
    house.replies.clear()
    house.wait(4)
    assert len(house.replies) == MOST_JOBS
    assert house.machine.waiting == 0
    assert len(house.ask(FULL)) == 1


# Rules that change


def test_with_other_rules_what_was_denied_is_asked_again(house):
    (ask,) = house.ask("web.stage.svc.")
    house.say(ask, **NEVER)
    house.replies.clear()
    house.look_up(FULL, A7)
    house.machine.follow(rules())
    assert len(house.ask("web.stage.svc.")) == 1
    assert house.ask(FULL) == []


def test_a_new_namespace_has_names_at_once(house):
    assert asked(*house.ask("web.stage.")) == ["host web.stage. A"]
    names = {**NAMES, "namespaces": ("default", "stage"), "config": DnsConfig()}
    house.machine.follow(Rules(Names(**names)))
    assert asked(*house.ask("web.stage.")) == ["cluster web.stage.svc.cluster.local. A"]


# Time


def test_nothing_is_due_when_nobody_waits(house):
    assert house.machine.deadline() is None
    house.machine.expire(house.now)
    house.look_up(FULL, A7)
    house.ask(FULL)
    assert house.machine.deadline() is None


def test_the_first_that_is_due_is_the_deadline(house):
    house.ask("www.example.org.")
    assert house.machine.deadline() == house.now + HOST_TIMEOUT
    house.now += 1
    (ask,) = house.ask(FULL)
    assert house.machine.deadline() == house.now + LATE
    house.machine.expire(house.now + LATE)
    assert house.machine.deadline() == house.now + 4
    house.fail(ask)
    assert house.machine.deadline() == 1000 + HOST_TIMEOUT


def test_one_call_settles_all_that_is_due(house):
    """The computer was asleep, say."""
    for at, name in enumerate((FULL, "www.example.org.", "pg.data.")):
        house.ask(name, client=at)
    house.ask("nas.", client=3)
    (host,) = house.wait(3600)
    assert asked(host) == ["host nas. A"]
    house.wait(HOST_TIMEOUT)
    assert sorted(reply.client for reply in house.replies) == [0, 1, 2, 3]
    assert {read(reply.message).rcode() for reply in house.replies} == {msg.SERVFAIL}
    assert house.machine.deadline() is None


# Anything


POOL = (
    FULL, "Echo.default.", "echo.", "x.echo.default.svc.", "www.example.org.", "db.",
    "a.test.", "b.test.", "ip.test.", "7.0.96.10.in-addr.arpa.", "wpad.", ".",
    f"x.{CHECK}.", f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 50}.default.",
)  # fmt: skip

question = st.builds(
    query,
    st.sampled_from(POOL),
    st.sampled_from(["A", "AAAA", "CNAME", "SRV", "TYPE65280", "AXFR", "ANY", "OPT"]),
    number=st.integers(0, 65_535),
    cls=st.sampled_from(["IN", "IN", "IN", "CH"]),
    payload=st.sampled_from([None, 512, 1232]),
    dnssec=st.booleans(),
)

step = st.one_of(
    st.tuples(st.just("ask"), question, st.booleans()),
    st.tuples(st.just("ask"), question, st.booleans()),
    st.tuples(st.just("ask"), st.binary(max_size=40), st.booleans()),
    st.tuples(
        st.just("answer"),
        st.integers(0, 9),
        st.sampled_from(
            [
                "NOERROR",
                "NXDOMAIN",
                "SERVFAIL",
                "FORMERR",
                "empty",
                "damaged",
                "long",
                "junk",
            ]
        ),
    ),
    st.tuples(st.just("fail"), st.integers(0, 9), st.just(None)),
    st.tuples(st.just("wait"), st.floats(0, 5), st.just(None)),
    st.tuples(st.just("wait"), st.sampled_from([LATE, 4.0, 31.0]), st.just(None)),
    st.tuples(st.just("follow"), st.booleans(), st.just(None)),
)


def made_up(message, how, chance):
    """Answer a question in some way; what dnspython cannot read is given back."""
    try:
        if how == "junk":
            return chance.randbytes(chance.randrange(40))
        if how == "empty":
            return answer(message)
        if how == "long":
            return answer(message, *[f"@ 9 A 10.0.0.{at}" for at in range(99)])
        if how != "damaged":
            return answer(message, "@ 3 CNAME x.", "x. 9 A 10.0.0.1", rcode=how, opt=True)
        wire = bytearray(
            answer(message, "@ 3 CNAME x.", "x. 9 A 10.0.0.1", authority=[SOA])
        )
        for _ in range(3):
            wire[chance.randrange(2, len(wire))] = chance.randrange(256)
        return bytes(wire)
    except dns.exception.DNSException:
        return message[:2] + bytes((message[2] | 0x80,)) + message[3:]


@given(st.lists(step, max_size=40), st.booleans(), st.integers(0, 1 << 30))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_whatever_happens_every_question_has_one_answer(steps, has_host, seed):
    chance = random.Random(seed)
    mappings = ["db=echo.default", "a.test=b.test", "b.test=a.test", "ip.test=10.0.0.7"]
    house = House(mappings, has_host=has_host)
    under_way, want = [], {}
    for kind, value, more in steps:
        if kind == "ask":
            parsed = msg.parse_question(value)
            if parsed != -1:
                want[len(want)] = value, more
            under_way += house.receive(value, len(want) - 1, tcp=more)
        elif kind in ("answer", "fail") and under_way:
            ask = under_way[value % len(under_way)]  # some are given twice, or too late
            if kind == "fail":
                under_way += house.fail(ask)
            else:
                under_way += house.give(ask, made_up(ask.message, more, chance))
        elif kind == "wait":
            under_way += house.wait(value)
        elif kind == "follow":
            house.machine.has_host = has_host or value
            house.machine.follow(rules(mappings if value else ()))
    for _ in range(5):  # late, silent, the host silent; then there is nothing more
        deadline = house.machine.deadline()
        if deadline is not None:
            house.wait(max(deadline - house.now, 0) + 20)
    assert house.machine.deadline() is None
    assert house.machine.waiting == 0
    assert Counter(reply.client for reply in house.replies) == dict.fromkeys(want, 1)
    for reply in house.replies:
        asked_for, tcp = want[reply.client]
        assert reply.message[:2] == asked_for[:2]
        assert reply.message[2] & 0x80
        if reply.job is not None and not tcp:
            assert len(reply.message) <= max(reply.job.question.payload or 512, 512)
        if reply.job is not None and reply.job.by != HOST:
            assert msg.is_answer(reply.message, asked_for)
