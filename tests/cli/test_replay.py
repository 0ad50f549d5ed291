"""`tunstack replay`: what it says, where, and how it exits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import assert_two_lines, run

CAPTURES = Path(__file__).parents[1] / "replay/captures"

COOKED, TAGGED = CAPTURES / "cooked.pcapng", CAPTURES / "tagged.pcap"


@pytest.fixture
def cut(tmp_path):
    """A copy of TAGGED that ends inside its last record; gives it and the offset."""
    path = tmp_path / "cut.pcap"
    octets = TAGGED.read_bytes()
    path.write_bytes(octets[:-1])
    # The last frame: Ethernet, two tags, IPv6, TCP.
    return path, len(octets) - (16 + 14 + 8 + 40 + 20)


def test_people_read_of_each_file_its_verdicts_and_streams(capfd):
    code, out, err = run(capfd, "replay", str(COOKED), str(TAGGED))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{COOKED}: 21 frames of sll2, 6061 octets of IP"
    assert lines[1] == "  verdicts     18 deliver, 3 fragment"
    (stream, _) = [line for line in lines if line.startswith("  stream  ")]
    assert "10.0.0.1:40000 -> 10.96.0.1:80: 1280 octets" in stream
    assert stream.endswith("finished, complete, 2 sent again")
    assert lines[-2:] == ["2 files", "  verdicts     33 deliver, 3 fragment"]


def test_programs_read_one_document(capfd):
    code, out, err = run(capfd, "replay", "--json", str(COOKED), str(TAGGED))
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["verdicts"] == {"deliver": 33, "fragment": 3}
    first, second = document["files"]
    assert first["file"] == str(COOKED)
    assert first["error"] is None
    assert first["streams"][0]["complete"]
    assert (second["links"], second["not_ip"]) == (["ethernet"], 1)


def test_a_broken_file_is_reported_as_far_as_it_goes_and_named(capfd, cut):
    path, offset = cut
    code, out, err = run(capfd, "replay", str(path), str(COOKED))
    assert code == 3
    assert_two_lines(err)
    assert f"{path}: the record at offset {offset} is cut off" in err
    assert f"{path}: 15 frames" in out
    assert f"{COOKED}: 21 frames" in out


def test_a_broken_file_is_in_the_document_too(capfd, cut):
    path, offset = cut
    code, out, err = run(capfd, "replay", "--json", str(path), str(COOKED))
    assert code == 3
    assert_two_lines(err)
    first, second = json.loads(out)["files"]
    assert f"offset {offset} " in first["error"]
    assert (first["frames"], second["error"]) == (15, None)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "FILE"),
        (("--bogus", str(COOKED)), 2, "--bogus"),
        (("/nonexistent.pcap",), 3, "/nonexistent.pcap"),
        ((__file__,), 3, f"{__file__}: no pcap or pcapng"),
    ],
    ids=["no file", "no such option", "missing", "no capture"],
)
def test_an_error_is_two_lines_that_name_the_file(capfd, arguments, code, said):
    got, _, err = run(capfd, "replay", *arguments)
    assert got == code
    assert_two_lines(err)
    assert said in err


def test_scapy_is_loaded_for_this_command_only_and_says_nothing(cut):
    script = (
        "import sys; from tunstack.cli.main import run; run(['replay', '--help']);"
        "assert 'scapy' not in sys.modules; run(['version']);"
        "assert 'scapy' not in sys.modules; run(['replay', sys.argv[1]]);"
        "assert 'scapy.utils' in sys.modules; assert 'scapy.layers' not in sys.modules"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, cut[0]],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert_two_lines(process.stderr)
