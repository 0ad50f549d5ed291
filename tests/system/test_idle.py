"""What idles for long, or in great number, still works. Runs last: see conftest."""

import asyncio
import socket
import time

import pytest

from tests.support.lab import V4, V6, Lab, Site
from tests.support.servers import ECHO_PORT

MANY = 10_000


def test_a_socket_idle_for_60_s_gets_its_answer(
    idle_sockets: tuple[float, dict[Site, socket.socket]], site: Site
) -> None:
    since, sockets = idle_sockets
    time.sleep(max(0.0, since + 60 - time.monotonic()))
    sockets[site].send(b"after")
    assert sockets[site].recv(100) == b"after"


@pytest.mark.timeout(180)
def test_10000_idle_connections_all_answer_and_cost_little(
    fresh: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    async def open_one(site: Site, few: asyncio.Semaphore) -> Streams:
        async with few:
            streams = await asyncio.open_connection(site.server, ECHO_PORT)
            await ask(streams, b"first")
            return streams

    async def ask(streams: Streams, question: bytes) -> None:
        reader, writer = streams
        writer.write(question)
        assert await reader.readexactly(len(question)) == question

    async def run() -> None:
        before = fresh.memory()
        few = asyncio.Semaphore(200)
        began = time.monotonic()
        everybody = await asyncio.gather(
            *(open_one((V4, V6)[n % 2], few) for n in range(MANY))
        )
        opened = time.monotonic() - began
        grown = [after - then for after, then in zip(fresh.memory(), before, strict=True)]
        with capsys.disabled():
            each = " and ".join(f"{octets / MANY / 1024:.1f} KiB" for octets in grown)
            print(f"\n{MANY} connections in {opened:.1f} s, {each} each")
        assert max(grown, default=0) <= MANY * 8 * 1024
        for start in range(0, MANY, 500):
            part = everybody[start : start + 500]
            await asyncio.gather(*(ask(streams, b"second") for streams in part))
        for _, writer in everybody:
            writer.close()

    with fresh.client:
        asyncio.run(run())


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
