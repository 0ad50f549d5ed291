"""`tunstack doctor`: what it finds, what it only tells, and what it puts right."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from tests.cli.conftest import BEFORE
from tunstack import _fastpath
from tunstack.cli import doctor, main, sessions
from tunstack.dns.resolv_conf import ResolvConf
from tunstack.dns.rules import CHECK
from tunstack.host import journal, paths
from tunstack.host.resolver_files import resolv_conf

pytestmark = pytest.mark.usefixtures("host")

HOST = ["device", "leftovers", "sessions", "fastpath"]
SESSION = ["versions", "names", "resolver", "ping", "credentials", "routes"]


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host that can make devices, has fast arithmetic, and asks a session for names."""
    monkeypatch.setattr(doctor, "TUN", tmp_path / "tun")
    (tmp_path / "tun").touch()
    monkeypatch.setattr(_fastpath, "NAME", "kernels")
    monkeypatch.setattr(doctor, "_capabilities", lambda: 1 << 12)
    found = {"servers": ["198.18.0.2"]}

    def getaddrinfo(name, port):
        assert re.fullmatch(rf"[0-9a-f]+\.{CHECK}", name)
        if not found["servers"]:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(2, 1, 6, "", (address, 0)) for address in found["servers"]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


@pytest.fixture
def examine(capfd):
    """Run the doctor; gives exit code and document."""

    def run(*arguments):
        code = main.run(("doctor", "--json", *arguments))
        out, err = capfd.readouterr()
        assert err == ""
        document = json.loads(out)
        for finding in document["findings"]:
            assert finding.keys() == {"check", "finding", "hint", "fixable"}
            assert finding["finding"]
            assert finding["hint"]
        assert code == (1 if document["findings"] else 0)
        return code, document

    return run


def results(document):
    return {check["check"]: check["result"] for check in document["checks"]}


def found(document):
    return [finding["check"] for finding in document["findings"]]


@pytest.fixture
def serve(start_engine, report):
    """Start a session whose cluster answers, or does not; gives its verbs' reports."""

    def start(name="default", failure=None, dns=None, **parts):
        document = report(name, dns, **parts)

        def dns_query(name, type):
            resolver = document["dns"]["resolver"]
            resolver["asked"] += 1
            resolver["failures"] += failure is not None
            assert name.endswith(".default.svc.cluster.local")
            outcome = failure or "NXDOMAIN"
            return {
                "by": "nobody" if failure else "cluster",
                "rcode": "SERVFAIL" if failure else "NXDOMAIN",
                "steps": [{"to": "cluster", "outcome": outcome}],
            }

        start_engine(name, status=lambda: document, dns_query=dns_query)
        return document

    return start


def test_without_a_session_the_host_is_looked_at(examine):
    code, document = examine()
    assert code == 0
    assert list(results(document)) == HOST
    assert document["findings"] == document["fixed"] == []


def test_a_session_that_is_well(examine, serve):
    serve()
    code, document = examine()
    assert code == 0
    assert list(results(document)) == HOST + SESSION
    assert results(document)["sessions"] == "default is connected"
    assert "overriding, by nftables, at 198.18.0.2" in results(document)["names"]
    assert "10.96.0.10" in results(document)["resolver"]


def test_people_get_a_line_a_check_and_two_a_finding(capfd, serve):
    serve(manager={"icmp": False})
    assert main.run(["doctor"]) == 1
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert [line.split()[0] for line in lines[:-2]] == HOST + SESSION
    assert re.fullmatch("finding: .*ping.*", lines[-2])
    assert re.fullmatch("hint: .*ping_group_range.*", lines[-1])


def test_all_sessions_of_the_caller_are_looked_at_unless_one_is_named(examine, serve):
    serve("one")
    serve("two", manager={"icmp": False})
    _, document = examine()
    assert results(document)["sessions"] == "one is connected; two is connected"
    assert "one: overriding" in results(document)["names"]
    assert found(document) == ["ping"]
    code, document = examine("--name", "one")
    assert (code, results(document)["sessions"]) == (0, "one is connected")
    code, document = examine("--name", "three")
    assert (code, list(results(document))) == (0, HOST)


def test_a_name_that_is_none_is_refused(capfd):
    assert main.run(["doctor", "--name", "../../etc"]) == 2
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 2)


# The host


