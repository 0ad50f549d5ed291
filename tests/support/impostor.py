"""A manager of stock grpcio and the ``.proto`` that breaks the rules of the protocol.

``impostor.py HOST PORT CASE`` serves, and prints ``ready`` and then a line for each
stream that a client opens.
"""

import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tunstack.rpc import tunnel_pb2 as pb

DATA, CREDIT = 4, 5


def said(**body: Any) -> bytes:
    """Make a message."""
    return pb.FromManager(**body).SerializeToString()


def frame(kind: int, flow: int, payload: bytes = b"", *, more: int = 0) -> bytes:
    """Pack a frame whose length says ``more`` octets than there are."""
    return struct.pack("!II", kind << 24 | len(payload) + more, flow) + payload


def welcome(**fields: Any) -> bytes:
    """Make the first message."""
    values: dict[str, Any] = {
        "protocol": 1,
        "session": b"session",
        "secret": b"secret",
        "flow_limit": 100,
        "cluster": pb.ClusterInfo(
            subnets=[pb.Subnet(address=bytes([10, 98, 2, 0]), prefix_length=24)]
        ),
    }
    return said(welcome=pb.Welcome(**(values | fields)))


def goodbye(code: pb.Code, reason: str) -> bytes:
    """Make the last message."""
    return said(goodbye=pb.Goodbye(code=code, reason=reason))


NEVER: dict[str, list[bytes]] = {
    "nothing": [],
    "noise": [b"\xff" * 100],
    "an empty message": [b""],
    "frames": [said(frames=frame(DATA, 1, b"x"))],
    "a version of the future": [welcome(protocol=1000)],
    "a subnet of 99 bits": [
        welcome(
            cluster=pb.ClusterInfo(subnets=[pb.Subnet(address=bytes(4), prefix_length=99)])
        )
    ],
    "a subnet of 5 octets": [
        welcome(
            cluster=pb.ClusterInfo(subnets=[pb.Subnet(address=bytes(5), prefix_length=8)])
        )
    ],
    "a message too long": [welcome(product_version="x" * (5 << 20))],
    "no common version": [goodbye(pb.CODE_VERSION, "you speak 1, I speak 7 to 9")],
    "no entry": [goodbye(pb.CODE_UNAUTHENTICATED, "who are you?")],
    "not allowed": [goodbye(pb.CODE_FORBIDDEN, "not you")],
    "full": [goodbye(pb.CODE_LIMIT, "too many sessions")],
}
"""What it says instead of a welcome."""

THEN: dict[str, list[bytes]] = {
    "noise": [welcome(), b"\xff" * 100],
    "another welcome": [welcome(), welcome()],
    "a frame longer than the message": [
        welcome(),
        said(frames=frame(DATA, 1, b"x", more=9)),
    ],
    "an unknown frame": [welcome(), said(frames=frame(200, 1))],
    "data for a flow that never was": [welcome(), said(frames=frame(DATA, 999, b"x"))],
    "credit for a flow that never was": [
        welcome(),
        said(frames=frame(CREDIT, 999, b"\0\0\1\0")),
    ],
    "a message too long": [welcome(), said(frames=bytes(5 << 20))],
    "a goodbye": [welcome(), goodbye(pb.CODE_INTERNAL, "it broke")],
}
"""What it says after a welcome."""


def main(host: str, port: str, case: str) -> None:
    """Serve until killed."""
    script = (NEVER | {f"then {name}": script for name, script in THEN.items()})[case]

    def converse(requests: Iterator[bytes], _: object) -> Iterator[bytes]:
        print("stream", flush=True)
        next(requests)
        yield from script
        for _ in requests:
            pass

    handler = grpc.stream_stream_rpc_method_handler(converse)
    server = grpc.server(
        ThreadPoolExecutor(10), options=[("grpc.max_send_message_length", -1)]
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tunstack.v1.Tunnel", {"Connect": handler})]
    )
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
