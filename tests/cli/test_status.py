"""`tunstack status` of a session, to people and to programs."""

import json

import pytest

from tunstack.cli import main


@pytest.fixture
def status(capfd, start_engine, report):
    """Give the exit code and the lines about a session."""

    def run(**parts):
        document = report(**parts)
        start_engine(status=lambda: document)
        code = main.run(["status"])
        out, err = capfd.readouterr()
        assert err == ""
        lines = out.splitlines()
        return code, {line[2:14].strip(): line[15:] for line in lines[1:]}

    return run


def test_the_document_is_the_engines(capfd, start_engine, report):
    start_engine(status=report)
    assert main.run(["status", "--json"]) == 0
    out, err = capfd.readouterr()
    assert (json.loads(out), err) == (report(), "")


def test_names_tell_mode_by_whom_and_where(status):
    code, lines = status()
    assert code == 0
    assert lines["names"] == "overriding, by nftables, at 198.18.0.2"
    assert lines["search"] == "default.svc.cluster.local"
    assert "skipped" not in lines
    assert "cluster DNS" not in lines


def test_names_tell_how_the_clusters_resolver_is(status):
    resolver = {
        "address": "10.96.0.10",
        "asked": 40,
        "failures": 2,
        "last_failure": "it said nothing",
        "p50": 0.0004,
        "p99": 0.0123,
    }
    _, lines = status(dns={"resolver": resolver})
    assert lines["cluster DNS"] == (
        "10.96.0.10, p50 0.4 ms, p99 12.3 ms, 2 of 40 questions failed"
    )


def test_a_manager_that_does_not_tell_its_resolver_is_no_bug(status):
    resolver = {"address": None, "asked": 1, "failures": 1, "p50": None, "p99": None}
    _, lines = status(dns={"resolver": resolver})
    assert lines["cluster DNS"].endswith("1 of 1 questions failed")


def test_names_tell_which_namespaces_are_skipped(status):
    skipped = [
        {"namespace": "rs", "reason": "public suffix"},
        {"namespace": "local", "reason": "special-use name"},
    ]
    _, lines = status(dns={"skipped": skipped})
    assert lines["skipped"] == (
        "not the cluster's: rs (public suffix), local (special-use name)"
    )


@pytest.mark.parametrize(
    ("server", "said"),
    [(None, "none"), ("198.18.0.2", "none: no mode works here any more")],
)
def test_no_names_are_told_from_names_that_were_lost(status, server, said):
    code, lines = status(dns={"mode": "none", "by": None, "server": server})
    assert (code, lines["names"]) == (0, said)
    assert "search" not in lines


def test_while_reconnecting_it_exits_1(status):
    assert status(state="reconnecting")[0] == 1
