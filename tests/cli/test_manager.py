"""The manager as a process: its one line, and its end."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tunstack.cli.main", "manager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_it_says_where_it_is_ready_and_ends_in_order(host, number):
    with start("--listen", f"{host}:0", "--drain", "0") as process:
        line = process.stdout.readline()
        match = re.fullmatch(rf"ready {re.escape(host)}:(\d+)\n", line)
        assert match, line
        socket.create_connection((host.strip("[]"), int(match[1])), 5).close()
        process.send_signal(number)
        assert process.communicate(timeout=20)[0] == ""
        assert process.returncode == 0


def test_a_port_that_is_taken_is_an_error_of_this_host():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start("--listen", f"127.0.0.1:{port}") as process:
            assert process.communicate(timeout=20)[0] == ""
            assert process.returncode == 5
