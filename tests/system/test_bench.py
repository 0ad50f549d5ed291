"""`tunstack bench` on the whole path, in networks that it makes itself; none are left."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.lab import tunstack, wait_until

ROOT = Path(__file__).parents[2]

NOBODY = 65_534

SHORT = """
import json, sys
from tunstack.bench.rows import choose
from tunstack.bench.run import Run

run = Run(choose(["start", "path"]))
run.measure(rounds=1, seconds=0.05)
json.dump(run.document(), sys.stdout)
"""
"""A run of what needs networks, with the shortest of measurements."""

PATH = {
    "up-1", "up-8", "down-1", "down-8", "round-trip", "round-trip-p99", "rate-64",
    "connections", "cpu-engine", "cpu-manager",
}  # fmt: skip


def left(mark: str) -> list[str]:
    """Processes that have something in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended, or is not ours
            continue
    return found


def measure(tmp_path: Path, command: Sequence[str] = ()) -> dict:
    """Run ``SHORT`` behind a command that starts others; nothing may be left of it."""
    result = subprocess.run(
        [*command, sys.executable, "-P", "-c", SHORT],
        env=os.environ | {"MARK": str(tmp_path), "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert left(str(tmp_path)) == []
    document: dict = json.loads(result.stdout)
    return document


def assert_measured(document: dict, names: set[str]) -> None:
    rows = {row["name"]: row for row in document["rows"]}
    assert rows.keys() == names
    for row in rows.values():
        assert row["value"] > 0
        assert row["ratio"] > 0
        assert row["ceiling"]["value"] > 0


def test_root_measures_the_whole_path_and_connect(tmp_path):
    logs = set(Path("/var/log/tunstack").glob("bench-*"))
    document = measure(tmp_path)
    assert document["left_out"] == []
    assert_measured(document, PATH | {"connect"})
    assert set(Path("/var/log/tunstack").glob("bench-*")) == logs


@pytest.fixture
def as_nobody(tmp_path):
    """Gives a function that writes a command which runs another as nobody."""

    def write(tun: str) -> list[str]:
        script = tmp_path / "as-nobody"
        script.write_text(
            "set -e\nmount --make-rprivate /\n" + readable(tmp_path) + tun + "\n"
            f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
            ' env -u XDG_RUNTIME_DIR HOME=/nonexistent "$@"\n'
        )
        return ["unshare", "--mount", "sh", str(script)]

    return write


def readable(tmp_path: Path) -> str:
    """Commands that let everybody reach the interpreter and this package.

    Whatever closed directory they are below is covered by one with nothing else in it,
    in a mount namespace of the test's own.
    """
    text = ""
    for number, place in enumerate({sys.base_prefix, sys.prefix, str(ROOT)}):
        closed = [parent for parent in Path(place).parents if not parent.stat().st_mode & 1]
        if closed:
            kept, top = tmp_path / f"kept{number}", shlex.quote(str(closed[-1]))
            kept.mkdir()
            quoted = shlex.quote(place)
            text += (
                f"mount --bind {quoted} {kept}\nmount -t tmpfs -o mode=755 tmpfs {top}\n"
            )
            text += f"mkdir -p {quoted}\nmount --bind {kept} {quoted}\n"
    return text


def test_whoever_is_not_root_measures_the_path_in_a_user_namespace(tmp_path, as_nobody):
    made = tmp_path / "tun"
    made.mkdir()
    prefix = as_nobody(
        # As systemd makes it: open to everybody.
        f"mount -t tmpfs -o mode=755 tmpfs {made}\nmknod {made}/tun c 10 200\n"
        f"chmod 666 {made}/tun\nmount --bind {made}/tun /dev/net/tun"
    )
    refused = subprocess.run(
        [*prefix, "unshare", "--user", "--net", "true"], capture_output=True, text=True
    )
    if refused.returncode:
        pytest.skip(f"no user namespaces here: {refused.stderr.strip()}")
    document = measure(tmp_path, prefix)
    assert document["machine"]["user"] == "not root"
    assert_measured(document, PATH)
    (connect,) = document["left_out"]
    assert connect["name"] == "connect"
    assert connect["reason"].startswith("needs root: ")


def test_without_a_device_the_path_is_left_out_and_says_why(tmp_path, as_nobody):
    prefix = as_nobody("mount --bind /dev/null /dev/net/tun\n")
    document = measure(tmp_path, prefix)
    assert document["rows"] == []
    reasons = {out["name"]: out["reason"] for out in document["left_out"]}
    assert reasons.keys() == PATH | {"connect"}
    assert reasons["up-1"].startswith("needs root or user namespaces")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_broken_off_leaves_nothing(tmp_path, number):
    run = subprocess.Popen(
        tunstack("bench", "path"),
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(
        lambda: any("tunstack.bench.engine" in line for line in left(str(tmp_path))),
        30,
        "the engine runs",
    )
    run.send_signal(number)
    code = run.wait(30)
    if number == signal.SIGINT:
        assert code == 130
    # Whoever is killed cannot wait for the others.
    wait_until(lambda: not left(str(tmp_path)), 10, "nothing runs any more")
    assert list(tmp_path.iterdir()) == []
