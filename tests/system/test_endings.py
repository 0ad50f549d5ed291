"""However a session ends, this host is as it was before, and can connect again."""

import ctypes
import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.curl import download
from tests.support.lab import V4, Lab, wait_until

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def network(bare: Lab) -> Iterator[Lab]:
    """A lab with a manager, whose client is left as it was found, whatever happens."""
    before = bare.client.state()
    bare.manage()
    try:
        yield bare
        assert_as_before(bare, before)
    finally:
        for pid in bare.client.pids() + bare.gateway.pids():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not bare.gateway.pids(), 5, "the manager ended")


@pytest.fixture
def adopting() -> Iterator[None]:
    """This process becomes the parent of orphans, and so learns how they exit."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


def assert_as_before(lab: Lab, before: str) -> None:
    """Nothing is left: no process, no device, route, rule or file."""
    wait_until(lambda: not lab.client.pids(), 10, "the client's processes ended")
    assert lab.client.state() == before
    assert [path for path in lab.runtime.rglob("*") if not path.is_dir()] == []


def daemons(lab: Lab) -> dict[str, int]:
    """Give the process ids of engine and helper."""
    status = lab.status()
    return {name: status[name]["pid"] for name in ("engine", "helper")}


def connect(lab: Lab) -> None:
    """Connect, leaving the daemons running, and see that it works."""
    result = lab.connect_once()
    assert result.returncode == 0, result.stderr
    download(lab.client, V4, 1_000_000)


def test_quit_leaves_nothing(network: Lab) -> None:
    before = network.client.state()
    connect(network)
    network.quit()
    assert_as_before(network, before)
    assert network.status()["state"] == "disconnected"


def test_quit_ends_a_connect_in_the_foreground_with_0(network: Lab) -> None:
    process = network.connect()
    network.quit()
    assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_connect_in_the_foreground_with_0(
    network: Lab, number: signal.Signals
) -> None:
    process = network.connect()
    process.send_signal(number)
    assert process.wait(10) == 0


def test_a_session_ends_with_the_command_it_was_made_for(network: Lab) -> None:
    result = network.connect_once("--", "curl", "-sf", V4.url("/bytes/5"), "-o/dev/null")
    assert result.returncode == 0, result.stderr
    result = network.connect_once("--", "sh", "-c", "exit 7")
    assert result.returncode == 7


@pytest.mark.parametrize("victim", ["engine", "helper"])
def test_sigterm_of_a_daemon_is_orderly(network: Lab, adopting: None, victim: str) -> None:
    before = network.client.state()
    connect(network)
    running = daemons(network)
    os.kill(running[victim], signal.SIGTERM)
    codes = {name: exit_code(pid) for name, pid in running.items()}
    assert codes[victim] == 0
    assert_as_before(network, before)


def exit_code(pid: int) -> int:
    """Wait for an adopted child, at most 10 s."""

    def ended() -> list[int]:
        child, status = os.waitpid(pid, os.WNOHANG)
        return [os.waitstatus_to_exitcode(status)] if child else []

    return wait_until(ended, 10, f"{pid} ended")[0]


@pytest.mark.parametrize("foreground", [True, False], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    "victims", [["engine"], ["helper"], ["engine", "helper"]], ids="+".join
)
def test_a_killed_daemon_leaves_nothing(
    network: Lab, victims: list[str], foreground: bool
) -> None:
    before = network.client.state()
    process = network.connect() if foreground else None
    if not process:
        connect(network)
    running = daemons(network)
    for victim in victims:
        os.kill(running[victim], signal.SIGKILL)
    if process:
        assert process.wait(10) in (5, 7)

    def gone() -> bool:
        return network.client.state() == before

    wait_until(gone, 10, "device and routes are gone")
    wait_until(lambda: not network.client.pids(), 10, "both daemons ended")
    connect(network)
    network.quit()


def test_a_killed_connect_in_the_foreground_leaves_nothing(network: Lab) -> None:
    before = network.client.state()
    process = network.connect()
    process.kill()
    process.wait()
    assert_as_before(network, before)


def test_sigterm_drains_the_manager(network: Lab) -> None:
    network.manager.send_signal(signal.SIGTERM)
    assert network.manager.wait(10) == 0


def test_a_drained_manager_lets_flows_finish(network: Lab) -> None:
    connect(network)
    with network.server.listen(V4) as listener:
        near = network.client.connect(V4, V4.server, listener.getsockname()[1])
        far, _ = listener.accept()
    network.manager.send_signal(signal.SIGTERM)
    near.sendall(b"before you go")
    assert far.recv(100) == b"before you go"
    near.close()
    assert far.recv(1) == b""
    far.close()
    assert network.manager.wait(15) == 0
    network.quit()