def test_a_host_without_tun_is_found(examine, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "TUN", tmp_path / "nonexistent")
    code, document = examine()
    assert (code, found(document)) == (1, ["device"])
    assert "modprobe tun" in document["findings"][0]["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="others have none anyway")
def test_root_without_the_capability_is_found(examine, monkeypatch):
    monkeypatch.setattr(doctor, "_capabilities", lambda: 0)
    _, document = examine()
    assert found(document) == ["device"]
    assert "CAP_NET_ADMIN" in document["findings"][0]["finding"]


def test_slow_arithmetic_is_found(examine, monkeypatch, serve):
    monkeypatch.setattr(_fastpath, "NAME", "reference")
    assert found(examine()[1]) == ["fastpath"]
    serve()
    assert found(examine()[1]) == []  # the session is what counts
    serve("slow", fastpath="reference")
    assert found(examine()[1]) == ["fastpath"]


def test_what_a_killed_session_left_is_found_and_cleared(examine):
    os.close(sessions.claim("dead"))
    _, document = examine()
    assert found(document) == ["sessions"]
    assert document["findings"][0]["fixable"]
    assert paths.session_dir("dead").exists()
    code, document = examine("--fix")
    assert (code, len(document["fixed"])) == (0, 1)
    assert "dead" in document["fixed"][0]
    assert not paths.session_dir("dead").exists()


def test_a_session_that_begins_is_no_finding(examine):
    lock = sessions.claim("young")
    code, document = examine()
    assert (code, results(document)["sessions"]) == (0, "young begins or ends")
    os.close(lock)


def test_a_session_that_connects_is_no_finding(examine, serve):
    serve(state="disconnected", manager=None)
    code, document = examine()
    assert (code, list(results(document))) == (0, HOST)
    assert results(document)["sessions"] == "default is connecting"


def test_an_engine_that_does_not_answer_is_found(examine, start_engine):
    start_engine()
    assert found(examine()[1]) == ["sessions"]


# What helpers have left


def test_changes_of_a_helper_that_is_gone_are_found_and_undone(examine, left):
    _, document = examine()
    assert found(document) == ["leftovers"]
    assert document["findings"][0]["fixable"]
    assert str(left) in document["findings"][0]["finding"]
    assert "198.18.0.2" in left.read_text()
    code, document = examine("--fix")
    assert code == 0
    assert document["fixed"] == [f"{left} restored"]
    assert left.read_text() == BEFORE
    assert examine()[0] == 0


def test_a_helper_that_nobody_has_waited_for_is_gone(examine, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    kept = journal.DIRECTORY / f"mine-{child.pid}.json"
    doctor.RESOLV_CONF.write_text(resolv_conf("198.18.0.2", [], ResolvConf(), "mine", kept))
    assert found(examine()[1]) == ["leftovers"]
    child.wait()


def test_changes_of_a_helper_that_lives_are_no_finding(examine):
    doctor.RESOLV_CONF.write_text(BEFORE)
    kept = journal.Journal("mine", journal.DIRECTORY)
    kept.write(
        doctor.RESOLV_CONF, resolv_conf("198.18.0.2", [], ResolvConf(), "mine", kept.path)
    )
    assert examine("--fix")[0] == 0
    assert "198.18.0.2" in doctor.RESOLV_CONF.read_text()
    kept.undo()


def test_what_somebody_else_has_changed_since_is_no_finding(examine, left):
    left.write_text("nameserver 192.0.2.9\n")
    assert examine()[0] == 0


def test_a_resolv_conf_of_ours_without_its_record_is_found(examine, left):
    shutil.rmtree(journal.DIRECTORY)
    _, document = examine("--fix")
    assert found(document) == ["leftovers"]
    assert not document["findings"][0]["fixable"]


def test_a_record_that_cannot_be_read_is_found_and_stays(examine):
    journal.DIRECTORY.mkdir(parents=True)
    (journal.DIRECTORY / "mine-1.json").write_text("{")
    _, document = examine("--fix")
    assert found(document) == ["leftovers"]
    assert not document["findings"][0]["fixable"]
    assert (journal.DIRECTORY / "mine-1.json").exists()


def test_only_root_may_look_at_the_journal(examine, monkeypatch):
    def refused(directory):
        raise PermissionError

    monkeypatch.setattr(journal, "left_behind", refused)
    code, document = examine()
    assert (code, results(document)["leftovers"]) == (
        0,
        "only root may look at the journal",
    )
    _, document = examine("--fix")
    assert found(document) == ["leftovers"]
    assert "sudo" in document["findings"][0]["hint"]


# A session


def test_a_tunnel_that_is_lost_is_found(examine, serve):
    serve(state="reconnecting")
    _, document = examine()
    assert found(document) == ["sessions"]
    assert "/var/log/tunstack/default.log" in document["findings"][0]["hint"]


@pytest.mark.parametrize("part", ["engine", "helper"])
def test_a_daemon_of_another_version_is_found(examine, serve, part):
    serve(**{part: {"version": "0.0.7", "protocol": 1, "pid": 1}})
    _, document = examine()
    assert found(document) == ["versions"]
    assert f"the {part} of the session default is tunstack 0.0.7" in str(document)


def test_an_engine_that_tells_less_is_not_too_old(examine, start_engine):
    report = {"state": "connected", "manager": {}, "engine": {"version": "0.0.1"}}
    start_engine(status=lambda: report)
    assert found(examine()[1]) == ["versions"]


def test_no_names_where_none_were_wanted_is_no_finding(examine, serve):
    serve(dns={"mode": "none", "by": None, "server": None, "search": [], "resolver": None})
    code, document = examine()
    assert (code, results(document)["names"]) == (0, "none, as it was asked for")


def test_names_that_no_mode_resolves_any_more_are_found(examine, serve):
    serve(dns={"mode": "none", "by": None})
    assert found(examine()[1]) == ["names"]


@pytest.mark.parametrize("servers", [[], ["203.0.113.9"]], ids=["nobody", "another"])
def test_programs_that_ask_somebody_else_are_found(examine, serve, host, servers):
    serve()
    host["servers"] = servers
    _, document = examine()
    assert found(document) == ["names"]
    assert "overriding, by nftables" in document["findings"][0]["finding"]


def test_skipped_namespaces_are_told(examine, serve):
    serve(dns={"skipped": [{"namespace": "rs", "reason": "public suffix"}]})
    code, document = examine()
    assert code == 0
    assert "not the cluster's: rs (public suffix)" in results(document)["names"]
    assert "dns.force_namespaces" in results(document)["names"]


def test_a_cluster_that_does_not_answer_now_is_found(examine, serve):
    serve(failure="10.96.0.10 did not answer within 3.6 s")
    _, document = examine()
    assert found(document) == ["resolver"]
    (finding,) = document["findings"]
    for part in ("CoreDNS", "10.96.0.10 did not answer within 3.6 s", "1 of 1"):
        assert part in finding["finding"]
    assert "kubectl -n kube-system get pods -l k8s-app=kube-dns" in finding["hint"]


@pytest.mark.parametrize(
    ("asked", "failures", "p99", "sick"),
    [
        (0, 0, None, False),
        (1000, 0, 0.9, False),
        (1000, 9, 0.1, False),
        (1000, 11, 0.1, True),
        (1000, 1, 0.6, True),
        (19, 1, 0.1, False),
        (20, 1, 0.1, True),
        (3, 1, 0.6, True),
        (3, 3, None, True),
    ],
)
def test_a_resolver_is_sick_when_more_fails_than_a_network_loses(
    examine, serve, asked, failures, p99, sick
):
    resolver = {
        "address": "10.96.0.10",
        "asked": asked,
        "failures": failures,
        "last_failure": "it said nothing" if failures else None,
        "p50": None if p99 is None else 0.001,
        "p99": p99,
    }
    # While it is reconnecting nothing is asked, and so the numbers stay.
    serve(dns={"resolver": resolver}, state="reconnecting")
    _, document = examine()
    assert ("resolver" in found(document)) == sick
    if sick:
        (finding,) = (f for f in document["findings"] if f["check"] == "resolver")
        for part in ("CoreDNS", "10.96.0.10", f"{failures} of {asked}", "it said nothing"):
            assert part in finding["finding"]
    elif asked:
        assert f"{failures} of {asked}" in results(document)["resolver"]


def test_credentials_that_are_taken_no_more_are_found(examine, serve):
    serve(kubernetes={"credentials": {"expires": 1, "expired": True, "renewal": "x"}})
    assert found(examine()[1]) == ["credentials"]


def test_overlaps_are_told(examine, serve, report):
    overlap = {"network": "10.96.0.0/12", "existing": "10.0.0.0/8", "interface": "tun0"}
    serve(routes={**report()["routes"], "overlaps": [overlap]})
    code, document = examine()
    assert code == 0
    for part in overlap.values():
        assert part in results(document)["routes"]
