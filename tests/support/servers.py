"""The servers of the system tests in one program: HTTP, and TCP and UDP echo.

``GET /bytes/N`` gives :func:`content`, ``PUT /echo`` the body as it comes, ``PUT
/digest`` its SHA-256. All listen on every address; ``ready`` on standard output says
that they do.
"""

import asyncio
import hashlib
import random
import resource
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTTP_PORT = 8080
ECHO_PORT = 7
"""TCP and UDP."""

BLOCK = 64 * 1024
_FILLING = random.Random(7).randbytes(BLOCK - 8)


def content(length: int) -> Iterator[bytes]:
    """Give ``length`` octets in pieces, no two pieces the same."""
    for number, start in enumerate(range(0, length, BLOCK)):
        yield (number.to_bytes(8, "big") + _FILLING)[: length - start]


def digest(length: int) -> str:
    """Give the SHA-256 of :func:`content`."""
    total = hashlib.sha256()
    for piece in content(length):
        total.update(piece)
    return total.hexdigest()


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        length = int(self.path.removeprefix("/bytes/"))
        self._head(length)
        for piece in content(length):
            self.wfile.write(piece)

    def do_PUT(self) -> None:
        if self.path == "/echo":
            self._head(int(self.headers["Content-Length"]))
            for piece in self._body():
                self.wfile.write(piece)
        else:
            total = hashlib.sha256()
            for piece in self._body():
                total.update(piece)
            self._head(total.digest_size * 2)
            self.wfile.write(total.hexdigest().encode())

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _body(self) -> Iterator[bytes]:
        left = int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read1(min(left, BLOCK))):
            left -= len(piece)
            yield piece

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _HttpServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 4096


class _TcpEcho(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()


def _echo_datagrams(udp: socket.socket) -> None:
    while True:
        data, sender = udp.recvfrom(65_536)
        udp.sendto(data, sender)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    tcp = socket.create_server(("", ECHO_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    await loop.create_server(_TcpEcho, sock=tcp, backlog=4096)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    udp.bind(("", ECHO_PORT))
    threading.Thread(target=_echo_datagrams, args=[udp], daemon=True).start()
    http = _HttpServer(("", HTTP_PORT), _Pages)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve())
