"""The language: scripts to events, packets to the text that a script would have.

Source: https://github.com/google/packetdrill, gtests/net/packetdrill/parser.y.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLAGS = {"S": 2, "F": 1, "R": 4, "P": 8, "E": 64, "W": 128, ".": 16, "U": 32}
"""Bits of the TCP header, in the order in which they are written."""

Option = tuple[Any, ...]
"""Its name, and its values."""

ICMP_TYPES = {
    4: {
        "unreachable": 3,
        "source_quench": 4,
        "time_exceeded": 11,
        "parameter_problem": 12,
    },
    6: {
        "unreachable": 1,
        "packet_too_big": 2,
        "time_exceeded": 3,
        "parameter_problem": 4,
    },
}

_UNREACHABLE_4 = (
    "net_unreachable", "host_unreachable", "protocol_unreachable", "port_unreachable",
    "frag_needed", "source_route_failed", "net_unknown", "host_unknown",
    "source_host_isolated", "net_prohibited", "host_prohibited",
    "net_unreachable_for_tos", "host_unreachable_for_tos", "packet_filtered",
)  # fmt: skip
_UNREACHABLE_6 = (
    "no_route", "admin_prohibited", "not_neighbour", "address_unreachable",
    "port_unreachable",
)  # fmt: skip

ICMP_CODES = {
    (4, "unreachable"): _UNREACHABLE_4,
    (6, "unreachable"): _UNREACHABLE_6,
    (6, "parameter_problem"): ("header_field", "unknown_next_header", "unknown_option"),
}
"""Names of codes; their place is their number."""


class ScriptError(Exception):
    """A script is not written in the language."""


@dataclass(frozen=True, kw_only=True)
class Tcp:
    """A segment in the numbers of a script."""

    flags: str
    seq: int
    length: int
    ack: int | None = None
    window: int | None = None
    """Not scaled; ``None`` is any."""
    urgent: int = 0
    options: tuple[Option, ...] | None = ()
    """``None`` is any."""

    def __str__(self) -> str:
        words = [self.flags, f"{self.seq}:{(self.end)}({self.length})"]
        words += [f"ack {self.ack}"] if self.ack is not None else []
        words += [f"win {self.window}"] if self.window is not None else []
        words += [f"urg {self.urgent}"] if self.urgent else []
        if self.options is None:
            words.append("<...>")
        elif self.options:
            words.append(f"<{','.join(map(_option_text, self.options))}>")
        return " ".join(words)

    @property
    def end(self) -> int:
        """The number behind its text."""
        return (self.seq + self.length) & 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Udp:
    """A datagram."""

    length: int

    def __str__(self) -> str:
        return f"udp ({self.length})"


@dataclass(frozen=True, kw_only=True)
class Icmp:
    """An ICMP or ICMPv6 error."""

    type: str
    code: str | None = None
    mtu: int | None = None
    quoted: tuple[int, int] | Udp | None = None
    """First sequence number and octets of text of a segment, or a datagram."""

    def __str__(self) -> str:
        words = ["icmp", self.type]
        words += [self.code] if self.code is not None else []
        words += [f"mtu {self.mtu}"] if self.mtu is not None else []
        if isinstance(self.quoted, Udp):
            words.append(f"[{self.quoted}]")
        elif self.quoted is not None:
            seq, length = self.quoted
            words.append(f"[{seq}:{(seq + length) & 0xFFFFFFFF}({length})]")
        return " ".join(words)


Packet = Tcp | Udp | Icmp


@dataclass(frozen=True, kw_only=True)
class Call:
    """A system call of the target, and what it gives."""

    name: str
    arguments: tuple[str, ...] = ()
    result: int = 0
    error: str = ""

    def __str__(self) -> str:
        if self.name == "true":
            return "`true`"
        result = f"-1 {self.error}" if self.error else str(self.result)
        return f"{self.name}({', '.join(self.arguments)}) = {result}"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happens at one time of a script."""

    line: int
    text: str
    """The line as it is written."""
    relative: bool
    """Its time counts from the event before, not from the start."""
    time: float
    until: float
    """Behind ``time`` when it may come later, too."""
    what: Packet | Call
    inbound: bool = False
    """A packet that the peer sends."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """One exchange."""

    name: str
    events: tuple[Event, ...]
    options: dict[str, str] = field(default_factory=dict)
    """``ip_version``, ``mtu``, ``tolerance_usecs``."""
    directives: dict[str, str] = field(default_factory=dict)
    """``virtual``, ``target``, ``iss``."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP that it is for."""
        version = self.options.get("ip_version")
        return (4, 6) if version is None else (int(version.removeprefix("ipv")),)


