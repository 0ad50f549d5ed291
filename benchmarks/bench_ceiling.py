"""The ceiling: one bare stream of ``grpc.aio`` on loopback, each end a process.

The question: how much of what the transport could carry reaches an application?
``bench_path.py`` of the same run says what does.
"""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest

OCTETS = 256 * 1024 * 1024
MESSAGE = bytes(256 * 1024)
ECHO = "/bench.Ceiling/Echo"


async def serve() -> None:
    """Echo small messages, swallow large ones; print the port."""

    async def echo(messages, _context):
        async for message in messages:
            if len(message) < 1000:
                yield message

    handler = grpc.stream_stream_rpc_method_handler(echo)
    _, service, method = ECHO.split("/")
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.aio.server(options=options)
    generic = grpc.method_handlers_generic_handler(service, {method: handler})
    server.add_generic_rpc_handlers((generic,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


@pytest.fixture
def ceiling() -> Iterator[str]:
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{server.stdout.readline().strip()}"
        server.terminate()


async def open_stream(target: str):
    """Give the channel and a stream on it."""
    channel = grpc.aio.insecure_channel(target)
    return channel, channel.stream_stream(ECHO)()


def bench_grpc_aio_round_trip(benchmark, ceiling):
    with asyncio.Runner() as runner:
        channel, call = runner.run(open_stream(ceiling))

        async def ask() -> bytes:
            await call.write(b"x" * 64)
            return await call.read()

        answer = benchmark.pedantic(
            lambda: runner.run(ask()), rounds=3000, warmup_rounds=200
        )
        assert answer == b"x" * 64
        runner.run(channel.close())


def bench_grpc_aio_upload(benchmark, ceiling):
    async def push(call) -> None:
        for _ in range(OCTETS // len(MESSAGE)):
            await call.write(MESSAGE)
        await call.write(b"end")
        assert await call.read() == b"end"

    with asyncio.Runner() as runner:
        channel, call = runner.run(open_stream(ceiling))
        benchmark.pedantic(lambda: runner.run(push(call)), rounds=5, warmup_rounds=1)
        runner.run(channel.close())
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["Gbit/s"] = round(OCTETS * 8 / seconds / 1e9, 2)


if __name__ == "__main__":
    asyncio.run(serve())
