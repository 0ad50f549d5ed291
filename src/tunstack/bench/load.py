"""Applications at both ends of a path: what loads it, and what serves that.

The first octet of a connection is what the client wants, *up*, *down*, *ask* or
*connect*:

* up: the server takes octets until their end, and answers how many there were;
* down: it sends until the client's half is closed, and then how many there were;
* ask: it sends back what it gets;
* connect: it answers with one octet, and closes.

Every client checks what comes back. ``python -m tunstack.bench.load`` serves, on any
address, and says ``ready PORT``. Client and server are Python on bare sockets: their own
share of a round trip is in the figures of tunnel and of kernel forwarding alike.
"""

import select
import socket
import sys
import time
from dataclasses import dataclass

from tunstack.bench.probe import expect

ASK = 64
"""Octets of a question and of its answer."""

PATIENCE = 20.0
"""Seconds that a peer may be silent."""

_ROOM = 1 << 18
_COUNT = 8
"""Octets of a number on the wire, in network order."""

Address = tuple[str, int]


class _Conversation:
    """One connection, at the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wants = b""
        self.octets = 0
        """Received of an upload, sent of a download."""


class Server:
    """Serves whoever comes, in one thread."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("", 0), backlog=4096)
        self.port: int = self._listener.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._conversations: dict[int, _Conversation] = {}
        self._room = memoryview(bytearray(_ROOM))

    def serve(self) -> None:
        """Serve until the process is ended."""
        while True:
            for fd, events in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                    continue
                conversation = self._conversations[fd]
                try:
                    goes_on = self._go_on(conversation, events)
                except BlockingIOError:
                    continue
                except OSError:
                    goes_on = False
                if not goes_on:
                    del self._conversations[fd]
                    conversation.sock.close()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._conversations[sock.fileno()] = _Conversation(sock)
        self._poll.register(sock, select.EPOLLIN)

    def _go_on(self, of: _Conversation, events: int) -> bool:
        """Do what is due; false at the end."""
        sock, room = of.sock, self._room
        if events & ~select.EPOLLOUT:
            got = sock.recv_into(room)
            if not of.wants and got:
                of.wants = bytes(room[:1])
                if of.wants == b"d":
                    self._poll.modify(sock, select.EPOLLIN | select.EPOLLOUT)
                    of.octets += sock.send(room)
            if of.wants == b"a":
                sock.sendall(room[:got])
            elif of.wants == b"u":
                of.octets += got
            elif of.wants == b"c":
                sock.send(b"c")
                return False
            if not got and of.wants in (b"u", b"d"):
                sock.settimeout(PATIENCE)
                sock.sendall(of.octets.to_bytes(_COUNT, "big"))
            return bool(got)
        of.octets += sock.send(room)
        return True


