"""Namespaces for tests, without names: the kernel removes each behind its last user."""

import ctypes
import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unshare(flags: int) -> None:
    """Put this process into new namespaces."""
    _must(_libc.unshare(flags))


def namespace_of(process: int | str) -> int:
    """Give a descriptor of a process's network namespace."""
    return os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def unshared() -> int:
    """Give a descriptor of a new network namespace."""
    home = namespace_of("self")
    unshare(CLONE_NEWNET)
    try:
        return namespace_of("self")
    finally:
        _must(_libc.setns(home, CLONE_NEWNET))
        os.close(home)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Be in a network namespace for a while."""
    home = namespace_of("self")
    _must(_libc.setns(namespace, CLONE_NEWNET))
    try:
        yield
    finally:
        _must(_libc.setns(home, CLONE_NEWNET))
        os.close(home)


@contextmanager
def joined(namespace: int) -> Iterator[None]:
    """Be in a network namespace whose descriptor goes afterwards."""
    try:
        with inside(namespace):
            yield
    finally:
        os.close(namespace)


def forked(function: Callable[[], None], *, killed: bool = False) -> bool:
    """Run a function in a child of this process, which must not fail.

    Returns whether the child was killed by SIGKILL, which ``killed`` allows.
    """
    pid = os.fork()
    if not pid:
        status = 1
        try:
            function()
            status = 0
        except BaseException:  # noqa: BLE001 (said, and then the child ends)
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0 or (killed and status == -9), f"the child ended with {status}"
    return status != 0


def mount(source: object, target: object, *options: str) -> None:
    """Mount, in this process's mount namespace."""
    command = ["mount", *options, str(source), str(target)]
    subprocess.run(command, check=True, timeout=10)


def with_mounts_of_its_own(function: Callable[[], None]) -> None:
    """Run a function in a child that has a mount namespace of its own."""

    def child() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", "--make-rprivate")
        function()

    forked(child)
