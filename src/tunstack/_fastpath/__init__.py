"""Arithmetic on the octets of packets and messages.

The functions are those of :mod:`.reference`, which documents them. Where the C kernels
are built they take over, unless ``TUNSTACK_FASTPATH=reference`` asks for the twins;
``TUNSTACK_FASTPATH=kernels`` makes it an error that the kernels are missing.
"""

from tunstack import _environment
from tunstack._fastpath.reference import (
    NAME,
    frame_tcp,
    frame_udp,
    pack_frames,
    parse_batch,
    split_frames,
    sum16,
)

if _environment.FASTPATH != "reference":
    try:
        from tunstack._fastpath.kernels import (
            NAME,
            frame_tcp,
            frame_udp,
            pack_frames,
            parse_batch,
            split_frames,
            sum16,
        )
    except ImportError:
        if _environment.FASTPATH == "kernels":
            raise

__all__ = [
    "NAME",
    "frame_tcp",
    "frame_udp",
    "pack_frames",
    "parse_batch",
    "split_frames",
    "sum16",
]
