"""Names on a host that has systemd-resolved: it sends us what is ours, and nothing else."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.lab import V4, V6, link, wait_until
from tests.support.name_server import addresses, ask
from tests.support.names import CLIENTS, DOMAIN, ECHO, PUBLIC, Names, by_getent
from tests.support.resolved import Beside, Resolved, ResolvedLab

STUB = "127.0.0.53"


@pytest.fixture(scope="module")
def world(with_resolved: ResolvedLab) -> Names:
    """A lab with names and a manager."""
    # The first one has started with the machine's name servers.
    with_resolved.client.restart()
    names = Names(with_resolved)
    with_resolved.client.resolvectl("domain", "gateway", "example.com")
    names.manage()
    return names


@pytest.fixture
def names(world: Names) -> Iterator[Names]:
    """The same lab, connected; its resolved knows afterwards what it knew before."""
    lab, client = world.lab, resolved_of(world)
    state, before = client.state(), client.resolver_state()
    result = lab.connect_once(dns=True)
    assert result.returncode == 0, result.stderr
    yield world
    lab.quit()
    wait_until(lambda: client.state() == state, 10, "the client is as before")
    assert client.resolver_state() == before


def resolved_of(names: Names) -> Resolved:
    """Give the client."""
    client = names.lab.client
    assert isinstance(client, Resolved)
    return client


def query(client: Resolved, name: str) -> set[str]:
    """Resolve by resolvectl."""
    lines = client.resolvectl("query", "--legend=no", name).splitlines()
    return set(re.findall(r"(?:: |^ +)([0-9a-f.:]+)", "\n".join(lines), re.MULTILINE))


def domains(client: Resolved) -> set[str]:
    """Give the domains of our link."""
    said = client.resolvectl("domain", "ts0").partition(":")[2]
    return set(said.split())


def test_resolved_is_told_of_server_and_domains(names: Names) -> None:
    client = resolved_of(names)
    told = names.lab.status()["dns"]
    assert (told["mode"], told["by"]) == ("resolved", "systemd-resolved")
    assert told["name_servers"] == [V4.gateway, V6.gateway]
    shown = client.resolvectl("status", "ts0")
    assert told["server"] in shown
    assert "-DefaultRoute" in shown
    assert domains(client) == {*told["domains"], *told["search"]}
    assert {f"~{DOMAIN}", "~svc", "~default", "~lan"} <= domains(client)
    assert "~rs" not in domains(client)


def test_programs_resolve_names(names: Names) -> None:
    lab, client = names.lab, resolved_of(names)
    cluster = ("echo.default", "echo.default.svc", f"echo.default.svc.{DOMAIN}")
    for name in cluster:
        for by in CLIENTS.values():
            assert by(client, lab.directory, name) == ECHO, name
        assert query(client, name) == ECHO
    names.cluster.forget()
    for name in PUBLIC.keys() - {"nas"}:
        for by in CLIENTS.values():
            assert by(client, lab.directory, name) == {PUBLIC[name]}, name
        assert query(client, name) == {PUBLIC[name]}
    # It was asked for the name in the namespace lan, which it might have had.
    assert names.cluster.names() <= {f"printer.lan.svc.{DOMAIN}"}
    url = "http://echo.default:8080/bytes/5"
    for version in ("-4", "-6"):
        client.run("curl", "-sf", version, "--max-time", "30", "-o/dev/null", url)
    # Single labels. What is not in the session's namespace is in the host's own domain.
    for by in (CLIENTS["getent"], CLIENTS["python"], CLIENTS["musl"]):
        assert by(client, lab.directory, "echo") == ECHO
        assert by(client, lab.directory, "www") == {PUBLIC["www.example.com"]}
    assert query(client, "echo") == ECHO
    assert query(client, "www") == {PUBLIC["www.example.com"]}

    # What the stub passes on.
    for tcp in (False, True):
        assert addresses(ask(client, STUB, "alias.default", tcp=tcp)) == [V4.server]
    big = ask(client, STUB, f"big.default.svc.{DOMAIN}", "TXT", tcp=True)
    assert sum(len(rdata.to_wire()) for rrset in big.answer for rdata in rrset) == 2010
    for site in (V4, V6):
        named = client.run("dig", "+short", "-x", site.server).strip()
        assert named == f"echo.default.svc.{DOMAIN}."


def test_namespaces_come_and_go(names: Names) -> None:
    lab, client = names.lab, resolved_of(names)
    assert lab.manager is not None
    lab.manager.kill()
    lab.manager.wait()
    try:
        names.manage("default", "team-a")
        wait_until(lambda: "~team-a" in domains(client), 20, "resolved is told of ~team-a")
        assert "~lan" not in domains(client)
        assert by_getent(client, lab.directory, "echo.team-a") == {"10.98.2.23"}
    finally:
        lab.manager.kill()
        lab.manager.wait()
        names.manage()


def test_a_restarted_resolved_is_told_again(names: Names) -> None:
    lab, client = names.lab, resolved_of(names)
    told = domains(client)
    client.restart()
    client.resolve_by(V4.gateway, V6.gateway)
    client.resolvectl("domain", "gateway", "example.com")
    wait_until(lambda: domains(client) == told, 20, "resolved is told again")
    assert lab.status()["dns"]["mode"] == "resolved"
    assert by_getent(client, lab.directory, "echo.default") == ECHO
    found = by_getent(client, lab.directory, "www.example.com")
    assert found == {PUBLIC["www.example.com"]}


def test_resolved_forgets_a_killed_session(names: Names) -> None:
    lab, client = names.lab, resolved_of(names)
    status = lab.status()
    assert "~default" in domains(client)
    for victim in ("helper", "engine"):
        os.kill(status[victim]["pid"], signal.SIGKILL)
    gone = "the device, and all that resolved knew of it"
    wait_until(lambda: "ts0" not in client.resolver_state(), 10, gone)
    assert by_getent(client, lab.directory, "docs.rs") == {PUBLIC["docs.rs"]}


def test_the_resolved_of_another_network_namespace_is_left_alone(world: Names) -> None:
    lab, client = world.lab, resolved_of(world)
    before = client.resolver_state()
    other = Beside(f"{lab.name}-ot", lab.logs, client)
    name = f"{lab.name}-ot"
    try:
        link(other, "gateway", "10.98.10.1", lab.gateway, "other", "10.98.10.2")
        other.ip(f"route add {V4.gateway} via 10.98.10.2")
        lab.connect(dns=True, where=other, name=name)
        # One that resolved knows, too: it would take our word for its own link.
        index = other.ip("-o link show dev ts0").partition(":")[0]
        assert any(
            line.startswith(f"{index}:") for line in client.ip("-o link").splitlines()
        )
        told = lab.status(name)["dns"]
        assert told["mode"] == "overriding"
        assert client.resolver_state() == before
        assert by_getent(other, lab.directory, "echo.default") == ECHO
        lab.quit(name)
        assert client.resolver_state() == before
    finally:
        other.close()
