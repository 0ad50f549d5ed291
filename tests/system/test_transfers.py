"""Bytes arrive whole, many at once and many times over."""

import asyncio
import http.client
import random
from pathlib import Path

import pytest

from tests.support.curl import CURL, download, upload
from tests.support.lab import TRANSPORT, Lab, Site
from tests.support.servers import ECHO_PORT, HTTP_PORT, content

MB = 1_000_000
MiB = 1024 * 1024

SEQUENCE = 5000 if TRANSPORT == "lean" else 500
"""Connections one after the other. What could run out is of the stack, not of gRPC."""


def test_200_mb_go_up(lab: Lab, site: Site) -> None:
    upload(lab, site, 200 * MB)


def test_200_mb_come_down(lab: Lab, site: Site) -> None:
    download(lab.client, site, 200 * MB)


def test_13_uploads_of_20_mib_at_once_are_echoed(
    lab: Lab, site: Site, tmp_path: Path
) -> None:
    uploads = [tmp_path / f"upload{number}" for number in range(13)]
    for number, path in enumerate(uploads):
        path.write_bytes(random.Random(number).randbytes(20 * MiB))

    curls = [
        lab.client.start(
            *CURL, "--upload-file", str(path), "--output", f"{path}.echo",
            site.url("/echo"), log="curl",
        )
        for path in uploads
    ]  # fmt: skip

    assert [curl.wait() for curl in curls] == [0] * 13
    for path in uploads:
        assert Path(f"{path}.echo").read_bytes() == path.read_bytes()


def test_1000_connections_at_once_exchange_10_kb_each(lab: Lab, site: Site) -> None:
    async def exchange(number: int, everybody: asyncio.Barrier) -> bool:
        reader, writer = await asyncio.open_connection(site.server, ECHO_PORT)
        await everybody.wait()
        question = random.Random(number).randbytes(10_000)
        writer.write(question)
        answer = await reader.readexactly(len(question))
        writer.close()
        await writer.wait_closed()
        return answer == question

    async def all_at_once() -> list[bool]:
        everybody = asyncio.Barrier(1000)
        return await asyncio.gather(*(exchange(n, everybody) for n in range(1000)))

    with lab.client:
        assert all(asyncio.run(all_at_once()))


@pytest.mark.timeout(180)
def test_connections_in_sequence_lose_nothing(lab: Lab, site: Site) -> None:
    expected = next(content(100))
    with lab.client:
        for _ in range(SEQUENCE):
            page = http.client.HTTPConnection(site.server, HTTP_PORT, timeout=10)
            page.request("GET", "/bytes/100", headers={"Connection": "close"})
            assert page.getresponse().read() == expected
            page.close()
