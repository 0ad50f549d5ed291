"""Start the two daemons of a session: the helper, who stays root, and the engine."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunstack.cli import sessions
from tunstack.engine.control import Client, EngineGone
from tunstack.errors import HostError, NotConnected, TunnelError
from tunstack.host import paths

_NOBODY = 65_534


class Daemons:
    """Helper and engine of one session, just started.

    As a context manager it sees the session to its end: it hangs up on the engine,
    which ends it, and waits for both; after :meth:`leave` it does neither.

    Args:
        name: the session's.
        transport: of the session; the engine loads it while it may read everything.
        kubernetes: the same: the way to the manager is through Kubernetes.
        names: the same: names are resolved. The helper loads what that needs as well.

    Raises:
        HostError: there is such a session already; or, at the end, the helper was killed.
        TunnelError: at the end, the engine was killed.
    """

    def __init__(self, name: str, transport: str, *, kubernetes: bool, names: bool) -> None:
        self._name = name
        lock = sessions.claim(name)
        directory = paths.session_dir(name)
        self.log = paths.log_file(name)
        uid, gid = _unprivileged()
        ours, owner = socket.socketpair()
        helper_end, engine_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control = socket.socket(socket.AF_UNIX)
        with owner, helper_end, engine_end, control, _open_log(self.log) as log:
            with paths.socket_address(directory / sessions.SOCKET) as address:
                control.bind(address)
            control.listen()
            # First, because it takes longer to load.
            self._engine = _spawn(
                "tunstack.engine",
                {
                    "owner-fd": owner.fileno(),
                    "control-fd": control.fileno(),
                    "helper-fd": engine_end.fileno(),
                    "uid": uid,
                    "gid": gid,
                    "name": name,
                    "log": self.log,
                    "transport": transport,
                    "kubernetes": int(kubernetes),
                    "names": int(names),
                },
                [owner.fileno(), control.fileno(), engine_end.fileno(), lock],
                log,
            )
            self._helper = _spawn(
                "tunstack.host.helper",
                {
                    "fd": helper_end.fileno(),
                    "uid": uid,
                    "runtime-dir": directory,
                    "name": name,
                    "names": int(names),
                },
                [helper_end.fileno(), lock],
                log,
            )
        os.close(lock)
        self.engine = Client(ours)
        self._left = False

    def leave(self) -> None:
        """Let the daemons live on by themselves: they know of their own end."""
        self._left = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.engine.close()
        if self._left:
            return
        for process in (self._engine, self._helper):
            try:
                process.wait(sessions.PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        sessions.wait_gone(self._name)
        if error is None or isinstance(error, EngineGone | NotConnected):
            hint = f"see {self.log}"
            if self._engine.returncode:
                raise TunnelError(_ended("engine", self._engine), hint=hint) from error
            if self._helper.returncode:
                raise HostError(_ended("helper", self._helper), hint=hint) from error


def _ended(what: str, process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    how = f"was killed by signal {-code}" if code < 0 else f"has failed with code {code}"
    return f"the {what} {how}"


def _spawn(
    module: str, options: dict[str, Any], descriptors: list[int], log: Any
) -> subprocess.Popen[bytes]:
    """Start a module of ours, apart from the terminal and from the caller's files."""
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            module,
            *(f"--{option}={value}" for option, value in options.items()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=descriptors,
        # Ctrl-C is for the command, which then tells the engine.
        start_new_session=True,
    )


def _open_log(path: Path) -> Any:
    """Begin a new log, and keep the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    return open(path, "wb")


def _unprivileged() -> tuple[int, int]:
    """Say who the engine shall be: whoever called sudo, else nobody."""
    uid = int(os.environ.get("SUDO_UID", _NOBODY)) or _NOBODY
    gid = int(os.environ.get("SUDO_GID", _NOBODY)) or _NOBODY
    return uid, gid
