"""A network namespace of the test's own, so that no test touches the host's network."""

import ctypes
import os
import sys
from collections.abc import Iterator

import pytest

_CLONE_NEWNET = 0x40000000


@pytest.fixture
def namespace() -> Iterator[None]:
    """Put this process, and those that it starts, into a new network namespace.

    It has no name: the kernel removes it, and all that is in it, behind the last process.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("needs /dev/net/tun")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            assert libc.setns(home, _CLONE_NEWNET) == 0
    finally:
        os.close(home)
