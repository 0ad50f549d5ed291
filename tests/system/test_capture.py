"""What goes over the wire is HTTP/2 and gRPC to whoever looks at it."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.curl import download, upload
from tests.support.lab import MANAGER_PORT, V4, Lab, wait_until

KB = 1000


@pytest.fixture
def tshark() -> str:
    found = shutil.which("tshark")
    if found is None:
        pytest.skip("needs tshark")
    return found


def fields(tshark: str, file: Path, only: str, *names: str) -> list[list[str]]:
    """Give fields of the packets that a display filter lets through."""
    words = [word for name in names for word in ("-e", name)]
    said = subprocess.run(
        [
            tshark, "-r", file, "-d", f"tcp.port=={MANAGER_PORT},http2", "-Y", only,
            "-T", "fields", *words,
        ],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [line.split("\t") for line in said.splitlines()]


def test_a_session_decodes_as_http2_and_grpc(bare: Lab, tshark: str) -> None:
    file = bare.directory / "capture.pcapng"
    bare.manage()
    with bare.gateway.start(
        tshark, "-i", "client", "-f", f"tcp port {MANAGER_PORT}", "-B", "64",
        "-w", str(file), log="tshark",
    ) as capture:  # fmt: skip
        log = bare.logs / "tshark"
        wait_until(lambda: "Capturing on" in log.read_text(), 10, "tshark captures")
        wait_until(lambda: file.exists(), 10, "there is a capture")
        bare.connect()
        upload(bare, V4, 300 * KB)
        download(bare.client, V4, 300 * KB)
        bare.quit()
        # Dumpcap is its child, and writes what it still has.
        os.kill(capture.pid, signal.SIGINT)
        capture.wait(10)
    decoded = fields(tshark, file, "http2", "http2.type", "http2.flags", "_ws.col.Protocol")
    kinds = {kind for row in decoded for kind in row[0].split(",")}
    assert {"0", "1", "4", "8"} <= kinds  # DATA, HEADERS, SETTINGS, WINDOW_UPDATE
    messages = fields(tshark, file, "grpc", "grpc.message_length")
    assert len(messages) > 10
    wrong = "_ws.malformed || _ws.unreassembled || http2.length > 16777215"
    assert fields(tshark, file, wrong, "frame.number", "_ws.col.Info") == []
    lost = fields(tshark, file, "tcp.analysis.lost_segment", "frame.number")
    assert lost == []
