"""A TCP relay with a delay, as a program: from a listening socket to an address.

What arrives is passed on as it comes, so many seconds later: the way gets longer, and no
narrower.
"""

import asyncio
import socket
import sys

import uvloop

BUFFER = 64 << 20


class Side(asyncio.Protocol):
    """One end of a connection: passes on what comes to the other end."""

    def __init__(self, delay, other=None):
        self.other = other
        self.transport = None
        self._delay = delay
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(BUFFER)
        if self.other is not None:
            self.other.other = self

    def data_received(self, data):
        if self._delay:
            self._loop.call_later(self._delay, self._pass, data)
        else:
            self._pass(data)

    def connection_lost(self, exc):
        self._loop.call_later(self._delay, self._end)

    def _pass(self, data):
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def _end(self):
        if self.other is not None:
            self.other.transport.close()


async def join(sock, host, port, delay):
    loop = asyncio.get_running_loop()
    try:
        _, far = await loop.create_connection(lambda: Side(delay), host, port)
    except OSError:
        sock.close()
        return
    await loop.connect_accepted_socket(lambda: Side(delay, far), sock)


async def serve(listener, host, port, delay):
    loop = asyncio.get_running_loop()
    tasks = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(join(sock, host, port, delay))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def main():
    descriptor, host, port, delay = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    listener.setblocking(False)
    uvloop.run(serve(listener, host, int(port), float(delay)))


if __name__ == "__main__":
    main()
