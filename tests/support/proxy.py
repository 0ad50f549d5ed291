"""A TCP proxy that a test can cut."""

import asyncio


class Proxy:
    """Listens on loopback and passes octets on to ``host:port``."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self.target = host, int(port)
        self._writers = set()
        self._server = None
        self.connections = 0
        self.refusing = False
        self.octets = 0
        self.arrived = asyncio.Condition()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        _, port = self._server.sockets[0].getsockname()
        return f"127.0.0.1:{port}"

    async def close(self):
        self._server.close()
        self.cut()

    def cut(self):
        """Break what is connected, in both directions at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def passed(self, octets):
        """Wait until so many octets have gone through."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.octets >= octets)

    async def _serve(self, reader, writer):
        if self.refusing:
            writer.transport.abort()
            return
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(
                self._pass(reader, far_writer), self._pass(far_reader, writer)
            )
        finally:
            self._writers -= {writer, far_writer}

    async def _pass(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                async with self.arrived:
                    self.octets += len(data)
                    self.arrived.notify_all()
        except ConnectionError:
            pass
        finally:
            writer.close()
