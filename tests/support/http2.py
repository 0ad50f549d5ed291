"""Machines of HTTP/2 without a network, and frames made and read by hand."""

import struct

from hpack import Decoder, Encoder

from tunstack.rpc.http2.connection import Connection, What
from tunstack.rpc.http2.frame import PREFACE, Code, Flag, Type

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""An empty SETTINGS frame."""

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Method"),
    (":authority", "here"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]


def frame(kind, flags=0, stream=0, payload=b""):
    """Make a frame, whatever its kind may have of flags and streams."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(
        ">BBI", kind, flags, stream
    ) + bytes(payload)  # fmt: skip


def headers(fields, stream=1, *, end=False, flags=Flag.END_HEADERS):
    """Make a HEADERS frame, compressed without a table that outlives it."""
    pairs = [(name, value, True) for name, value in fields]
    if end:
        flags |= Flag.END_STREAM
    return frame(Type.HEADERS, flags, stream, Encoder().encode(pairs))


def message(octets):
    """Give a gRPC message its prefix."""
    return struct.pack(">BI", 0, len(octets)) + octets


def data(octets, stream=1, *, end=False):
    return frame(Type.DATA, Flag.END_STREAM if end else 0, stream, octets)


def window_update(increment, stream=0):
    return frame(Type.WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def split(octets):
    """Read frames: kind, flags, stream, payload of each."""
    frames = []
    while octets:
        size = int.from_bytes(octets[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", octets[3:9])
        frames.append((kind, flags, stream, octets[9 : 9 + size]))
        octets = octets[9 + size :]
    return frames


class End:
    """A machine: octets in, events and octets out, at :attr:`now`."""

    def __init__(self, *, client=False, now=0.0, **settings):
        self.now = now
        self.machine = Connection(client=client, now=now, **settings)
        self.decoder = Decoder()

    def feed(self, octets, piece=1 << 30):
        """Take octets in pieces; gives the events, their messages copied."""
        events = []
        while octets:
            room = self.machine.room(-1)
            size = min(len(room), len(octets), piece)
            room[:size] = octets[:size]
            octets = octets[size:]
            self.machine.receive(size, self.now)
            events += self.events()
        return events

    def events(self):
        return [
            (what, stream, bytes(value) if what is What.MESSAGE else value)
            for what, stream, value in self.machine.take_events()
        ]

    def output(self, room=1 << 30):
        """Give what it has to say."""
        said = b""
        while self.machine.sender.pending:
            chunks = self.machine.sender.output(room, self.now)
            if not chunks:
                break
            said += b"".join(map(bytes, chunks))
        return said

    def frames(self, kind=None):
        """Give the frames that it has to say, all or those of one kind."""
        said = self.output().removeprefix(PREFACE)
        return [f for f in split(said) if kind is None or f[0] == kind]

    def fields(self, payload):
        return [(bytes(n), bytes(v)) for n, v in self.decoder.decode(payload, raw=True)]

    def expire(self, seconds):
        """Let time pass."""
        self.now += seconds
        self.machine.expire(self.now)
        return self.events()


def server(**settings):
    """A server that has seen the preface, and has said its own."""
    end = End(client=False, **settings)
    end.feed(PREFACE + SETTINGS)
    end.output()
    return end


def client(**settings):
    """A client that has seen the server's settings, and has said its own."""
    end = End(client=True, **settings)
    end.feed(SETTINGS)
    end.output()
    return end


def begun(**settings):
    """A server and the stream of a request that it has."""
    end = server(**settings)
    ((_, stream, _),) = end.feed(headers(REQUEST))
    return end, stream


def goaway(end):
    """How an end has ended the connection: the code and the reason."""
    *_, (kind, _, _, payload) = end.frames()
    assert kind == Type.GOAWAY
    return Code(int.from_bytes(payload[4:8], "big")), payload[8:].decode()


def talk(one, other):
    """Let two ends say to each other what they have to say; gives all events."""
    events = []
    while True:
        first, second = one.output(), other.output()
        if not first and not second:
            return events
        events += other.feed(first)
        events += one.feed(second)
