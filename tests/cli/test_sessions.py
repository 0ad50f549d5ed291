"""A name belongs to one session as long as any of its processes lives."""

import os
import socket
import subprocess
import sys

import pytest

from tunstack.cli import sessions
from tunstack.errors import HostError, NotConnected
from tunstack.host import paths

NAME = "mine"


@pytest.fixture
def directory():
    return paths.session_dir(NAME)


@pytest.fixture
def listener(directory):
    """Listen as an engine does."""
    with socket.socket(socket.AF_UNIX) as sock:
        yield lambda: (sock.bind(str(directory / sessions.SOCKET)), sock.listen())


def test_there_is_no_session_at_first():
    with pytest.raises(NotConnected):
        sessions.find(NAME)


def test_a_session_that_listens_is_found(listener):
    lock = sessions.claim(NAME)
    listener()
    sessions.find(NAME).close()
    os.close(lock)


def test_a_name_is_not_claimed_twice(listener):
    lock = sessions.claim(NAME)
    listener()
    with pytest.raises(HostError) as caught:
        sessions.claim(NAME)
    assert "--name" in caught.value.hint
    os.close(lock)


def test_what_a_killed_session_left_is_cleared_by_the_next(directory):
    os.close(sessions.claim(NAME))
    (directory / "control.sock").touch()
    lock = sessions.claim(NAME)
    assert list(directory.iterdir()) == []
    os.close(lock)


def test_what_a_killed_session_left_is_cleared_by_a_look(directory):
    with socket.socket(socket.AF_UNIX) as stale:
        lock = sessions.claim(NAME)
        stale.bind(str(directory / sessions.SOCKET))
    os.close(lock)
    with pytest.raises(NotConnected):
        sessions.find(NAME)
    assert not directory.exists()


def test_a_session_that_is_coming_up_is_not_cleared_away(directory):
    lock = sessions.claim(NAME)
    with pytest.raises(NotConnected):
        sessions.find(NAME)
    assert directory.exists()
    os.close(lock)


def test_a_session_is_gone_when_its_last_process_is(directory):
    lock = sessions.claim(NAME)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[lock],
    )
    os.close(lock)
    with pytest.raises(NotConnected):
        sessions.find(NAME)
    assert directory.exists()
    child.kill()
    sessions.wait_gone(NAME)
    assert not directory.exists()
    child.communicate()
