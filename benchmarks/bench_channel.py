"""One stream on loopback, each end a process: what does a transport cost?

The question: how far is the lean transport from the socket under it, and from
``grpc.aio``? ``python benchmarks/bench_channel.py`` asks in turns and prints ratios.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from operator import truediv
from pathlib import Path

import grpc
import pytest
import uvloop

from tunstack.rpc import lean, stock
from tunstack.rpc.channel import METHOD, Endpoint, Keys
from tunstack.rpc.lean import tls

SMALL = b"x" * 64
END = b"end"
KINDS = ("tcp", "grpc.aio", "lean", "stock")
"""A bare socket on uvloop, a bare stream of ``grpc.aio``, and our transports."""
SIZES = {4096: 16 << 20, 256 << 10: 256 << 20}
"""Octets in a message, and in all of them."""


class Ends:
    """What both ends of a channel do: echo what is small, swallow what is large."""

    def __init__(self, channel, *, server: bool) -> None:
        self.channel = channel
        self.server = server
        self.outgoing: list[bytes] = []
        self.left = 0
        self.message = b""
        self.answered: asyncio.Future[bytes] | None = None

    def message_received(self, message) -> None:
        if len(message) > 1000:
            return
        if self.server:
            self.outgoing.append(bytes(message))
            self.channel.wake()
        elif self.answered is not None:
            self.answered.set_result(bytes(message))

    def next_message(self):
        if self.left:
            self.left -= 1
            return self.message
        return self.outgoing.pop() if self.outgoing else None

    def turn_ended(self) -> None:
        pass

    def channel_lost(self, _loss) -> None:
        pass

    async def ask(self, message: bytes = SMALL) -> bytes:
        self.answered = asyncio.get_running_loop().create_future()
        self.outgoing.append(message)
        self.channel.wake()
        return await self.answered

    async def push(self, size: int, octets: int) -> None:
        self.message, self.left = bytes(size), octets // size
        assert await self.ask(END) == END


class Tcp(asyncio.BufferedProtocol):
    """The same without any framing."""

    def __init__(self, *, server: bool) -> None:
        self.server = server
        self.buffer = memoryview(bytearray(1 << 20))
        self.answered: asyncio.Future[bytes] | None = None
        self.resumed: asyncio.Future[None] | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 20)

    def pause_writing(self) -> None:
        self.resumed = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        assert self.resumed is not None
        self.resumed.set_result(None)
        self.resumed = None

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        if self.server:
            if self.buffer[count - 3 : count] == END:
                self.transport.write(END)
            elif self.buffer[:count] == SMALL:
                self.transport.write(SMALL)
        elif self.answered is not None and not self.answered.done():
            self.answered.set_result(bytes(self.buffer[:count]))

    async def ask(self, message: bytes = SMALL) -> bytes:
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self.answered

    async def push(self, size: int, octets: int) -> None:
        message = bytes(size)
        for _ in range(octets // size):
            self.transport.write(message)
            if self.resumed is not None:
                await self.resumed
        assert (await self.ask(END)).endswith(END)


class Aio:
    """A bare stream of ``grpc.aio``."""

    def __init__(self, call) -> None:
        self.call = call

    async def ask(self, message: bytes = SMALL) -> bytes:
        await self.call.write(message)
        return await self.call.read()

    async def push(self, size: int, octets: int) -> None:
        message = bytes(size)
        for _ in range(octets // size):
            await self.call.write(message)
        assert await self.ask(END) == END


async def serve(kind: str, keys: Keys | None) -> int:
    """Serve; gives the port."""
    if kind in ("lean", "stock"):
        server = await {"lean": lean, "stock": stock}[kind].serve(
            "127.0.0.1", 0, lambda c: Ends(c, server=True), keys=keys, keepalive=10
        )
        return server.port
    if kind == "tcp":
        context = None if keys is None else tls.server_context(keys)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: Tcp(server=True), "127.0.0.1", 0, ssl=context
        )
        return listener.sockets[0].getsockname()[1]

    async def echo(messages, _context):
        async for message in messages:
            if len(message) < 1000:
                yield message

    _, service, method = METHOD.split("/")
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    if keys is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = [(keys.key.read_bytes(), keys.certificate.read_bytes())]
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    await server.start()
    serve.kept = server  # type: ignore[attr-defined]
    return port


async def connect(kind: str, port: int, ca: bytes | None):
    """Connect; gives something with ``ask`` and ``push``."""
    loop = asyncio.get_running_loop()
    if kind == "tcp":
        options = {} if ca is None else {"ssl": tls.client_context(ca)}
        if ca is not None:
            options["server_hostname"] = "localhost"
        _, protocol = await loop.create_connection(
            lambda: Tcp(server=False), "127.0.0.1", port, **options
        )
        return protocol
    if kind == "grpc.aio":
        target = f"127.0.0.1:{port}"
        options = [("grpc.ssl_target_name_override", "localhost")]
        if ca is None:
            channel = grpc.aio.insecure_channel(target)
        else:
            credentials = grpc.ssl_channel_credentials(ca)
            channel = grpc.aio.secure_channel(target, credentials, options)
        call = channel.stream_stream(METHOD)()
        call.kept = channel
        return Aio(call)
    endpoint = Endpoint(
        host="127.0.0.1", port=port, tls=ca is not None, ca=ca, server_name="localhost"
    )
    ends = []

    def make(channel):
        ends.append(Ends(channel, server=False))
        return ends[0]

    await {"lean": lean, "stock": stock}[kind].connect(
        endpoint, make, keepalive=10, timeout=10
    )
    return ends[0]


def make_keys(folder: Path) -> Keys:
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        f" -keyout {folder}/key -out {folder}/cert -days 2 -subj /CN=localhost"
        " -addext subjectAltName=DNS:localhost",
        shell=True,
        check=True,
        capture_output=True,
    )
    return Keys(certificate=folder / "cert", key=folder / "key")


@contextmanager
def connected(kind: str, keys: Keys | None):
    """A server of its own process, and a runner with a connection to it."""
    words = [] if keys is None else [str(keys.certificate), str(keys.key)]
    command = [sys.executable, __file__, "serve", kind, *words]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            ca = None if keys is None else keys.certificate.read_bytes()
            yield runner, runner.run(connect(kind, port, ca))
        finally:
            server.terminate()


async def round_trips(ends, count: int) -> list[float]:
    """Measure so many, in seconds."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await ends.ask()
        times.append(time.perf_counter() - began)
    return times


