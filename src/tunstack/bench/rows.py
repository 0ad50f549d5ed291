"""What is measured, and what counts as good.

A figure says something beside another one of the same machine and the same minute: the
*ceiling*. A row's ratio is its share of that, so 1 is as good as the ceiling and more is
better, whatever the unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunstack.errors import UsageError


@dataclass(frozen=True, slots=True)
class Scale:
    """How the share of a ceiling is judged."""

    ceiling: str
    """What it is a share of, for people."""
    good: float
    """From this ratio on; below it fair."""
    fair: float
    """From this ratio on; below it poor."""
    reason: str


SCALES = {
    "kernel": Scale(
        "the Python twin", 4.0, 1.5,
        "C pays: below that the kernels are not built, or not worth a call",
    ),
    "transport": Scale(
        "loopback TCP", 0.5, 0.25,
        "both ends copy as loopback does; framing comes on top",
    ),
    "transport echo": Scale(
        "loopback TCP", 0.4, 0.2,
        "an event loop in Python behind each wake-up",
    ),
    "machine": Scale(
        "the transport's sender", 0.8, 0.4,
        "a machine that costs more CPU than the transport decides the path's speed",
    ),
    "single packets": Scale(
        "the transport's sender", 0.12, 0.06,
        "without offload each packet is validated and looked up by itself",
    ),
    "bulk": Scale(
        "kernel forwarding", 0.25, 0.1,
        "two processes and two copies more, with the cores shared by all",
    ),
    "exchange": Scale(
        "kernel forwarding", 0.1, 0.05,
        "four wake-ups of Python to a round trip, where forwarding has none",
    ),
    "cpu": Scale(
        "what the applications take", 0.4, 0.2,
        "both ends of a transfer, as the kernel forwards it",
    ),
    "start": Scale(
        "the start of an interpreter", 0.15, 0.07,
        "three of them begin, load their modules and say hello",
    ),
}  # fmt: skip
"""By kind of row. Good is what tunstack aims at or has on two quiet cores, fair what a
machine with something else to do gives; below that something is wrong, or worth a look."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    group: str
    question: str
    unit: str
    """Without a prefix: ``bit/s``, ``s``."""
    higher: bool = True
    """More is better."""
    scale: str | None = None
    """In :data:`SCALES`; ``None`` for what only others are compared with."""
    against: str | None = None
    """The name under which the ceiling is measured, in the same turns."""


PER_CPU = "transport, per CPU second"
"""The name under which that is measured."""


def forwarded(name: str) -> str:
    """Give the name under which kernel forwarding's figure for a row is measured."""
    return f"{name}, forwarded"


def _path(
    name: str, question: str, unit: str, *, higher: bool = True, scale: str = "bulk"
) -> Row:
    return Row(name, "path", question, unit, higher, scale, forwarded(name))


def _kernel(name: str, question: str, unit: str) -> Row:
    return Row(name, "kernels", question, unit, True, "kernel", f"{name}, twin")


ROWS = (
    _kernel("checksum", "how fast are 64 KiB summed?", "bit/s"),
    _kernel("parse", "how many packets are validated, 64 to a batch?", "packets/s"),
    _kernel("framing", "how many frames of 64 octets are packed?", "frames/s"),
    Row("loopback", "stages", "what does this machine's own TCP carry?", "bit/s"),
    Row("grpc", "stages", "what does a bare stream of grpc.aio carry?", "bit/s"),
    Row("transport", "stages", "what does one stream of ours carry, 256 KiB to a message?",
        "bit/s", True, "transport", "loopback"),
    Row("mux", "stages", "what do both ends of the mux carry in a CPU second?",
        "bit/s", True, "machine", PER_CPU),
    Row("stack", "stages", "what does the stack take in a CPU second, by 64 KiB?",
        "bit/s", True, "machine", PER_CPU),
    Row("stack-1460", "stages", "the same by 1460 octets, as without offload?",
        "bit/s", True, "single packets", PER_CPU),
    Row("loopback-echo", "stages", "a round trip of 64 octets on loopback?", "s", False),
    Row("transport-echo", "stages", "the same on one stream of ours?",
        "s", False, "transport echo", "loopback-echo"),
    Row("connect", "start", "how long until `tunstack connect` is ready?",
        "s", False, "start", "interpreter"),
    _path("up-1", "what does an application upload, with one connection?", "bit/s"),
    _path("up-8", "the same with eight?", "bit/s"),
    _path("down-1", "what does it download, with one connection?", "bit/s"),
    _path("down-8", "the same with eight?", "bit/s"),
    _path("round-trip", "a round trip of 64 octets, half of them?",
          "s", higher=False, scale="exchange"),
    _path("round-trip-p99", "the same, all but one in a hundred?",
          "s", higher=False, scale="exchange"),
    _path("rate-64", "how many round trips with 64 connections?",
          "1/s", scale="exchange"),
    _path("connections", "how often connect, request, close, one by one?",
          "1/s", scale="exchange"),
    Row("cpu-engine", "path", "what CPU does an upload cost the engine?",
        "s/GB", False, "cpu", "cpu-applications"),
    Row("cpu-manager", "path", "what CPU does it cost the manager?",
        "s/GB", False, "cpu", "cpu-applications"),
)  # fmt: skip
"""In the order of the table."""

BY_NAME = {row.name: row for row in ROWS}

GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))
"""What can be measured together, each in a process of its own."""


def choose(names: Sequence[str]) -> list[Row]:
    """Give the rows that names of rows and of groups ask for; none asks for all.

    Raises:
        UsageError: there is no such row or group. Names them all.
    """
    for name in names:
        if name not in BY_NAME and name not in GROUPS:
            raise UsageError(
                f"there is no benchmark {name}",
                hint=f"there are {', '.join((*GROUPS, *BY_NAME))}",
            )
    return [row for row in ROWS if not names or {row.name, row.group} & {*names}]
