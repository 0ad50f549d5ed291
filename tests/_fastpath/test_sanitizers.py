"""The C under the strictest compiler and the sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/tunstack/_fastpath").glob("*.c"))
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -O1 -g"
STRICT = "-std=c11 -Wall -Wextra -Wconversion -Werror -pedantic"

COMPILER = shutil.which(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

BUILD = "import sys; from setuptools import setup; setup(script_args=sys.argv[1:])"
OVERRUN = """
from tunstack._fastpath._kernels import ffi, lib
print("loaded", flush=True)
lib.ts_sum16(ffi.new("uint8_t[64]"), 65, 0)
"""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_compiler_has_no_complaint(source):
    command = [COMPILER, *STRICT.split(), "-O2", "-c", "-o", os.devnull, str(source)]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """Build everything with sanitizers; give the environment to run it in."""
    question = [COMPILER, "-print-file-name=libasan.so"]
    library = subprocess.check_output(question, text=True, timeout=60).strip()
    if not os.path.isabs(library):
        pytest.skip("the compiler has no address sanitizer")
    base = tmp_path_factory.mktemp("sanitized")
    lib = base / "lib"
    arguments = ["build", "--build-base", str(base), "--build-platlib", str(lib)]
    environment = os.environ | {"CFLAGS": SANITIZE, "LDFLAGS": SANITIZE}
    subprocess.run(
        [sys.executable, "-c", BUILD, *arguments],
        cwd=ROOT, env=environment, check=True, capture_output=True, timeout=110,
    )  # fmt: skip
    # With its own allocator Python would hide where one object ends.
    return environment | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(lib),
        "TUNSTACK_FASTPATH": "kernels",
    }


def test_the_sanitizers_are_awake(sanitized):
    overrun = subprocess.run(
        [sys.executable, "-c", OVERRUN],
        env=sanitized, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert overrun.stdout == "loaded\n"
    assert "heap-buffer-overflow" in overrun.stderr
    assert overrun.returncode != 0


@pytest.mark.timeout(240)
def test_the_kernels_pass_their_tests_under_the_sanitizers(sanitized):
    options = ["-q", "-p", "no:cacheprovider"]
    pythonpath = f"pythonpath={sanitized['PYTHONPATH']} {ROOT}"
    tests = [str(path) for path in Path(__file__).parent.glob("test_*.py")]
    tests.remove(__file__)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-o", pythonpath, *tests],
        cwd=ROOT, env=sanitized, capture_output=True, text=True, check=False, timeout=230,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
