"""The name server on loopback, for hosts whose own name server is there.

Questions to 127.0.0.53 cannot be sent into a device; the kernel redirects them here.
"""

import asyncio
import socket

from tunstack.engine.framing import IDLE, MOST_CONNECTIONS, MOST_UNREAD, Questions
from tunstack.engine.nameserver import NameServer
from tunstack.errors import HostError

_TRIES = 16
_ADDRESSES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class Loopback:
    """Listens at one port of 127.0.0.1 and ::1, over UDP and TCP. Made by :meth:`start`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._udp: list[asyncio.DatagramTransport] = []
        self._tcp: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()

    @classmethod
    async def start(cls, server: NameServer) -> "Loopback":
        """Listen at a port that is free for both.

        Raises:
            HostError: there is none.
        """
        loop = asyncio.get_running_loop()
        here = [each for each in _ADDRESSES.items() if _is_here(*each)]
        for _ in range(_TRIES):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((_ADDRESSES[socket.AF_INET], 0))
                port = probe.getsockname()[1]
            made = cls(port)
            try:
                for family, address in here:
                    transport, _ = await loop.create_datagram_endpoint(
                        lambda: _Datagrams(server), (address, port), family=family
                    )
                    made._udp.append(transport)
                    made._tcp.append(
                        await loop.create_server(
                            lambda made=made: _Connection(server, made._connections),  # type: ignore[misc]
                            address,
                            port,
                        )
                    )
            except OSError:
                made.close()
                continue
            return made
        raise HostError("no port of loopback is free for a name server")

    def close(self) -> None:
        """Listen no more."""
        for transport in self._udp:
            transport.close()
        for server in self._tcp:
            server.close()
        for connection in tuple(self._connections):
            connection.abort()


def _is_here(family: int, address: str) -> bool:
    """Whether this host has an address: IPv6 may be switched off."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: object) -> None:
        self._server.receive(data, _Datagram(self._transport, address), tcp=False)


class _Datagram:
    """Who asked by a datagram."""

    __slots__ = ("_address", "_transport")

    def __init__(self, transport: asyncio.BaseTransport, address: object) -> None:
        self._transport = transport
        self._address = address

    def reply(self, message: bytes) -> None:
        """Send it."""
        if not self._transport.is_closing():
            self._transport.sendto(message, self._address)  # type: ignore[attr-defined]


class _Connection(asyncio.Protocol):
    def __init__(self, server: NameServer, others: "set[_Connection]") -> None:
        self._server = server
        self._others = others
        self._questions = Questions(self)
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(IDLE, self._expire)
        self._others.add(self)
        if len(self._others) > MOST_CONNECTIONS:
            self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._timer.cancel()
        self._others.discard(self)

    def data_received(self, data: bytes) -> None:
        self._wait()
        if not self._questions.ask(data, self._server):
            self.abort()

    def eof_received(self) -> bool:
        self._finished = True
        return self._questions.waiting > 0

    def reply(self, message: bytes) -> None:
        """Answer one question."""
        answer = self._questions.answer(message)
        if self._transport.is_closing():
            return
        self._wait()
        self._transport.write(answer)
        if self._transport.get_write_buffer_size() > MOST_UNREAD:
            self.abort()
        elif self._finished and not self._questions.waiting:
            self._transport.close()

    def abort(self) -> None:
        """Reset it."""
        self._transport.abort()

    def _wait(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(IDLE, self._expire)

    def _expire(self) -> None:
        if self._questions.waiting:
            self._wait()  # who waits for an answer is not idle
        elif self._transport.get_write_buffer_size():
            self.abort()  # closing it would wait until the rest is read
        else:
            self._transport.close()
