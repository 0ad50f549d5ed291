"""Whatever is at the manager's address, connect says what is wrong, in time."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.support import impostor
from tests.support.lab import MANAGER, MANAGER_PORT, V4, Lab, wait_until

PATIENCE: dict[str, Any] = {"TUNSTACK_TIMEOUTS_MANAGER_CONNECT": "3"}


@pytest.fixture
def network(bare: Lab) -> Iterator[Lab]:
    """A lab without a manager, left as it was found."""
    before = bare.client.state()
    yield bare
    wait_until(lambda: not bare.client.pids(), 5, "the client's processes ended")
    assert bare.client.state() == before


@contextmanager
def serving(lab: Lab, case: str) -> Iterator[subprocess.Popen[str]]:
    """An impostor in the gateway."""
    with lab.gateway.start(
        sys.executable, impostor.__file__, V4.gateway, str(MANAGER_PORT), case,
        log="impostor", stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def assert_refused(lab: Lab, code: int, *, manager: str = MANAGER) -> str:
    """Connect, which must fail in two lines with ``code``; gives the lines."""
    result = lab.connect_once(manager=manager, timeout=10, **PATIENCE)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert re.fullmatch(r"error: .+\nhint: .+\n", result.stderr), result.stderr
    return result.stderr


def test_nothing_listens(network: Lab) -> None:
    assert_refused(network, 7)


def test_nobody_answers(network: Lab) -> None:
    network.client.ip(f"route add {V4.silent} via {V4.gateway}")
    try:
        said = assert_refused(network, 7, manager=f"{V4.silent}:{MANAGER_PORT}")
    finally:
        network.client.ip(f"route del {V4.silent}")
    assert "timeouts.manager_connect" in said


@pytest.mark.parametrize(
    "answer",
    [None, b"", bytes(range(256)) * 40, b"HTTP/1.1 404 Not Found\r\n\r\n"],
    ids=["silence", "the end", "noise", "http 1.1"],
)
def test_something_else_listens(network: Lab, answer: bytes | None) -> None:
    def serve() -> None:
        with suppress(OSError):  # the test is over
            while True:
                far, _ = listener.accept()
                held.append(far)
                if answer is not None:
                    far.sendall(answer)
                    far.close()

    held: list[socket.socket] = []
    with network.gateway.listen(V4) as listener:
        listener.settimeout(None)
        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        assert_refused(network, 7, manager=f"{V4.gateway}:{port}")
        listener.shutdown(2)
    for far in held:
        far.close()


@pytest.mark.parametrize("case", impostor.NEVER)
def test_a_manager_that_does_not_welcome(network: Lab, case: str) -> None:
    with serving(network, case):
        said = assert_refused(network, 8 if case in ("no entry", "not allowed") else 7)
    if case == "nothing":
        assert "timeouts.manager_connect" in said


@pytest.mark.parametrize("case", impostor.THEN)
def test_a_manager_that_goes_mad_costs_its_session_and_nothing_else(
    network: Lab, case: str
) -> None:
    with serving(network, f"then {case}") as process:
        network.connect_once(**PATIENCE)
        assert process.stdout is not None
        for _ in range(2):  # it is given up, and tried again
            assert process.stdout.readline() == "stream\n"
        assert network.status()["state"] in ("connected", "reconnecting")
    network.quit()