_DIRECTIVE = re.compile(r"// (virtual|target|iss): (.+)")
_OPTION = re.compile(r"--(ip_version|mtu|tolerance_usecs)=(\w+)")
_EVENT = re.compile(r"(\+?)([\d.]+)(?:~\+?([\d.]+))?\s+(.+)")
_CALL = re.compile(r"(\w+)\((.*)\)\s*=\s*(-?\d+)(?:\s+(E\w+).*)?")
_TCP = re.compile(
    r"(?P<flags>[SFRPEWU.]+|-) (?P<seq>\d+):(?P<end>\d+)\((?P<length>\d+)\)"
    r"(?: ack (?P<ack>\d+))?(?: win (?P<window>\d+))?(?: urg (?P<urgent>\d+))?"
    r"(?:\s*<(?P<options>[^>]*)>)?"
)
_UDP = re.compile(r"udp \((\d+)\)")
_ICMP = re.compile(
    r"icmp (?P<type>\w+)(?: (?P<code>(?!mtu)\w+))?(?: mtu (?P<mtu>\d+))?"
    r"(?: \[(?:(?P<seq>\d+):\d+\((?P<length>\d+)\)|udp \((?P<udp>\d+)\))\])?"
)


def read(path: Path) -> Script:
    """Read the script in a file; its name is the file's."""
    return parse(path.read_text(), path.name)


def parse(text: str, name: str) -> Script:
    """Read a script.

    Raises:
        ScriptError: where and what is not written in the language.
    """
    events: list[Event] = []
    options: dict[str, str] = {}
    directives: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if found := _DIRECTIVE.fullmatch(line):
            directives[found[1]] = found[2]
        elif found := _OPTION.fullmatch(line):
            options[found[1]] = found[2]
        elif line and not line.startswith("//"):
            try:
                events.append(_event(number, line))
            except ScriptError as exc:
                raise ScriptError(f"{name}:{number}: {exc}: {line}") from None
    return Script(name=name, events=tuple(events), options=options, directives=directives)


def _event(number: int, line: str) -> Event:
    found = _EVENT.fullmatch(line)
    if found is None:
        raise ScriptError("not a time and an event")
    relative, time, until, text = found.groups()
    is_packet = text[0] in "<>"
    return Event(
        line=number,
        text=line,
        relative=bool(relative),
        time=float(time),
        until=float(until or time),
        what=packet(" ".join(text[1:].split())) if is_packet else _call(text),
        inbound=text[0] == "<",
    )


def _call(text: str) -> Call:
    if text == "`true`":
        return Call(name="true")
    found = _CALL.fullmatch(text)
    if found is None:
        raise ScriptError("not a system call")
    name, arguments, result, error = found.groups()
    # Values of sockaddr and the like have commas of their own; nobody looks at those.
    words = tuple(word.strip() for word in arguments.split(","))
    return Call(name=name, arguments=words, result=int(result), error=error or "")


def packet(text: str) -> Packet:
    """Read a packet behind its direction."""
    if found := _UDP.fullmatch(text):
        return Udp(length=int(found[1]))
    if found := _ICMP.fullmatch(text):
        quoted: tuple[int, int] | Udp | None = None
        if found["udp"]:
            quoted = Udp(length=int(found["udp"]))
        elif found["seq"]:
            quoted = int(found["seq"]), int(found["length"])
        return Icmp(
            type=found["type"], code=found["code"], mtu=_number(found["mtu"]), quoted=quoted
        )
    found = _TCP.fullmatch(text)
    if found is None:
        raise ScriptError("not a packet")
    segment = Tcp(
        flags="".join(flag for flag in FLAGS if flag in found["flags"]) or "-",
        seq=int(found["seq"]),
        length=int(found["length"]),
        ack=_number(found["ack"]),
        window=_number(found["window"]),
        urgent=int(found["urgent"] or 0),
        options=_options(found["options"]),
    )
    if segment.end != int(found["end"]):
        raise ScriptError("its octets are not what its sequence numbers say")
    if (segment.ack is None) == ("." in segment.flags):
        raise ScriptError("ack and the flag for it go together")
    return segment


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _options(text: str | None) -> tuple[Option, ...] | None:
    if text is None:
        return ()
    if text == "...":
        return None
    return tuple(_option(word.split()) for word in text.split(","))


def _option(words: list[str]) -> Option:
    match words:
        case ["nop" | "eol" | "sackOK"]:
            return (words[0],)
        case ["mss" | "wscale", number]:
            return words[0], int(number)
        case ["TS", "val", value, "ecr", echo]:
            return "TS", int(value), int(echo)
        case ["sack", *blocks]:
            return "sack", tuple(tuple(map(int, block.split(":"))) for block in blocks)
        case ["hex", octets]:
            return "hex", octets
    raise ScriptError(f"not an option: {' '.join(words)}")


def _option_text(option: Option) -> str:
    match option:
        case ("TS", value, echo):
            return f"TS val {value} ecr {echo}"
        case ("sack", blocks):
            return " ".join(["sack", *(f"{left}:{right}" for left, right in blocks)])
    return " ".join(map(str, option))
