"""Sessions of this caller, by name: find one, claim a name, wait for an end.

A session has a directory with its control socket. Every process of the session holds
the directory's lock through one descriptor they inherit, so the kernel says whether
any of them lives, however they died. Who gets the lock may clear away what is there.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tunstack.engine.control import Client
from tunstack.errors import HostError, NotConnected
from tunstack.host import paths

SOCKET = "control.sock"

PATIENCE = 10.0
"""Seconds that a session may take to end."""

_INTERVAL = 0.005
"""Seconds between two looks at a session that is ending."""

name_option = click.option(
    "--name", default="default", show_default=True, help="Which session."
)


def find(name: str) -> Client:
    """Call the engine of a session.

    Raises:
        NotConnected: there is none. What a killed one left is cleared away.
    """
    directory = paths.session_dir(name)
    try:
        return Client.to(directory / SOCKET)
    except NotConnected:
        lock = _lock(directory)
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
        raise


def names() -> list[str]:
    """Give the names of the caller's sessions, of killed ones too."""
    folder = paths.session_dir("default").parent
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def is_dead(name: str) -> bool:
    """Whether all there is of a session is what a killed one has left."""
    lock = _lock(paths.session_dir(name))
    if lock is None:
        return False
    os.close(lock)
    return True


def end(name: str) -> bool:
    """End a session, and wait until nothing of it is left; false when there is none.

    Raises:
        HostError: it does not end.
    """
    try:
        with _held(paths.session_dir(name)) as directory:
            with find(name) as engine:
                engine.ask("quit")
            # Its processes live a little longer than the path.
            _wait_free(name, directory)
    except NotConnected:
        return False
    wait_gone(name)
    return True


def claim(name: str) -> int:
    """Take a name for a new session: an empty directory, and its lock.

    Returns:
        The descriptor that holds the lock, for the session's processes to inherit.

    Raises:
        HostError: the name is taken by a session that works, or will not end.
    """
    directory = paths.session_dir(name)
    for _ in _looks():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(directory)
        if lock is not None:
            for entry in directory.iterdir():
                entry.unlink()
            return lock
        try:
            Client.to(directory / SOCKET).close()
        except NotConnected:
            continue
        raise HostError(
            f"there is a session named {name} already",
            hint="`tunstack quit` ends it, --name starts another beside it",
        )
    raise _stuck(name)


def wait_gone(name: str) -> None:
    """Wait until no process of a session lives and nothing of it is left.

    Raises:
        HostError: it does not end.
    """
    directory = paths.session_dir(name)
    for _ in _looks():
        if not directory.exists():
            return
        lock = _lock(directory)
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
    raise _stuck(name)


@contextmanager
def _held(directory: Path) -> Iterator[int]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotConnected("not connected") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_free(name: str, directory: int) -> None:
    """Wait until no process of a session has its directory."""
    for _ in _looks():
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return
    raise _stuck(name)


def _stuck(name: str) -> HostError:
    return HostError(
        f"the session named {name} has not ended within {PATIENCE:.0f} s",
        hint="find its processes with `pgrep -af tunstack` and kill them",
    )


def _looks() -> Iterator[None]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        yield
        time.sleep(_INTERVAL)


def _lock(directory: Path) -> int | None:
    """Take a directory, unless a process of a session has it or it does not exist."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed, and made again, between the two calls.
        if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
