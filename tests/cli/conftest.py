"""Each test has a runtime and a configuration directory of its own."""

import os

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("TUNSTACK_")]:
        if name != "TUNSTACK_FASTPATH":
            monkeypatch.delenv(name)
    for variable in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        directory = tmp_path / variable.lower()
        directory.mkdir()
        monkeypatch.setenv(variable, str(directory))
    return tmp_path
