import os
from pathlib import Path

import pytest

from tunstack.errors import UsageError
from tunstack.host import paths


@pytest.fixture
def as_root(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)


def test_a_session_lives_in_the_callers_runtime_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.session_dir("default") == tmp_path / "tunstack" / "default"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_under_sudo_the_callers_runtime_directory_does_not_count(monkeypatch, tmp_path):
    os.chown(tmp_path, 1000, 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.session_dir("default") == Path("/run/tunstack/default")


@pytest.mark.parametrize("given", [None, "", "/does/not/exist"])
def test_root_has_its_own_places(monkeypatch, as_root, given):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    assert paths.session_dir("a.b") == Path("/run/tunstack/a.b")
    assert paths.log_file("a.b") == Path("/var/log/tunstack/a.b.log")


def test_a_users_log_is_in_the_users_directory(monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert tmp_path in paths.log_file("default").parents


@pytest.mark.parametrize("name", ["default", "a", "A-1_b.c", "x" * 32])
def test_names_of_sessions(name):
    assert paths.session_dir(name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "x" * 33, "a b", "ä", "a\n"])
def test_what_is_no_name_of_a_session_is_refused(name):
    for place in (paths.session_dir, paths.log_file):
        with pytest.raises(UsageError):
            place(name)
