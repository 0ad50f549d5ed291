"""Where files are: a session's runtime directory and log, and what is remembered."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunstack.errors import UsageError

RESOLV_CONF = Path("/etc/resolv.conf")

JOURNAL = Path("/var/lib/tunstack/journal")
"""Where changes are written down that outlive processes; see ``journal.py``."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,31}")


def session_dir(name: str) -> Path:
    """Give the runtime directory of a session of the caller.

    ``XDG_RUNTIME_DIR`` counts where the caller owns it, which under sudo is not so;
    root's own is ``/run/tunstack``.

    Raises:
        UsageError: that is no name for a session.
    """
    return _runtime_dir() / _checked(name)


def log_file(name: str) -> Path:
    """Give the path of a session's log: systemd's ``file-hierarchy(7)`` for root."""
    if os.geteuid() == 0:
        return Path("/var/log/tunstack") / f"{_checked(name)}.log"
    from platformdirs import user_log_path

    return user_log_path("tunstack", appauthor=False) / f"{_checked(name)}.log"


def state_file(name: str) -> Path:
    """Give the path of what a command of the caller remembers: the user's state."""
    from platformdirs import user_state_path

    return user_state_path("tunstack", appauthor=False) / name


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Give an address for the socket ``path``, as long as the context lasts.

    An address of unix(7) has at most 108 octets, and a path may have more.

    Raises:
        FileNotFoundError: the directory of the socket does not exist.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a session",
            hint="use up to 32 letters, digits, dots, dashes and underscores",
        )
    return name


def _runtime_dir() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and os.path.isdir(given) and os.stat(given).st_uid == os.geteuid():
        return Path(given) / "tunstack"
    if os.geteuid() == 0:
        return Path("/run/tunstack")
    from platformdirs import user_runtime_path

    return user_runtime_path("tunstack", appauthor=False)
