"""What killed sessions have done to this host is undone by whoever is root next."""

import json
import os

import pytest

from tests.cli.conftest import BEFORE
from tunstack.cli import leftovers, main
from tunstack.host import journal, paths

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_quit_undoes_it_and_says_so(capfd, left):
    assert main.run(["quit"]) == 0
    assert capfd.readouterr().out == f"not connected\n{left} restored\n"
    assert left.read_text() == BEFORE


def test_quit_says_nothing_where_there_is_nothing(capfd):
    assert main.run(["quit"]) == 0
    assert capfd.readouterr() == ("not connected\n", "")


def test_who_is_not_root_leaves_it(left, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert leftovers.undo() == []
    assert "198.18.0.2" in left.read_text()


def test_connect_undoes_it_before_it_looks_up_any_name(capfd, left, start_engine):
    start_engine()  # so that connect goes no further than that
    assert main.run(["connect", "--manager", "manager.invalid:7777"]) == 5
    out, err = capfd.readouterr()
    assert (out, err.splitlines()[0]) == ("", f"{left} restored")
    assert left.read_text() == BEFORE


def test_uninstall_everything_leaves_nothing_on_this_host(
    capfd, left, home, monkeypatch, start_engine
):
    kubeconfig = home / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    users = [{"name": "c", "user": {"token": "x"}}]
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [cluster],
                "contexts": [context],
                "users": users,
                "current-context": "c",
            }
        )
    )
    log = home / "log" / "default.log"
    log.parent.mkdir()
    log.touch()
    monkeypatch.setattr(paths, "log_file", lambda name: log)
    arguments = ["uninstall", "--everything", "--kubeconfig", str(kubeconfig)]
    assert main.run(arguments) == 6  # there is no cluster
    capfd.readouterr()
    assert left.read_text() == BEFORE
    assert not journal.DIRECTORY.parent.exists()
    assert not log.parent.exists()
