"""What the command line says, where it says it, and how it exits."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.command_line import assert_two_lines, run
from tunstack._version import PRODUCT, PROTOCOL
from tunstack.cli import main
from tunstack.errors import ConfigError, TunstackError

COMMANDS = (
    "connect",
    "status",
    "quit",
    "version",
    "manager",
    "demo",
    "config",
    "dns",
    "doctor",
    "replay",
    "bench",
)
HEAVY = {"asyncio", "grpc", "uvloop", "pyroute2", "rich", "google.protobuf", "dns", "scapy"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("bogus",), 2),
        (("--bogus",), 2),
        (("status", "--bogus"), 2),
        (("status", "--json", "--watch"), 2),
        (("status", "--name", "../../etc"), 2),
        (("dns", "query"), 2),
        (("dns", "query", "echo", "bogus"), 2),
        (("dns", "query", "echo", "A", "more"), 2),
        (("dns", "bogus"), 2),
        (("dns", "query", "echo"), 1),
        (("dns", "log"), 1),
        (("doctor", "--bogus"), 2),
        (("connect", "--mtu", "many"), 2),
        (("connect", "--manager", "h:1", "--insecure", "--token-file", "/dev/null"), 2),
        (("manager", "--listen", "nowhere"), 2),
        (("manager", "--listen", "127.0.0.1:70000"), 2),
        (("manager", "--listen", "0.0.0.0:0"), 2),
        (("manager", "--subnet", "10.0.0.1/8"), 2),
        (("manager", "--tls-cert", "/dev/null"), 2),
        (("manager", "--drain", "-1"), 2),
        (("connect",), 3),
        (("connect", "--manager", "h:1", "--mtu", "100"), 3),
        (("connect", "--manager", "h:1", "--also-proxy", "10.0.0.1/8"), 3),
        (("connect", "--manager", "h:1", "--token-file", "/nonexistent"), 3),
        (("connect", "--manager", "h:1", "--token-file", "/dev/null"), 3),
        (("connect", "--manager", "h:1", "--tls-ca", "/nonexistent"), 3),
        (("manager", "--listen", "127.0.0.1:0", "--token-file", "/nonexistent"), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_an_error_is_two_lines_on_standard_error_and_has_its_code(capfd, arguments, code):
    got, out, err = run(capfd, *arguments)
    assert (got, out) == (code, "")
    assert_two_lines(err)


@pytest.mark.parametrize("command", ["connect", "demo"])
def test_what_needs_root_says_so(capfd, monkeypatch, command):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    arguments = ["--manager", "127.0.0.1:1"] if command == "connect" else []
    code, out, err = run(capfd, command, *arguments)
    assert (code, out) == (4, "")
    assert_two_lines(err)
    assert "sudo" in err


def test_a_setting_that_is_not_one_is_named_with_the_nearest(capfd, home):
    file = home / "xdg_config_home" / "tunstack" / "config.toml"
    file.parent.mkdir()
    file.write_text("[tcp]\nacept = 'eager'\n")
    code, _, err = run(capfd, "config", "view")
    assert code == 3
    for part in ("tcp.acept", "tcp.accept", str(file)):
        assert part in err


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_exits_70_and_shows_its_traceback_only_when_asked(capfd, monkeypatch, debug):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("what nobody thought of")

    monkeypatch.setattr(main.tunstack, "main", broken)
    monkeypatch.setenv("TUNSTACK_DEBUG", "1" if debug else "0")
    code, _, err = run(capfd)
    assert code == TunstackError.exit_code == 70
    assert ("Traceback" in err) == debug
    assert_two_lines("\n".join(err.splitlines()[-2:]))


def test_an_error_of_many_lines_is_still_two(capfd, monkeypatch):
    def broken(*args, **kwargs):
        raise ConfigError("first\nsecond", hint="third\nfourth")

    monkeypatch.setattr(main.tunstack, "main", broken)
    code, _, err = run(capfd)
    assert code == 3
    assert err == "error: first second\nhint: third fourth\n"


def test_ctrl_c_exits_130(capfd, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(main.tunstack, "main", interrupted)
    assert run(capfd) == (130, "", "")


def test_help_names_every_command(capfd):
    code, out, err = run(capfd, "--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert command in out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capfd, command):
    code, out, _ = run(capfd, command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: tunstack {command}")


def test_version_works_with_nothing_running(capfd):
    code, out, err = run(capfd, "version", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "client": {"version": PRODUCT, "protocol": PROTOCOL},
        "engine": None,
        "helper": None,
        "manager": None,
    }
    code, out, _ = run(capfd, "version")
    assert code == 0
    assert PRODUCT in out


def test_status_without_a_session_has_every_key_and_exits_1(capfd):
    code, out, err = run(capfd, "status", "--json", "--name", "mine")
    assert (code, err) == (1, "")
    report = json.loads(out)
    assert report.pop("state") == "disconnected"
    assert report.pop("name") == "mine"
    assert report.pop("client") == {"version": PRODUCT, "protocol": PROTOCOL}
    assert set(report.values()) == {None}
    assert set(report) == {
        "engine",
        "helper",
        "manager",
        "kubernetes",
        "device",
        "routes",
        "dns",
        "flows",
        "traffic",
        "drops",
        "fastpath",
        "log",
    }


@pytest.mark.parametrize("flags", [(), ("-u",), ("-r",), ("-s",), ("-u", "-r")])
def test_quit_without_a_session_has_nothing_to_do(capfd, flags):
    assert run(capfd, "quit", *flags)[0] == 0


def test_config_view_says_what_holds_and_why(capfd, monkeypatch):
    monkeypatch.setenv("TUNSTACK_TCP_ACCEPT", "eager")
    code, out, err = run(capfd, "config", "view", "--json")
    assert (code, err) == (0, "")
    tables = json.loads(out)
    assert tables["tcp"]["accept"] == {"value": "eager", "source": "TUNSTACK_TCP_ACCEPT"}
    assert tables["routing"]["mtu"] == {"value": 65_520, "source": "default"}
    code, out, _ = run(capfd, "config", "view")
    assert code == 0
    assert re.search('accept += "eager" .*TUNSTACK_TCP_ACCEPT', out)


def test_whoever_reads_our_output_may_stop_reading():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "tunstack.cli.main", "version", "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == 1


@pytest.mark.parametrize("command", [["version"], ["status"], ["quit"]])
def test_quick_commands_load_nothing_heavy(command):
    script = (
        "import sys; from tunstack.cli.main import run; "
        f"run({command!r}); print('|'.join(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    loaded = set(process.stdout.splitlines()[-1].split("|"))
    assert not loaded & HEAVY


def test_a_deep_runtime_directory_is_no_obstacle(home, monkeypatch, capfd):
    deep = home.joinpath(*["d" * 50] * 4)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert main.run(["quit"]) == 0
    assert capfd.readouterr().out == "not connected\n"