@pytest.fixture(scope="module", params=["plaintext", "tls"])
def keys(request, tmp_path_factory) -> Keys | None:
    return None if request.param == "plaintext" else make_keys(tmp_path_factory.mktemp("k"))


@pytest.mark.parametrize("kind", KINDS)
def bench_round_trip(benchmark, kind, keys):
    with connected(kind, keys) as (runner, ends):
        runner.run(round_trips(ends, 500))

        def many() -> float:
            return statistics.median(runner.run(round_trips(ends, 1000)))

        times = [benchmark.pedantic(many, rounds=3)]
        assert runner.run(ends.ask()) == SMALL
    benchmark.extra_info["p50, us"] = round(times[0] * 1e6, 1)


@pytest.mark.parametrize("size", SIZES, ids="{} octets".format)
@pytest.mark.parametrize("kind", KINDS)
def bench_upload(benchmark, kind, keys, size):
    octets = SIZES[size]
    with connected(kind, keys) as (runner, ends):
        benchmark.pedantic(
            lambda: runner.run(ends.push(size, octets)), rounds=3, warmup_rounds=1
        )
    seconds = statistics.median(benchmark.stats.stats.data)
    benchmark.extra_info["Gbit/s"] = round(octets * 8 / seconds / 1e9, 2)


def measure(kind: str, keys: Keys | None) -> dict[str, float]:
    """Ask one kind everything once."""
    with connected(kind, keys) as (runner, ends):
        runner.run(round_trips(ends, 500))
        times = runner.run(round_trips(ends, 3000))
        found = {"round trip, us": statistics.median(times) * 1e6}
        for size, octets in SIZES.items():
            runner.run(ends.push(size, octets // 8))
            began = time.perf_counter()
            runner.run(ends.push(size, octets))
            rate = octets * 8 / (time.perf_counter() - began) / 1e9
            found[f"{size} octets, Gbit/s"] = rate
    return found


def compare(words: list[str], turns: int, kinds: tuple[str, ...]) -> None:
    """Ask every kind in turns, each time in new processes, and print medians."""
    rows: dict[str, dict[str, list[float]]] = {}
    for _ in range(turns):
        for kind in kinds:
            command = [sys.executable, __file__, "measure", kind, *words]
            said = subprocess.run(command, capture_output=True, check=True).stdout
            for what, value in json.loads(said).items():
                rows.setdefault(what, {}).setdefault(kind, []).append(value)
    print("tls" if words else "plaintext")
    for what, values in rows.items():
        base = "tcp" if what.endswith("us") or "grpc.aio" not in kinds else "grpc.aio"
        for kind, numbers in values.items():
            ratio = statistics.median(map(truediv, numbers, values[base]))
            print(
                f"  {what:22} {kind:9} {statistics.median(numbers):8.2f}"
                f" ({min(numbers):.2f} to {max(numbers):.2f})  x {ratio:.2f}"
            )


async def run_server(kind: str, keys: Keys | None) -> None:
    print(await serve(kind, keys), flush=True)
    await asyncio.Event().wait()


def main(command: str = "compare", *words: str) -> None:
    if command == "compare":
        turns, *kinds = words or ("5",)
        with tempfile.TemporaryDirectory() as folder:
            keys = make_keys(Path(folder))
            for files in ([], [str(keys.certificate), str(keys.key)]):
                compare(files, int(turns), tuple(kinds) or KINDS)
        return
    kind, *files = words
    found = Keys(certificate=Path(files[0]), key=Path(files[1])) if files else None
    if command == "serve":
        uvloop.run(run_server(kind, found))
    else:
        print(json.dumps(measure(kind, found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
