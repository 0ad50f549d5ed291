"""Earlier runs on this machine: one document a line, the latest last."""

import json
import os
from contextlib import suppress
from pathlib import Path

from tunstack.bench.result import Document, load
from tunstack.errors import ConfigError

RUNS = 100
"""Runs that are kept."""


def read(file: Path) -> list[Document]:
    """Give the earlier runs; lines that are none, of other versions, are passed over.

    Raises:
        OSError: there is a file, and it cannot be read.
    """
    found = []
    for line in _lines(file):
        with suppress(ConfigError):
            found.append(load(line, str(file)))
    return found


def append(file: Path, document: Document) -> None:
    """Add a run, and forget the oldest beyond :data:`RUNS`.

    Raises:
        OSError: the file cannot be written; it is as before.
    """
    lines = [*_lines(file), json.dumps(document)][-RUNS:]
    file.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole: whoever is interrupted loses nothing.
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    new.replace(file)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
