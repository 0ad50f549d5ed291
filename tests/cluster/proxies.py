"""Proxies on loopback: HTTP and SOCKS5, which lead to one server whatever is asked."""

import asyncio
import struct
from ipaddress import ip_address
from urllib.parse import urlsplit


class _Proxy:
    def __init__(self, server):
        parts = urlsplit(server)
        self.target = parts.hostname, parts.port
        self.asked = []
        """What clients wanted."""
        self.refusing = False
        self._server = None
        self._pumps = set()

    async def start(self, tls=None):
        """Listen; gives host and port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        _, port = self._server.sockets[0].getsockname()
        return f"127.0.0.1:{port}"

    async def close(self):
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._pumps.add(asyncio.current_task())
        try:
            first = await self._begin(reader, writer)
            if first is None:
                return
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            far_writer.write(first)
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class HttpProxy(_Proxy):
    """``asked`` are request lines without the version."""

    async def _begin(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, what, _ = head.split(b"\r\n", 1)[0].decode().split()
        self.asked.append(f"{method} {what}")
        if self.refusing:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return None
        if method != "CONNECT":
            return head
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return b""


class SocksProxy(_Proxy):
    """``asked`` are hosts, as the client named them (RFC 1928, section 4)."""

    async def _begin(self, reader, writer):
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = await reader.readexactly(length)
        await reader.readexactly(2)
        self.asked.append(host.decode() if kind == 3 else str(ip_address(host)))
        code = 5 if self.refusing else 0
        writer.write(struct.pack("!BBBB4sH", 5, code, 0, 1, bytes(4), 0))
        return None if self.refusing else b""


async def _pass(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
