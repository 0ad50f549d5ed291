"""Segments as a host sends them, on a device with offload."""

from tunstack import _fastpath
from tunstack.host.device import VNET
from tunstack.stack.tcp import ACK
from tunstack.wire import key as flow_key

MSS = 1460


def _make_key() -> bytes:
    source, target = bytes((198, 18, 0, 1)), bytes((10, 96, 0, 80))
    ports = (40_000).to_bytes(2, "big") + (80).to_bytes(2, "big")
    return b"\x06" + flow_key.MAPPED + source + flow_key.MAPPED + target + ports


KEY = _make_key()
"""Of the host's one connection."""


def segment(
    seq: int, ack: int, text: bytes = b"", *, flags: int = ACK, options: bytes = b""
) -> bytes:
    """Build a packet of :data:`KEY`; text longer than :data:`MSS` makes it a GSO packet."""
    gso = MSS if len(text) > MSS else 0
    header = _fastpath.frame_tcp(
        flow_key.reverse(KEY), seq, ack, flags, 65_535, options, len(text), 0, 0, gso, VNET
    )
    return header + text
