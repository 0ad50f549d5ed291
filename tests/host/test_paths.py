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


def test_a_runtime_directory_of_another_user_does_not_count(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    assert tmp_path not in paths.session_dir("default").parents


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
