"""Each test has directories of its own, and engines that know what the test lets them."""

import asyncio
import os
import socket
import subprocess
import sys
import threading

import pytest

from tunstack._version import PRODUCT, PROTOCOL
from tunstack.cli import doctor, sessions
from tunstack.engine.control import blank_status
from tunstack.engine.control_server import ControlServer
from tunstack.host import journal, paths

BEFORE = "nameserver 192.0.2.1\n"
"""What a resolv.conf had before a helper changed it."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("TUNSTACK_")]:
        if name != "TUNSTACK_FASTPATH":
            monkeypatch.delenv(name)
    for variable in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        directory = tmp_path / variable.lower()
        directory.mkdir()
        monkeypatch.setenv(variable, str(directory))
    monkeypatch.setattr(journal, "DIRECTORY", tmp_path / "lib" / "journal")
    monkeypatch.setattr(paths, "JOURNAL", journal.DIRECTORY)
    monkeypatch.setattr(doctor, "RESOLV_CONF", tmp_path / "resolv.conf")
    return tmp_path


class Engine:
    """A session's control server, on a thread with a loop of its own."""

    def __init__(self, name, verbs):
        self._lock = sessions.claim(name)
        self._listener = socket.socket(socket.AF_UNIX)
        with paths.socket_address(paths.session_dir(name) / sessions.SOCKET) as address:
            self._listener.bind(address)
        self._listener.listen()
        self._verbs = verbs
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        async def serve():
            server = ControlServer(self._verbs, frozenset({os.getuid()}))
            await server.start(self._listener)
            await self._end.wait()
            server.close()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve())

    def stop(self):
        """End as an engine does: whoever waits for an answer is hung up on."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
            os.close(self._lock)


@pytest.fixture
def start_engine():
    """Start a session; its verbs are the test's. Gives the engine."""
    engines = []

    def start(name="default", **verbs):
        engines.append(Engine(name, verbs))
        return engines[-1]

    yield start
    for engine in engines:
        engine.stop()


@pytest.fixture
def report():
    """Make the status document of a session that is well, but for what is said."""

    def make(name="default", dns=None, **parts):
        well = {
            "mode": "overriding",
            "by": "nftables",
            "server": "198.18.0.2",
            "domains": ["~cluster.local", "~default"],
            "search": ["default.svc.cluster.local"],
            "skipped": [],
            "name_servers": ["192.0.2.1"],
            "resolver": {
                "address": "10.96.0.10",
                "asked": 0,
                "failures": 0,
                "last_failure": None,
                "p50": None,
                "p99": None,
            },
            "questions": {},
            "cached": 0,
        }
        daemon = {"version": PRODUCT, "protocol": PROTOCOL, "pid": 1}
        return {
            **blank_status(name),
            "state": "connected",
            "engine": {**daemon, "uid": 1000, "rss": 1},
            "helper": daemon,
            "manager": {
                "version": PRODUCT,
                "protocol": PROTOCOL,
                "address": "192.0.2.7:7777",
                "namespace": "",
                "rtt": 0.001,
                "icmp": True,
            },
            "device": {
                "name": "ts0",
                "mtu": 65_520,
                "offload": True,
                "addresses": ["198.18.0.1/30"],
            },
            "routes": {
                "proxied": ["10.96.0.0/12"],
                "also_proxy": [],
                "never_proxy": [],
                "api_server": [],
                "reachable": [],
                "overlaps": [],
            },
            "dns": {**well, **(dns or {})},
            "flows": {"tcp": 0, "udp": 0, "icmp": 0},
            "traffic": {"outbound_octets": 0, "inbound_octets": 0},
            "drops": {},
            "fastpath": "kernels",
            "log": "/var/log/tunstack/default.log",
            **parts,
        }

    return make


@pytest.fixture
def left():
    """A resolv.conf that a helper wrote which was killed; gives the file."""
    file = doctor.RESOLV_CONF
    file.write_text(BEFORE)
    script = (
        "import os, signal; from pathlib import Path;"
        "from tunstack.host.journal import Journal;"
        "from tunstack.dns.resolv_conf import parse;"
        "from tunstack.host.resolver_files import resolv_conf;"
        f"kept = Journal('mine', Path({str(journal.DIRECTORY)!r}));"
        f"file = Path({str(file)!r});"
        "text = resolv_conf('198.18.0.2', [], parse(''), 'mine', kept.path);"
        "kept.write(file, text);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "198.18.0.2" in file.read_text()
    return file
