"""Which arithmetic a process uses."""

import os
import subprocess
import sys

import pytest

from tunstack._fastpath import record

UNBUILT = "import sys; sys.modules['tunstack._fastpath._kernels'] = None; "
SHOW = "from tunstack import _fastpath; print(_fastpath.NAME, _fastpath.sum16.__module__)"


def run(code: str, choice: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "TUNSTACK_FASTPATH": choice,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("choice", ["", "kernels"])
def test_kernels_that_are_built_are_used(kernels, choice):
    assert run(SHOW, choice).stdout.split() == ["kernels", kernels.__name__]


@pytest.mark.parametrize("code", [SHOW, UNBUILT + SHOW], ids=["built", "unbuilt"])
def test_the_twins_are_used_when_asked_for(code):
    assert run(code, "reference").stdout.split()[0] == "reference"


def test_the_twins_are_used_when_nothing_is_built():
    result = run(UNBUILT + SHOW, "")
    assert result.stdout.split() == ["reference", "tunstack._fastpath.reference"]


def test_kernels_that_are_asked_for_must_be_there():
    result = run(UNBUILT + SHOW, "kernels")
    assert result.returncode != 0
    assert "ImportError" in result.stderr or "ModuleNotFoundError" in result.stderr


def test_c_and_python_mean_the_same_by_each_verdict(kernels):
    lib = kernels.lib
    for verdict in record.Verdict:
        assert getattr(lib, f"TS_{verdict.name}") == verdict


def test_a_record_of_c_has_the_size_of_a_record_in_python(kernels):
    assert kernels.ffi.sizeof("ts_record") == record.RECORD.size
