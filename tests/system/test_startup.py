"""What the processes of a session load: whatever is of no use there delays the session."""

import os

import pytest

from tests.support.lab import Lab

WATCH = """
import atexit, os, sys

@atexit.register
def tell():
    with open(f"{os.path.dirname(__file__)}/loaded/{os.getpid()}", "w") as file:
        print(*sys.orig_argv, *map("module:{}".format, sys.modules), sep="\\n", file=file)
"""
"""A module that Python loads by itself: a process says at its end what it has loaded."""

NOBODYS = {"aiohttp", "dbus_fast", "dns", "grpc", "pyroute2", "scapy", "yaml"}

NEEDLESS = {
    "connect": NOBODYS | {"asyncio", "google.protobuf", "logging", "ssl", "uvloop"},
    "tunstack.host.helper": NOBODYS
    | {"asyncio", "click", "google.protobuf", "platformdirs", "ssl", "uvloop"},
    "tunstack.engine": NOBODYS | {"click", "platformdirs", "publicsuffixlist"},
}
"""By a word of the command line of a process, modules that it has no use for."""


@pytest.fixture(scope="module")
def loaded(bare: Lab) -> dict[str, set[str]]:
    """What the processes of a session without names have loaded at its end."""
    watch = bare.directory / "watch"
    (watch / "loaded").mkdir(parents=True)
    (watch / "loaded").chmod(0o777)  # the engine is not root
    (watch / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(watch), os.environ.get("PYTHONPATH", "")])
    bare.manage()
    done = bare.connect_once(PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    bare.quit()
    texts = [file.read_text().splitlines() for file in (watch / "loaded").iterdir()]
    return {
        part: {line.removeprefix("module:") for line in lines if line.startswith("module:")}
        for part in NEEDLESS
        for lines in texts
        if part in lines
    }


@pytest.mark.parametrize("part", NEEDLESS)
def test_a_session_loads_nothing_that_it_has_no_use_for(
    loaded: dict[str, set[str]], part: str
) -> None:
    assert "tunstack.config" in loaded[part]
    assert not loaded[part] & NEEDLESS[part]
