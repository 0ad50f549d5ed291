"""Whoever speaks nonsense to the manager loses a session of their own, and only that."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import stranger
from tests.support.lab import (
    MANAGER,
    MANAGER_PORT,
    V4,
    Lab,
    descriptors,
    wait_until,
)
from tests.support.servers import ECHO_PORT

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_SETTINGS = bytes.fromhex("000000040000000000")


@pytest.fixture(scope="module")
def network(bare: Lab) -> Lab:
    """A lab of its own: whatever breaks here breaks nothing else."""
    bare.manage()
    bare.connect()
    return bare


@pytest.fixture
def bystander(network: Lab) -> Iterator[Callable[[], None]]:
    """Asks whether another session goes on, on a connection made before.

    In the end it asks once more, and whether anything has leaked.
    """
    before = descriptors(network.manager.pid)

    def ask() -> None:
        near.sendall(b"still here?")
        assert near.recv(100) == b"still here?"

    with network.client.connect(V4, V4.server, ECHO_PORT) as near:
        ask()
        yield ask
        ask()
    wait_until(
        lambda: descriptors(network.manager.pid) <= before, 10, "all descriptors closed"
    )
    assert network.manager.poll() is None


@pytest.mark.parametrize("case", [*stranger.CASES, *stranger.METHODS])
def test_a_broken_session_ends_with_a_reason(
    network: Lab, bystander: Callable[[], None], case: str
) -> None:
    outcome = json.loads(
        network.client.run(sys.executable, stranger.__file__, MANAGER, case, timeout=30)
    )
    assert outcome.get("code") not in (None, "OK", "DEADLINE_EXCEEDED"), outcome
    assert outcome["reason"]
    if "version" in case:
        assert outcome["code"] == "CODE_VERSION"
        assert "999" in outcome["reason"]


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        random.Random(5).randbytes(10_000),
        b"GET / HTTP/1.1\r\nHost: manager\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        PREFACE[:10],
        PREFACE,
        PREFACE + NO_SETTINGS,
        PREFACE + NO_SETTINGS + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        PREFACE + NO_SETTINGS + b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    ],
    ids=[
        "nothing", "noise", "http 1.1", "tls", "half a preface", "a preface",
        "a handshake", "a frame too long", "false headers",
    ],
)  # fmt: skip
def test_noise_on_the_port_disturbs_nobody(
    network: Lab, bystander: Callable[[], None], noise: bytes
) -> None:
    with ExitStack() as strangers:
        for _ in range(20):
            sock = network.client.connect(V4, V4.gateway, MANAGER_PORT)
            strangers.enter_context(sock)
            sock.sendall(noise)
        bystander()


def test_none_of_it_was_a_surprise_to_the_manager(network: Lab) -> None:
    assert "Traceback" not in Path(network.logs, "manager").read_text()
