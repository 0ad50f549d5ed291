"""Names on hosts of other kinds, by other settings, while things fail, and afterwards.

Each test has a session of its own, and leaves the host as it was.
"""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dns.edns
import dns.message
import dns.rcode
import pytest

from tests.support.lab import V4, V6, Lab, wait_until
from tests.support.name_server import NameServer, addresses, ask, ask_at_once, exchange
from tests.support.names import (
    CLIENTS,
    DOMAIN,
    ECHO,
    HOST_RECORDS,
    PUBLIC,
    Names,
    by_getent,
    by_musl,
)
from tests.support.questions import query
from tunstack.config import DnsConfig

pytestmark = pytest.mark.usefixtures("own_resolver")

NOWHERE, NETWORK_OF_NOWHERE = "192.0.2.53", "192.0.2.0/24"
"""Where no route of the client leads to."""

DEAD = "10.98.1.77"
"""On the client's link, but nobody's."""

OTHER = "10.98.1.3"
"""Another address of the gateway."""


@pytest.fixture(scope="module")
def world(bare: Lab, own_resolver: None) -> Names:
    """A lab with names and a manager."""
    names = Names(bare)
    names.manage()
    bare.gateway.ip(f"address add {OTHER}/24 dev client")
    return names


@pytest.fixture
def names(world: Names) -> Iterator[Names]:
    """The same lab, whose client is left as it was found."""
    lab = world.lab
    lab.client.resolve_by(V4.gateway)
    before = lab.client.state()
    yield world
    lab.quit()
    assert_as_before(lab, before)


def assert_as_before(lab: Lab, before: str) -> None:
    """Nothing is left of a session, be it that the kernel takes a moment."""
    wait_until(lambda: not lab.client.pids(), 10, "the client's processes ended")
    wait_until(lambda: lab.client.state() == before, 10, "the client is as before")


def connect(names: Names, **environment: str) -> dict[str, Any]:
    """Connect, and give what the status says of names."""
    result = names.lab.connect_once(dns=True, **environment)
    assert result.returncode == 0, result.stderr
    return told(names)


def told(names: Names) -> dict[str, Any]:
    """Give what the status says of names."""
    document: dict[str, Any] = names.lab.status()["dns"]
    return document


def name_servers(text: str) -> list[str]:
    """Give the name servers of a resolv.conf."""
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if words[:1] == ["nameserver"]]


def kill_session(names: Names) -> None:
    """Kill engine and helper at once."""
    status = names.lab.status()
    for victim in ("helper", "engine"):
        os.kill(status[victim]["pid"], signal.SIGKILL)


# resolv.conf


@pytest.mark.parametrize(
    "servers", [[V6.gateway, V4.gateway], [DEAD, V4.gateway]], ids=" ".join
)
def test_names_resolve_with_any_name_servers(names: Names, servers: list[str]) -> None:
    lab = names.lab
    lab.client.resolve_by(*servers)
    status = connect(names)
    assert status["mode"] == "overriding"
    assert status["name_servers"] == servers
    for client in (by_getent, by_musl):
        assert client(lab.client, lab.directory, "echo.default") == ECHO
        found = client(lab.client, lab.directory, "www.example.com")
        assert found == {PUBLIC["www.example.com"]}
    for server in servers:
        for tcp in (False, True):
            answer = ask(lab.client, server, "alias.default", tcp=tcp)
            assert addresses(answer) == [V4.server], server


@pytest.mark.parametrize("servers", [["127.0.0.1", "::1"], []], ids=["named", "default"])
def test_names_resolve_where_the_hosts_name_server_is_on_loopback(
    names: Names, servers: list[str]
) -> None:
    lab = names.lab
    lab.client.resolve_by(*servers)
    servers = servers or ["127.0.0.1"]  # as resolv.conf(5) has it
    local = NameServer(lab.client, "local-dns", servers, HOST_RECORDS)
    try:
        status = connect(names)
        assert status["mode"] == "overriding"
        assert status["name_servers"] == servers
        for client in CLIENTS.values():
            assert client(lab.client, lab.directory, "echo.default") == ECHO
            found = client(lab.client, lab.directory, "www.example.com")
            assert found == {PUBLIC["www.example.com"]}
        for server in servers:
            for tcp in (False, True):
                for name, found in (("echo.default", V4.server), ("nas", PUBLIC["nas"])):
                    answer = ask(lab.client, server, name, tcp=tcp)
                    assert addresses(answer) == [found], server
        assert "echo.default" not in local.names()
    finally:
        local.kill()


