"""Who may import whom: ``docs/architecture.md``, kept on the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/tunstack"

ROWS = (
    {"cli"},
    {"bench"},
    {"engine", "manager", "agent", "capture"},
    {"host", "cluster", "rpc", "upstream"},
    {"stack", "mux", "dns"},
    {"wire"},
    {"_fastpath", "config"},
    {"errors"},
    {"_environment", "_version"},
)
"""Rooms, and modules that lie beside them. Imports go down."""

ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

FORBIDDEN = {
    ("manager", "host"),
    ("manager", "stack"),
    ("agent", "host"),
    ("agent", "stack"),
}
"""Down, and yet not allowed: the cluster's side has no device."""

OWNERS = {"scapy": "capture"}
"""Libraries that only one room may load."""

CORE = {"_fastpath", "wire", "stack", "mux", "dns", "rpc/http2"}
"""Rooms, and a part of one, that do without the network."""

WORLD = {
    "asyncio", "grpc", "os", "random", "select", "socket", "subprocess", "threading",
    "time",
}  # fmt: skip
"""What the core does not know: the clock and the random source are arguments."""


def violations(package: Path) -> Iterator[str]:
    """Name each line of a package that breaks a rule."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        room = parts[0]
        if room == "__init__":  # the library: it names what the rooms offer
            continue
        if room not in ROW_OF:
            yield f"{path}: {room} is no room of the house"
            continue
        tree = ast.parse(path.read_text())
        here = ("tunstack", *parts)
        for node in ast.walk(tree):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            for name in imported(node, here):
                if reason := refuse_import(parts, name):
                    yield f"{where}: {reason}"
            if room != "cli" and (act := prints_or_exits(node)):
                yield f"{where}: {act}, which is for cli"


def imported(node: ast.AST, here: tuple[str, ...]) -> Iterator[str]:
    """Give the full names that a statement imports, as modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = here[: -node.level] if node.level else ()
        module = ".".join((*base, *filter(None, [node.module])))
        if module == "tunstack":
            yield from (f"tunstack.{alias.name}" for alias in node.names)
        else:
            yield module


def refuse_import(parts: tuple[str, ...], name: str) -> str | None:
    room, part = parts[0], "/".join(parts[:2])
    top, _, rest = name.partition(".")
    if top != "tunstack":
        if top in WORLD and (room in CORE or part in CORE):
            return f"{room} imports {top}, but the core is sans-IO"
        if OWNERS.get(top, room) != room:
            return f"{room} imports {top}, which is for {OWNERS[top]}"
        return None
    if part in CORE and rest.startswith(f"{room}."):
        inner = "/".join(rest.split(".")[:2])
        return None if inner == part else f"{part} imports {rest}, which is not sans-IO"
    other = rest.partition(".")[0]
    if other == room:
        return None
    if other not in ROW_OF:
        return None if room == "cli" else f"{room} imports {name}, which is the library"
    if ROW_OF[other] <= ROW_OF[room]:
        way = "up to" if ROW_OF[other] < ROW_OF[room] else "sideways from"
        return f"{room} imports {way} {other}"
    if (room, other) in FORBIDDEN:
        return f"{room} imports {other}"
    return None


def prints_or_exits(node: ast.AST) -> str | None:
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in ("print", "exit", "quit", "sys.exit", "SystemExit", "os._exit"):
            return f"calls {called}"
    elif isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc) == "SystemExit":
        return "raises SystemExit"
    return None


def test_the_house_keeps_its_rules():
    assert list(violations(PACKAGE)) == []


BROKEN = {
    "up": ("wire/tcp.py", "from tunstack.stack import tcp", "up to stack"),
    "up, by name": ("errors.py", "from tunstack import config", "up to config"),
    "up, as a module": ("mux/session.py", "import tunstack.engine.link", "up to engine"),
    "up, relative": ("wire/tcp.py", "from ..stack import tcp", "up to stack"),
    "up, relative by name": ("wire/tcp.py", "from .. import stack", "up to stack"),
    "up, within a function": (
        "wire/tcp.py", "def f():\n    import tunstack.cli", "up to cli",
    ),
    "up, for types only": (
        "wire/tcp.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tunstack.mux",
        "up to mux",
    ),
    "sideways": ("stack/tcp.py", "from tunstack.mux.flow import Flow", "sideways from mux"),
    "sideways, helper": (
        "host/helper.py", "from tunstack.rpc import x", "sideways from rpc",
    ),
    "sideways, programs": (
        "engine/x.py", "import tunstack.manager", "sideways from manager",
    ),
    "manager, host": ("manager/x.py", "from tunstack.host import device", "imports host"),
    "agent, stack": ("agent/x.py", "from tunstack.stack.tcp import X", "imports stack"),
    "sideways, captures": (
        "capture/x.py", "from tunstack.engine import bridge", "sideways from engine",
    ),
    "a program, to what measures it": (
        "engine/x.py", "from tunstack.bench import load", "up to bench",
    ),
    "scapy": ("wire/x.py", "def f():\n    from scapy.utils import x", "is for capture"),
    "clock": ("stack/tcp.py", "import time", "the core is sans-IO"),
    "loop": ("mux/session.py", "from asyncio import Queue", "the core is sans-IO"),
    "submodule": ("_fastpath/kernels.py", "import os.path", "the core is sans-IO"),
    "library": ("engine/x.py", "from tunstack import Session", "is the library"),
    "part of a room": ("rpc/http2/x.py", "import asyncio", "the core is sans-IO"),
    "out of that part": (
        "rpc/http2/x.py", "from tunstack.rpc.lean import tls", "is not sans-IO",
    ),
    "print": ("engine/x.py", "print(1)", "calls print"),
    "exit": ("host/helper.py", "import sys\nsys.exit(1)", "calls sys.exit"),
    "raise": ("manager/x.py", "raise SystemExit", "raises SystemExit"),
    "raise with": ("manager/x.py", "raise SystemExit(1)", "calls SystemExit"),
    "stranger": ("utils.py", "", "no room of the house"),
}  # fmt: skip

FINE = {
    "down": ("engine/x.py", "from tunstack.stack.tcp import X\nimport asyncio, os, time"),
    "within a part": ("rpc/http2/x.py", "from tunstack.rpc.http2.frame import X"),
    "the rest of that room": ("rpc/lean/x.py", "import asyncio, ssl, time"),
    "within a room": ("stack/tcp.py", "from tunstack.stack import seq\nfrom . import seq"),
    "cli": ("cli/x.py", "import sys, tunstack\nprint(1)\nsys.exit(1)\nraise SystemExit(1)"),
    "scapy": ("capture/x.py", "def f():\n    from scapy.utils import x"),
    "errors everywhere": ("_fastpath/x.py", "from tunstack.errors import X\nimport struct"),
    "the library": ("__init__.py", "from tunstack.engine.session import Session"),
}


def house(tmp_path: Path, file: str, text: str) -> list[str]:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return list(violations(tmp_path))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(tmp_path, name):
    file, text, want = BROKEN[name]
    (found,) = house(tmp_path, file, text)
    assert want in found


@pytest.mark.parametrize("name", FINE)
def test_what_is_allowed_is_let_be(tmp_path, name):
    assert house(tmp_path, *FINE[name]) == []
