"""Labs for tests against the outside: the command line, real kernels, real servers."""

import os
import resource
import socket
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support import lab as labs
from tests.support import name_server
from tests.support.lab import V4, V6, Lab, Site
from tests.support.resolved import ResolvedLab, Unavailable
from tests.support.servers import ECHO_PORT

RESOLV_CONF = Path("/etc/resolv.conf")

Made = TypeVar("Made", bound=Lab)

_labs: list[Lab] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests; let those that need a long idle time come last."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.system)
    items.sort(key=lambda item: item.path.name == "test_idle.py")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Attach the ends of the labs' logs to a failure."""
    report = (yield).get_result()
    if report.failed:
        for lab in _labs:
            for log in (*sorted(lab.logs.iterdir()), *lab.engine_logs()):
                if text := log.read_text(errors="replace")[-4000:]:
                    report.sections.append((f"{lab.name}: {log.name}", text))


@pytest.fixture(scope="session", autouse=True)
def _ready() -> None:
    """Labs can be made, and this process may hold 10 000 connections."""
    if reason := labs.missing():
        pytest.skip(reason)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _made(make: Callable[[], Made] = Lab) -> Iterator[Made]:
    lab = make()
    _labs.append(lab)
    try:
        lab.serve()
        yield lab
    finally:
        _labs.remove(lab)
        lab.close()


def _made_connected() -> Iterator[Lab]:
    for lab in _made():
        if labs.DIRECT:
            lab.forward()
        else:
            lab.manage()
            lab.connect()
        yield lab


@pytest.fixture(scope="module")
def _made_only(_ready: None) -> Iterator[Lab]:
    yield from _made()


@pytest.fixture(scope="session")
def _connected(_ready: None) -> Iterator[Lab]:
    yield from _made_connected()


@pytest.fixture
def fresh(_ready: None) -> Iterator[Lab]:
    """A connected lab of a test's own, for measuring what new processes take."""
    yield from _made_connected()


@pytest.fixture(scope="session")
def idle_sockets(_connected: Lab) -> tuple[float, dict[Site, socket.socket]]:
    """UDP sockets that have had an answer, and the monotonic time when they had."""
    sockets = {}
    for site in (V4, V6):
        sockets[site] = _connected.client.new_socket(site, kind=socket.SOCK_DGRAM)
        sockets[site].connect((site.server, ECHO_PORT))
        sockets[site].send(b"before")
        assert sockets[site].recv(100) == b"before"
    return time.monotonic(), sockets


@pytest.fixture(scope="session")
def lab(_connected: Lab, idle_sockets: object) -> Lab:
    """A lab whose client is connected, for tests that leave it as they found it.

    The idle sockets are opened first, so that they idle while other tests run.
    """
    return _connected


@pytest.fixture(scope="session")
def tunnel_only() -> None:
    """For tests that kernel forwarding cannot pass."""
    if labs.DIRECT:
        pytest.skip("asks about the tunnel itself")


@pytest.fixture
def tunnel(tunnel_only: None, lab: Lab) -> Lab:
    """The same lab, when there is a tunnel in it."""
    return lab


@pytest.fixture(scope="module")
def bare(tunnel_only: None, _ready: None) -> Iterator[Lab]:
    """A lab of a module's own without manager and session."""
    yield from _made()


@pytest.fixture(scope="module")
def own_resolver() -> Iterator[None]:
    """The lab's clients have a resolver of their own: the machine's is left alone."""
    if reason := name_server.missing():
        pytest.skip(reason)

    def state() -> tuple[bytes, int, int]:
        found = os.lstat(RESOLV_CONF)
        return RESOLV_CONF.read_bytes(), found.st_ino, found.st_mtime_ns

    before = state()
    yield
    assert state() == before


@pytest.fixture(scope="module")
def with_resolved(
    tunnel_only: None, _ready: None, own_resolver: None
) -> Iterator[ResolvedLab]:
    """A lab like ``bare``, whose client has a systemd-resolved."""
    try:
        yield from _made(ResolvedLab)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=[V4, V6], ids=["ipv4", "ipv6"])
def site(request: pytest.FixtureRequest) -> Site:
    """The addresses of either version of IP."""
    site: Site = request.param
    return site