def test_names_of_the_cluster_resolve_where_nothing_leads_to_a_name_server(
    names: Names,
) -> None:
    lab = names.lab
    lab.client.resolve_by(NOWHERE)
    status = connect(names)
    assert status["mode"] == "overriding"
    for client in CLIENTS.values():
        assert client(lab.client, lab.directory, "echo.default") == ECHO
    assert ask(lab.client, NOWHERE, "www.example.com").rcode() == dns.rcode.SERVFAIL

    # A VPN comes up, say.
    lab.gateway.ip(f"address add {NOWHERE}/32 dev lo")
    far = NameServer(lab.gateway, "far-dns", [NOWHERE], HOST_RECORDS)
    lab.client.ip(f"route add {NETWORK_OF_NOWHERE} via {V4.gateway}")
    try:
        wait_until(
            lambda: addresses(ask(lab.client, NOWHERE, "www.example.com")),
            20,
            "what a route leads to now is asked",
        )
        assert told(names)["name_servers"] == [NOWHERE]
        assert addresses(ask(lab.client, NOWHERE, "echo.default")) == [V4.server]
        assert "echo.default" not in far.names()
    finally:
        lab.client.ip(f"route del {NETWORK_OF_NOWHERE} via {V4.gateway}")
        lab.gateway.ip(f"address del {NOWHERE}/32 dev lo")
        far.kill()


def test_another_name_server_is_followed(names: Names) -> None:
    lab = names.lab
    other = NameServer(
        lab.gateway, "other-dns", [OTHER], ["--host-record=www.example.com,203.0.113.66"]
    )
    try:
        connect(names)
        assert addresses(ask(lab.client, OTHER, "www.example.com")) == ["203.0.113.66"]
        assert addresses(ask(lab.client, OTHER, "echo.default")) == []
        lab.client.resolve_by(OTHER)
        wait_until(
            lambda: addresses(ask(lab.client, OTHER, "echo.default")) == [V4.server],
            20,
            "questions to the other are ours",
        )
        status = told(names)
        assert (status["mode"], status["name_servers"]) == ("overriding", [OTHER])
        assert by_getent(lab.client, lab.directory, "echo.default") == ECHO
        found = by_getent(lab.client, lab.directory, "www.example.com")
        assert found == {"203.0.113.66"}
        # The one before is nobody's business any more.
        assert ask(lab.client, V4.gateway, "echo.default").rcode() == dns.rcode.NXDOMAIN
    finally:
        other.kill()


# The end


@pytest.mark.parametrize("how", ["quit", "kill"])
def test_afterwards_names_are_as_before(names: Names, how: str) -> None:
    lab = names.lab
    text = lab.client.resolv_conf.read_text()
    asked = [("www.example.com", "TXT"), ("echo.default", "A"), ("docs.rs", "A")]

    def answers() -> list[bytes]:
        return [exchange(lab.client, V4.gateway, query(*each)) for each in asked]

    state, before = lab.client.state(), answers()
    connect(names)
    assert by_getent(lab.client, lab.directory, "echo.default") == ECHO
    if how == "quit":
        lab.quit()
    else:
        kill_session(names)
    assert_as_before(lab, state)
    assert answers() == before
    assert lab.client.resolv_conf.read_text() == text
    found = by_getent(lab.client, lab.directory, "www.example.com")
    assert found == {PUBLIC["www.example.com"]}


# Failures


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_stale(answer: dns.message.Message) -> bool:
    """Whether an answer says that it is out of date (RFC 8914, section 4.4)."""
    found = [option for option in answer.options if isinstance(option, dns.edns.EDEOption)]
    return any(option.code == dns.edns.EDECode.STALE_ANSWER for option in found)


def why(answer: dns.message.Message) -> str:
    """Give the reason that an answer has (RFC 8914)."""
    options = [each for each in answer.options if isinstance(each, dns.edns.EDEOption)]
    return "; ".join(option.text or "" for option in options)


