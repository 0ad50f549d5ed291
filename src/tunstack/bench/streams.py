"""One stream on loopback: our transport, and a bare stream of ``grpc.aio``.

Both ends of either do the same: what is long is counted, what is short is an echo, and
``end`` is answered with the count. ``python -m tunstack.bench.streams KIND`` serves and
says ``ready PORT``.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tunstack.bench.probe import expect
from tunstack.rpc import lean
from tunstack.rpc.channel import METHOD, Channel, Endpoint, Loss
from tunstack.rpc.loop import run

MESSAGE = 256 * 1024
"""Octets of a message in bulk."""

_SMALL = b"a" * 64
_END = b"end"
_KEEPALIVE = _TIMEOUT = 20.0


class _Counter:
    """The far end's answers."""

    def __init__(self) -> None:
        self._octets = 0

    def answer(self, message: bytes | memoryview) -> bytes | None:
        """Take a message; gives what is to be said to it."""
        if len(message) > len(_SMALL):
            self._octets += len(message)
            return None
        said = bytes(message)
        return said if said != _END else b"%d" % self._octets


class _Lean:
    """Either end of our transport's channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.outgoing: list[bytes] = []

    def message_received(self, message: bytes | memoryview) -> None:
        raise NotImplementedError

    def turn_ended(self) -> None:
        pass

    def next_message(self) -> bytes | None:
        return self.outgoing.pop() if self.outgoing else None

    def channel_lost(self, loss: Loss) -> None:
        pass


class _LeanServer(_Lean):
    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._counter = _Counter()

    def message_received(self, message: bytes | memoryview) -> None:
        answer = self._counter.answer(message)
        if answer is not None:
            self.outgoing.append(answer)
            self.channel.wake()


class _LeanClient(_Lean):
    """Our transport."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.sent = 0
        self._answer: asyncio.Future[bytes] | None = None
        self._until = 0.0
        self._message = bytes(MESSAGE)

    def message_received(self, message: bytes | memoryview) -> None:
        if self._answer is not None:
            self._answer.set_result(bytes(message))

    def next_message(self) -> bytes | None:
        if not self._until:
            return super().next_message()
        if not self.sent or time.perf_counter() < self._until:
            self.sent += MESSAGE
            return self._message
        self._until = 0.0
        return _END

    async def push(self, seconds: float) -> bytes:
        """Send for so long; gives what the other end says it has had."""
        self._until = time.perf_counter() + seconds
        return await self._reply()

    async def ask(self) -> bytes:
        """Have a small message sent back."""
        self.outgoing.append(_SMALL)
        return await self._reply()

    async def _reply(self) -> bytes:
        self._answer = asyncio.get_running_loop().create_future()
        self.channel.wake()
        return await self._answer


async def _connect(port: int) -> _LeanClient:
    made: list[_LeanClient] = []

    def make(channel: Channel) -> _LeanClient:
        made.append(_LeanClient(channel))
        return made[0]

    endpoint = Endpoint(host="127.0.0.1", port=port, tls=False)
    await lean.connect(endpoint, make, keepalive=_KEEPALIVE, timeout=_TIMEOUT)
    return made[0]


async def lean_bulk(port: int, seconds: float) -> tuple[float, float]:
    """Give the bits that our transport carries, a second and a CPU second of this end."""
    client = await _connect(port)
    began, cpu = time.perf_counter(), time.process_time()
    counted = await client.push(seconds)
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    client.channel.abort()
    return _rate(client.sent, counted, took), _rate(client.sent, counted, spent)


async def lean_echo(port: int, seconds: float) -> list[float]:
    """Give the seconds of each round trip on our transport."""
    client = await _connect(port)
    times = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        expect(await client.ask() == _SMALL, "what came back is not what was asked")
        times.append(time.perf_counter() - began)
    client.channel.abort()
    return times


async def aio_bulk(port: int, seconds: float) -> float:
    """Give the bits a second that a bare stream of ``grpc.aio`` carries."""
    import grpc

    message, sent = bytes(MESSAGE), 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(METHOD)()
        await call.wait_for_connection()
        began = time.perf_counter()
        while not sent or time.perf_counter() < began + seconds:
            await call.write(message)
            sent += MESSAGE
        await call.write(_END)
        counted = await call.read()
        took = time.perf_counter() - began
    return _rate(sent, counted, took)


def _rate(sent: int, counted: bytes, took: float) -> float:
    expect(counted == b"%d" % sent, "not all that was sent has arrived")
    return sent * 8 / took


async def _serve_lean() -> int:
    server = await lean.serve("127.0.0.1", 0, _LeanServer, keys=None, keepalive=_KEEPALIVE)
    return server.port


async def _serve_aio() -> int:
    import grpc

    async def count(messages: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        counter = _Counter()
        async for message in messages:
            answer = counter.answer(message)
            if answer is not None:
                yield answer

    _, service, method = METHOD.split("/")
    handler = grpc.stream_stream_rpc_method_handler(count)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _kept.append(server)
    return port


_kept: list[Any] = []
"""A server of ``grpc.aio`` ends when nobody has it."""

KINDS: dict[str, Callable[[], Awaitable[int]]] = {"lean": _serve_lean, "grpc": _serve_aio}
"""What serves, and gives its port."""


async def _serve(kind: str) -> None:
    sys.stdout.write(f"ready {await KINDS[kind]()}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(_serve(sys.argv[1]))
