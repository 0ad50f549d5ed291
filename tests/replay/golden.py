"""What `tunstack replay` says of every shared capture: ``golden.txt``.

``python -m tests.replay.golden`` writes it anew and shows what has changed.
"""

import difflib
import io
import os
from contextlib import chdir, redirect_stdout
from pathlib import Path

from tunstack.cli import main

HERE = Path(__file__).parent

CAPTURES = Path(os.environ.get("CAPTURES", HERE.parents[2] / "shared/pcaps")).absolute()
"""The capture files; its README says what each is."""

FILES = sorted(path.name for path in CAPTURES.glob("*.pcap*"))

GOLDEN = HERE / "golden.txt"

REASON = f"needs the captures, and CAPTURES={CAPTURES} has none"


def run(*options: str) -> str:
    """Give what the command says of all of them on standard output."""
    with chdir(CAPTURES), redirect_stdout(io.StringIO()) as out:
        code = main.run(["replay", *options, *FILES])
    assert code == 0, f"exit code {code}"
    return out.getvalue()


def result() -> str:
    """Give what belongs into ``golden.txt``."""
    ignoring = run("--ignore-checksums").splitlines()[-1]
    return f"{run()}with --ignore-checksums\n{ignoring}\n"


def difference(old: str, new: str) -> str:
    """Say what has changed, in lines that name the file of each stream."""
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), "golden.txt", "now", lineterm="", n=2
    )
    return "\n".join(lines)


def renew() -> None:
    old = GOLDEN.read_text() if GOLDEN.exists() else ""
    new = result()
    GOLDEN.write_text(new)
    print(difference(old, new) or "nothing has changed")


if __name__ == "__main__":
    renew()