def _dial(address: Address) -> socket.socket:
    sock = socket.create_connection(address, PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@dataclass(slots=True)
class _Transfer:
    sock: socket.socket
    octets: int = 0
    tail: bytes = b""
    """The last octets that came."""

    def take(self, room: memoryview) -> bool:
        """Receive; false at the end, where the server's count has to be ours."""
        got = self.sock.recv_into(room)
        self.octets += got
        self.tail = (self.tail + bytes(room[max(0, got - _COUNT) : got]))[-_COUNT:]
        return got > 0

    @property
    def count(self) -> int:
        """What the server has counted."""
        return int.from_bytes(self.tail, "big")


def upload(address: Address, flows: int, seconds: float) -> tuple[int, float]:
    """Send for so long on so many connections; gives octets, and seconds until counted."""
    room = memoryview(bytearray(b"u" * _ROOM))
    transfers = [_Transfer(_dial(address)) for _ in range(flows)]
    by_fd = {transfer.sock.fileno(): transfer for transfer in transfers}
    with select.epoll() as poll:
        began = now = time.perf_counter()
        for transfer in transfers:
            transfer.sock.sendall(room[:1])
            transfer.octets = 1
            transfer.sock.setblocking(False)
            poll.register(transfer.sock, select.EPOLLOUT)
        while now < began + seconds:
            for fd, _ in _ready(poll):
                by_fd[fd].octets += by_fd[fd].sock.send(room)
            now = time.perf_counter()
    for transfer in transfers:
        transfer.sock.settimeout(PATIENCE)
        transfer.sock.shutdown(socket.SHUT_WR)
    octets = 0
    for transfer in transfers:
        sent, transfer.octets = transfer.octets, 0
        while transfer.take(room):
            pass
        expect(transfer.count == sent, f"{transfer.count} of {sent} octets arrived")
        transfer.sock.close()
        octets += sent
    return octets, time.perf_counter() - began


def download(address: Address, flows: int, seconds: float) -> tuple[int, float]:
    """Receive for so long; gives octets, and seconds until the last one."""
    room = memoryview(bytearray(_ROOM))
    transfers = [_Transfer(_dial(address)) for _ in range(flows)]
    by_fd = {transfer.sock.fileno(): transfer for transfer in transfers}
    octets, asked_to_end = 0, False
    with select.epoll() as poll:
        began = now = time.perf_counter()
        for transfer in transfers:
            transfer.sock.sendall(b"d")
            transfer.sock.setblocking(False)
            poll.register(transfer.sock, select.EPOLLIN)
        while by_fd:
            if not asked_to_end and now >= began + seconds:
                asked_to_end = True
                for transfer in by_fd.values():
                    transfer.sock.shutdown(socket.SHUT_WR)
            left = max(0.0, began + seconds - now)
            for fd, _ in _ready(poll) if asked_to_end else poll.poll(left):
                transfer = by_fd[fd]
                if transfer.take(room):
                    continue
                got = transfer.octets - _COUNT
                expect(transfer.count == got, f"{got} of {transfer.count} octets arrived")
                del by_fd[fd]
                transfer.sock.close()
                octets += got
            now = time.perf_counter()
    return octets, time.perf_counter() - began


def ask(address: Address, flows: int, seconds: float) -> tuple[list[float], float]:
    """Ask on each connection as soon as it has answered; gives the seconds of each."""
    question, times = b"a" * ASK, []
    socks = {sock.fileno(): sock for sock in (_dial(address) for _ in range(flows))}
    asked: dict[int, float] = {}
    with select.epoll() as poll:
        began = now = time.perf_counter()
        for fd, sock in socks.items():
            poll.register(fd, select.EPOLLIN)
            asked[fd] = now
            sock.sendall(question)
        while asked:
            for fd, _ in _ready(poll):
                answer = socks[fd].recv(ASK, socket.MSG_WAITALL)
                now = time.perf_counter()
                expect(answer == question, "what came back is not what was asked")
                times.append(now - asked.pop(fd))
                if now < began + seconds:
                    asked[fd] = now
                    socks[fd].sendall(question)
    for sock in socks.values():
        sock.close()
    return times, now - began


def connect(address: Address, seconds: float) -> tuple[int, float]:
    """Connect, request and wait for the end, one by one; gives how often, and seconds."""
    count = 0
    began = now = time.perf_counter()
    while now < began + seconds:
        with _dial(address) as sock:
            sock.sendall(b"c")
            expect(sock.recv(2) + sock.recv(1) == b"c", "the answer is not the right one")
        count += 1
        now = time.perf_counter()
    return count, now - began


def _ready(poll: select.epoll) -> list[tuple[int, int]]:
    found = poll.poll(PATIENCE)
    expect(bool(found), f"nothing came for {PATIENCE:.0f} s")
    return found


def main() -> None:
    """Be the server."""
    server = Server()
    sys.stdout.write(f"ready {server.port}\n")
    sys.stdout.flush()
    server.serve()


if __name__ == "__main__":
    main()
