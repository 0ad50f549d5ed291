"""Programs that nobody here wrote, and where they are."""

import os
import shutil
from pathlib import Path

import pytest

_GO = Path(__file__).parents[2] / ".venv/go/bin"


def find(name):
    """Give the path of a program; without it the test is skipped, but fails in CI."""
    found = shutil.which(name, path=f"{_GO}:{os.environ['PATH']}")
    if found is None:
        reason = f"needs {name}, which `make test` installs or builds where it may"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