def test_a_frozen_manager_costs_only_what_is_not_known(names: Names) -> None:
    lab = names.lab
    connect(names, TUNSTACK_DNS_LOOKUP_TIMEOUT="1")

    later = ("later.default", f"later.default.svc.{DOMAIN}")

    def asked(name: str) -> dns.message.Message:
        return ask(lab.client, V4.gateway, name)

    assert addresses(asked("brief.default")) == ["10.98.2.20"]
    assert lab.manager is not None
    with frozen(lab.manager.pid):

        def stale() -> bool:
            answer = asked("brief.default")
            assert addresses(answer) == ["10.98.2.20"]
            return is_stale(answer)

        wait_until(stale, 20, "an answer whose time is over")
        # The cluster may know the one of lan, too.
        unknown = [*later, "missing.default", "printer.lan"]
        for answer in ask_at_once(lab.client, V4.gateway, unknown):
            assert answer.rcode() == dns.rcode.SERVFAIL, answer
            seconds = re.search(r"within ([\d.]+) s", why(answer))
            assert seconds, why(answer)
            assert float(seconds[1]) < DnsConfig().lookup_timeout
        for name in PUBLIC.keys() - {"printer.lan"}:
            assert addresses(asked(name)) == [PUBLIC[name]], name

    def thawed() -> bool:
        answers = [asked(name) for name in later]
        for answer in answers:
            assert answer.rcode() in (dns.rcode.NOERROR, dns.rcode.SERVFAIL)
        return all(addresses(answer) == ["10.98.2.21"] for answer in answers)

    wait_until(thawed, 20, "the manager answers again")
    assert addresses(asked("printer.lan")) == [PUBLIC["printer.lan"]]
    assert asked("missing.default").rcode() == dns.rcode.NXDOMAIN


def test_a_dead_resolver_of_the_cluster_is_named(names: Names) -> None:
    lab = names.lab
    assert connect(names)["resolver"]["failures"] == 0
    names.cluster.kill()
    try:
        for name in ("later.default", f"later.default.svc.{DOMAIN}"):
            answer = ask(lab.client, V4.gateway, name)
            assert answer.rcode() == dns.rcode.SERVFAIL
        assert addresses(ask(lab.client, V4.gateway, "docs.rs")) == [PUBLIC["docs.rs"]]
        resolver = told(names)["resolver"]
        assert resolver["address"] == V4.server
        assert resolver["failures"] == resolver["asked"] > 0
        assert V4.server in resolver["last_failure"]
        shown = lab.tunstack("status", "--name", lab.name).stdout
        assert f"{V4.server}, {resolver['failures']} of" in shown
    finally:
        names.cluster.start()
    assert addresses(ask(lab.client, V4.gateway, "later.default")) == ["10.98.2.21"]


# Settings


@pytest.fixture
def local(names: Names) -> Iterator[NameServer]:
    """Another name server that the host may have."""
    server = NameServer(names.lab.gateway, "local-dns", [OTHER], HOST_RECORDS)
    yield server
    server.kill()


def test_settings_say_whose_a_name_is(names: Names, local: NameServer) -> None:
    lab = names.lab
    status = connect(
        names,
        TUNSTACK_DNS_INCLUDE_SUFFIXES="corp.test",
        TUNSTACK_DNS_EXCLUDE_SUFFIXES=f"team-a.svc.{DOMAIN}",
        TUNSTACK_DNS_EXCLUDES="later.default",
        TUNSTACK_DNS_MAPPINGS=(
            f"db.test=echo.default.svc.{DOMAIN},pin.test=203.0.113.77,web.test=docs.rs"
        ),
        TUNSTACK_DNS_FORCE_NAMESPACES="rs",
        TUNSTACK_DNS_SEARCH="elsewhere.test",
        TUNSTACK_DNS_LOCAL_IP=OTHER,
    )
    assert status["name_servers"] == [OTHER]
    for server in (names.cluster, names.host, local):
        server.forget()
    for name, expected in {
        "db.corp.test": "10.98.2.24",  # the cluster's
        "www.corp.test": "203.0.113.9",  # which does not know this one
        f"echo.team-a.svc.{DOMAIN}": None,
        "later.default": None,
        "db.test": V4.server,
        "pin.test": "203.0.113.77",
        "echo.rs": "10.98.2.22",
        "docs.rs": PUBLIC["docs.rs"],
        "deep": "10.98.2.25",
        "brief.default": "10.98.2.20",
    }.items():
        answer = ask(lab.client, V4.gateway, name)
        found = addresses(answer)
        assert found == ([] if expected is None else [expected]), name
        if expected is None:
            assert answer.rcode() == dns.rcode.NXDOMAIN, name
    assert by_getent(lab.client, lab.directory, "db.test") == ECHO
    assert by_musl(lab.client, lab.directory, "pin.test") == {"203.0.113.77"}
    # A mapping leads on by the same rules.
    assert addresses(ask(lab.client, V4.gateway, "web.test")) == [PUBLIC["docs.rs"]]

    cluster, host = names.cluster.names(), local.names()
    assert {"db.corp.test", "www.corp.test", "deep.elsewhere.test"} <= cluster
    assert not {f"echo.team-a.svc.{DOMAIN}", f"later.default.svc.{DOMAIN}"} & cluster
    assert {f"echo.team-a.svc.{DOMAIN}", "later.default", "www.corp.test"} <= host
    assert not {"db.corp.test", "db.test", "pin.test", "echo.rs", "deep"} & host
    assert names.host.names() == set()


