"""A short run of each harness under atheris, the same one each time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"

pytest.importorskip("atheris", reason="atheris is not built for this Python or platform")


@pytest.mark.parametrize(
    ("target", "runs"), [("mux", 3000), ("parse", 6000), ("stack", 1000)]
)
def test_a_short_run_finds_nothing(target, runs, tmp_path):
    found = tmp_path / "found"
    found.mkdir()
    options = [f"-runs={runs}", "-seed=1", "-max_len=512", f"-artifact_prefix={tmp_path}/"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, *options, found, CORPUS / target],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    assert f"Done {runs} runs" in run.stderr
