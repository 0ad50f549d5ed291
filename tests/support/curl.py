"""Transfers by curl between a lab's client and server, checked by their hashes."""

import hashlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.lab import Lab, Namespace, Site
from tests.support.servers import content, digest

CURL = ("curl", "--silent", "--show-error", "--fail", "--globoff", "--max-time", "60")


@contextmanager
def file_of(length: int) -> Iterator[Path]:
    """Make a file of :func:`content`, for as long as the context lasts."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "upload")
        with path.open("wb") as file:
            file.writelines(content(length))
        yield path


def upload(lab: Lab, site: Site, length: int) -> float:
    """Upload ``length`` octets; gives the seconds it took, by curl's clock."""
    with file_of(length) as path:
        answer, seconds = lab.client.run(
            *CURL, "--upload-file", str(path), "--write-out", " %{time_total}",
            site.url("/digest"),
        ).split()  # fmt: skip
    assert answer == digest(length)
    return float(seconds)


def download(where: Namespace, site: Site, length: int) -> float:
    """Download ``length`` octets; gives the seconds it took."""
    total = hashlib.sha256()
    began = time.monotonic()
    with where.start(
        *CURL, site.url(f"/bytes/{length}"),
        log="curl", stdout=subprocess.PIPE, text=False,
    ) as curl:  # fmt: skip
        assert curl.stdout is not None
        while piece := curl.stdout.read(1 << 20):
            total.update(piece)
    seconds = time.monotonic() - began
    assert curl.returncode == 0
    assert total.hexdigest() == digest(length)
    return seconds
