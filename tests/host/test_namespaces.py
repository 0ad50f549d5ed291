"""Networks made for a program, in processes of their own: who moves stays moved."""

import os
import subprocess
import sys

import pytest

from tunstack.errors import HostError
from tunstack.host import namespaces

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

HEAD = """
import os, socket
from tunstack.host import namespaces
def devices():
    return sorted(name for _, name in socket.if_nameindex())
"""


def say(program: str, *prefix: str) -> str:
    """Run a program to its end; gives what it printed."""
    result = subprocess.run(
        [*prefix, sys.executable, "-c", HEAD + program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@needs_root
def test_a_new_namespace_has_nothing_but_loopback():
    assert say("namespaces.new(); print(devices())") == "['lo']"


@needs_root
def test_a_cable_joins_two_namespaces_whose_devices_are_reached_by_their_addresses():
    program = """
one, other = namespaces.new(), namespaces.new()
namespaces.cable(one, "here", other, "there")
namespaces.configure(other, {"there": ["192.0.2.2/30"], "lo": ["10.96.0.80/32"]})
listener = socket.create_server(("10.96.0.80", 0))
namespaces.configure(
    one, {"here": ["192.0.2.1/30"]}, [("10.96.0.80/32", "192.0.2.2")]
)
with socket.create_connection(listener.getsockname(), 10) as sock:
    print(devices(), *sock.getsockname()[:1])
"""
    assert say(program) == "['here', 'lo'] 192.0.2.1"


@needs_root
def test_what_runs_in_a_namespace_runs_there_and_this_process_stays():
    program = """
import sys
before = devices()
home = os.open("/proc/self/ns/net", os.O_RDONLY)
made = namespaces.new()
namespaces.enter(home)
command = [sys.executable, "-c", "import socket; print(socket.if_nameindex())"]
with namespaces.running(command, os.environ, made) as (_, line):
    print(line, before == devices())
"""
    assert say(program) == "[(1, 'lo')] True"


def test_a_user_namespace_makes_its_user_root_of_new_networks():
    program = """
from tunstack.errors import HostError
try:
    namespaces.become_root()
except HostError as error:
    print("refused", error)
else:
    namespaces.new()
    print(os.geteuid(), devices())
"""
    # Root can make one, too, and is then without rights over what is outside of it.
    said = say(program)
    if said.startswith("refused"):
        pytest.skip(f"this kernel lets nobody: {said}")
    assert said == "0 ['lo']"


def test_a_server_runs_from_its_first_line_until_it_is_told_to_end():
    command = ["sh", "-c", "echo ready 7; exec sleep 100"]
    with namespaces.running(command, os.environ) as (process, line):
        assert line == "ready 7"
        assert process.poll() is None
    assert process.returncode == -15


@pytest.mark.parametrize(
    ("command", "said"),
    [("echo what is wrong >&2; exit 3", "what is wrong"), ("exit 3", "silent")],
)
def test_a_server_that_never_begins_is_an_error_with_what_it_said(command, said):
    with (
        pytest.raises(HostError, match=said),
        namespaces.running(["sh", "-c", command], os.environ),
    ):
        pytest.fail("it never began")
