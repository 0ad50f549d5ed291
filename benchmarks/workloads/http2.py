"""HTTP/2 alone: both ends of a connection, and octets handed from one to the other.

Only headers are copied. What a message holds nobody looks at, and the cost of moving
it says more about the C library than about us.
"""

from functools import partial

from benchmarks.workloads.workload import Step, Workload
from tunstack.rpc.http2.connection import Connection, What
from tunstack.rpc.http2.grpc import request, response

ROOM = 256 * 1024
COPIED = 4096
"""Octets: what is longer is a message."""
TURN = 1e-4


class Wire:
    """Two ends with one stream between them, which both sides of use up at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = Connection(client=True, now=0.0)
        self.server = Connection(client=False, now=0.0)
        self.said: list[bytes] = []
        self.messages = 0
        self.stream = self.client.request(
            request("/a.Service/Method", "here", scheme="http", user_agent="bench")
        )
        self.accepted = None
        self.talk()
        assert self.accepted is not None
        for end, stream in ((self.client, self.stream), (self.server, self.accepted)):
            end.be_eager(stream, self.now)
            stream.pull = self.pull

    def pull(self) -> bytes | None:
        return self.said.pop() if self.said else None

    def talk(self) -> None:
        """Let both ends say what they have to say, by turns, until both are silent."""
        while self.client.sender.pending or self.server.sender.pending:
            self.carry(self.client, self.server)
            self.carry(self.server, self.client)

    def carry(self, sender: Connection, receiver: Connection) -> None:
        """Hand over one write of one end."""
        self.now += TURN
        for chunk in sender.sender.output(ROOM, self.now):
            at, size = 0, len(chunk)
            while at < size:
                room = receiver.room(-1)
                count = min(size - at, len(room))
                if size <= COPIED:
                    room[:count] = memoryview(chunk)[at : at + count]
                receiver.receive(count, self.now)
                at += count
        for what, stream, _ in receiver.take_events():
            if what is What.MESSAGE:
                self.messages += 1
            elif what is What.REQUEST:
                self.accepted = stream
                receiver.respond(stream, response())


def echo(size: int) -> Step:
    """A message, and one of the same size back."""
    wire = Wire()
    text = bytes(size)

    def step() -> None:
        before = wire.messages
        for end, stream in ((wire.client, wire.stream), (wire.server, wire.accepted)):
            wire.said.append(text)
            end.sender.wake(stream)
            wire.talk()
        assert wire.messages == before + 2

    return step


WORKLOADS = (
    Workload(
        name="http2, 64 octets",
        unit="message",
        units=2,
        warm_up=40,
        make=partial(echo, 64),
    ),
    Workload(
        name="http2, 256 KiB",
        unit="message",
        units=2,
        warm_up=40,
        make=partial(echo, 256 * 1024 - 64),
    ),
)
