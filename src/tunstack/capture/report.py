"""What became of the packets of a capture file."""

from collections import Counter
from pathlib import Path
from typing import Any

from tunstack.capture.reader import CaptureError
from tunstack.capture.stream import Digest, Stream


class Report:
    """Counts, while the file is played and at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links: dict[str, None] = {}
        self.frames = 0
        self.others = 0
        """Frames that carry no IP packet."""
        self.octets = 0
        self.verdicts: Counter[str] = Counter()
        """Of each packet, of both sides."""
        self.streams: list[Stream] = []
        self.outside = 0
        """Segments of connections whose SYN was not captured."""
        self.datagrams = Digest()
        self.datagram_count = 0
        self.datagram_answers = 0
        self.echo_requests = 0
        self.echo_answers = 0
        self.drops: Counter[str] = Counter()
        """What the stack refused beyond the verdicts."""
        self.error: CaptureError | None = None
        """Why the file was not read to its end."""

    def document(self) -> dict[str, Any]:
        """Give the report of ``replay --json``."""
        return {
            "file": str(self.path),
            "links": list(self.links),
            "frames": self.frames,
            "not_ip": self.others,
            "octets": self.octets,
            "verdicts": dict(sorted(self.verdicts.items())),
            "streams": [stream.document() for stream in self.streams],
            "segments_outside_streams": self.outside,
            "datagrams": {
                "delivered": self.datagram_count,
                "answered": self.datagram_answers,
                **self.datagrams.document(),
            },
            "echoes": {"delivered": self.echo_requests, "answered": self.echo_answers},
            "drops": dict(sorted(self.drops.items())),
            "error": None if self.error is None else str(self.error),
        }
