"""Who is let in: bearer tokens from a file."""

import hmac
import logging
import os
from pathlib import Path

from tunstack.errors import ConfigError

_log = logging.getLogger(__name__)


class Tokens:
    """The tokens of a file, one a line; empty lines and ``#`` comments do not count.

    The file is read again when it changes, so a token is replaced without a restart.
    One that can no longer be read lets nobody in.

    Raises:
        ConfigError: the file cannot be read, or has no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._seen = self._identity()
            self._tokens = self._read()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"the token file {path} cannot be read: {exc}") from exc
        if not self._tokens:
            raise ConfigError(f"the token file {path} has no token")

    def accept(self, token: str) -> bool:
        """Whether ``token`` is one of them, in a time that does not tell how nearly."""
        self._refresh()
        given = token.encode()
        matches = [hmac.compare_digest(given, known) for known in self._tokens]
        return any(matches)

    def _refresh(self) -> None:
        try:
            identity = self._identity()
            if identity != self._seen:
                self._tokens = self._read()
                self._seen = identity
        except (OSError, UnicodeDecodeError) as exc:
            _log.error("nobody is let in: the token file cannot be read: %s", exc)
            self._tokens = []
            self._seen = None

    def _identity(self) -> tuple[int, int, int] | None:
        status = os.stat(self._path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> list[bytes]:
        lines = (line.strip() for line in self._path.read_text("utf-8").splitlines())
        return [line.encode() for line in lines if line and not line.startswith("#")]