def test_a_mode_that_cannot_be_is_refused(names: Names) -> None:
    lab = names.lab
    before = lab.client.state()
    result = lab.connect_once(dns=True, TUNSTACK_DNS_MODE="resolved")
    assert result.returncode not in (0, 1), result.stderr
    assert "systemd-resolved does not run here" in result.stderr
    assert "--no-dns" in result.stderr
    assert_as_before(lab, before)


# Mode files

WRITTEN = "options timeout:3\nsearch example.com\n# a comment\n"


@pytest.fixture
def by_file(names: Names) -> Names:
    """A host that has our server, and only ours, in its resolv.conf."""
    client = names.lab.client
    client.resolve_by(V4.gateway, V6.gateway, more=WRITTEN)
    status = connect(names, TUNSTACK_DNS_MODE="files")
    assert (status["mode"], status["by"]) == ("files", "/etc/resolv.conf")
    assert status["name_servers"] == [V4.gateway, V6.gateway]
    assert name_servers(client.resolv_conf.read_text()) == [status["server"]]
    return names


def before_by_file() -> str:
    """Give what is in that resolv.conf otherwise."""
    return f"nameserver {V4.gateway}\nnameserver {V6.gateway}\n{WRITTEN}"


def test_resolv_conf_names_us_and_comes_back_with_quit(by_file: Names) -> None:
    lab = by_file.lab
    for client in CLIENTS.values():
        for name in ("echo.default", "echo", f"echo.default.svc.{DOMAIN}"):
            assert client(lab.client, lab.directory, name) == ECHO
        for name, address in PUBLIC.items():
            assert client(lab.client, lab.directory, name) == {address}
    # Found in the search domain that was there before.
    assert by_getent(lab.client, lab.directory, "www") == {PUBLIC["www.example.com"]}
    # Only programs that read it are concerned.
    assert ask(lab.client, V4.gateway, "echo.default").rcode() == dns.rcode.NXDOMAIN

    # Somebody else writes one: that is the host's from now on.
    lab.client.resolve_by(V6.gateway)
    wait_until(
        lambda: (
            told(by_file)["name_servers"] == [V6.gateway]
            and name_servers(lab.client.resolv_conf.read_text())
            == [told(by_file)["server"]]
        ),
        20,
        "the new one is the host's, and ours is written again",
    )
    assert by_getent(lab.client, lab.directory, "echo.default") == ECHO
    lab.quit()
    assert lab.client.resolv_conf.read_text() == f"nameserver {V6.gateway}\n"


def test_resolv_conf_of_a_killed_session_comes_back_with_quit(by_file: Names) -> None:
    lab = by_file.lab
    kill_session(by_file)
    wait_until(lambda: not lab.client.pids(), 10, "both ended")
    assert lab.client.resolv_conf.read_text() != before_by_file()
    result = lab.tunstack("quit", "--name", lab.name)
    assert result.returncode == 0, result.stderr
    assert "/etc/resolv.conf restored" in result.stdout
    assert lab.client.resolv_conf.read_text() == before_by_file()


def test_resolv_conf_of_a_killed_session_comes_back_with_connect(by_file: Names) -> None:
    lab = by_file.lab
    kill_session(by_file)
    wait_until(lambda: not lab.client.pids(), 10, "both ended")
    status = connect(by_file)
    assert status["mode"] == "overriding"
    assert status["name_servers"] == [V4.gateway, V6.gateway]
    assert lab.client.resolv_conf.read_text() == before_by_file()
    assert by_getent(lab.client, lab.directory, "echo.default") == ECHO


def test_where_packets_cannot_be_overridden_the_file_is(names: Names) -> None:
    """The questions to a link-local name server stay with it."""
    lab = names.lab
    shown = lab.gateway.ip("-o -6 address show dev client scope link")
    scoped = f"{shown.split()[3].partition('/')[0]}%gateway"
    lab.client.resolve_by(scoped)
    status = connect(names)
    assert status["mode"] == "files"
    assert by_getent(lab.client, lab.directory, "echo.default") == ECHO
    lab.quit()
    assert lab.client.resolv_conf.read_text() == f"nameserver {scoped}\n"
