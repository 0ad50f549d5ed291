"""A client of stock grpcio and the ``.proto`` that breaks the rules of the protocol.

``stranger.py ADDRESS CASE`` prints one JSON object that tells how the manager ended the
stream: ``{"code": name, "reason": text}``, of a goodbye or else of the gRPC status.
"""

import json
import queue
import struct
import sys
from collections.abc import Iterator
from typing import Any

import grpc

from tunstack.rpc import tunnel_pb2 as pb

METHOD = "/tunstack.v1.Tunnel/Connect"
OPEN, DATA, CREDIT, RESET, DATAGRAM = 1, 4, 5, 7, 8
TARGET = bytes(10) + b"\xff\xff" + bytes([10, 98, 2, 2])


def frame(kind: int, flow: int, payload: bytes = b"", *, more: int = 0) -> bytes:
    """Pack a frame whose length says ``more`` octets than there are."""
    return struct.pack("!II", kind << 24 | len(payload) + more, flow) + payload


def opening(flow: int, *, credit: int = 65_536) -> bytes:
    """Pack the frame that opens a TCP flow to the server's echo."""
    return frame(OPEN, flow, struct.pack("!BBHI16s", 6, 0, 7, credit, TARGET))


def frames(*packed: bytes) -> bytes:
    """Make a message of frames."""
    return pb.FromClient(frames=b"".join(packed)).SerializeToString()


def hello(**fields: Any) -> bytes:
    """Make the first message."""
    values: dict[str, Any] = {"protocol": 1, "protocol_minimum": 1}
    return pb.FromClient(hello=pb.Hello(**(values | fields))).SerializeToString()


CASES: dict[str, list[bytes]] = {
    "noise first": [b"\xff" * 100],
    "noise later": [hello(), b"\xff" * 100],
    "an empty message first": [b""],
    "no hello": [frames(opening(1))],
    "two hellos": [hello(), hello()],
    "a version of the future": [hello(protocol=1000, protocol_minimum=999)],
    "a frame longer than the message": [hello(), frames(frame(DATA, 1, b"x", more=9))],
    "a frame longer than any": [hello(), frames(frame(DATA, 1, more=0xFFFFFF))],
    "half a frame header": [hello(), frames(opening(1)[:5])],
    "an unknown frame": [hello(), frames(frame(200, 1, b"what?"))],
    "data for a flow that never was": [hello(), frames(frame(DATA, 999, b"x"))],
    "data for a flow of the manager's": [hello(), frames(frame(DATA, 2, b"x"))],
    "credit for a flow that never was": [hello(), frames(frame(CREDIT, 7, b"\0\0\1\0"))],
    "a flow opened twice": [hello(), frames(opening(1), opening(1))],
    "half an open": [hello(), frames(frame(OPEN, 1, b"\6\0\0"))],
    "half a credit": [hello(), frames(opening(1), frame(CREDIT, 1, b"\1"))],
    "data beyond the credit": [
        hello(),
        *(frames(*([frame(DATA, 1, bytes(60_000))] * 4)) for _ in range(100)),
    ],
    "a message too long": [hello(), frames(bytes(5 << 20))],
}
CASES["data beyond the credit"].insert(1, frames(opening(1)))

METHODS = {
    "another service": "/tunstack.v1.Funnel/Connect",
    "another method": "/tunstack.v1.Tunnel/Disconnect",
}


def main(address: str, case: str) -> None:
    """Play one case."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    for message in CASES.get(case, [hello()]):
        requests.put(message)
    sent: Iterator[bytes] = iter(requests.get, None)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        call = channel.stream_stream(METHODS.get(case, METHOD))(sent, timeout=15)
        outcome = {}
        try:
            for message in call:
                said = pb.FromManager.FromString(message)
                if said.WhichOneof("body") == "goodbye":
                    code = pb.Code.Name(said.goodbye.code)
                    outcome = {"code": code, "reason": said.goodbye.reason}
        except grpc.RpcError as error:
            status = {"code": error.code().name, "reason": error.details()}
            outcome = outcome or status
        print(json.dumps(outcome))
        requests.put(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
