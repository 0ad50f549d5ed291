"""The harness of the C kernels, on its corpus and under the sanitizers of any compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOM = HERE.parents[1] / "src/tunstack/_fastpath"
SOURCES = [HERE / "kernels.c", HERE / "replay.c", *sorted(ROOM.glob("*.c"))]
INPUTS = sorted((HERE / "corpus/kernels").iterdir())
STRICT = "-std=c11 -Wall -Wextra -Wconversion -Werror -pedantic"
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -O1 -g"

COMPILER = shutil.which(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


@pytest.fixture(scope="module")
def replay(tmp_path_factory) -> Path:
    question = [COMPILER, "-print-file-name=libasan.so"]
    library = subprocess.check_output(question, text=True, timeout=60).strip()
    if not os.path.isabs(library):
        pytest.skip("the compiler has no address sanitizer")
    program = tmp_path_factory.mktemp("kernels") / "replay"
    command = [COMPILER, *STRICT.split(), *SANITIZE.split(), f"-I{ROOM}", "-o", program]
    subprocess.run([*command, *SOURCES], check=True, timeout=110)
    return program


def test_the_kernels_handle_each_input_of_their_corpus(replay):
    run = subprocess.run(
        [replay, *INPUTS], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout == f"{len(INPUTS)} inputs\n"
