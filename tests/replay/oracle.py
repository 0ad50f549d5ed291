"""Reassembly by tshark: what both ends sent in each TCP stream of a capture.

tshark takes a quarter of a second a file, so what it says of the shared captures is kept in
``tshark.json``. ``python -m tests.replay.oracle`` writes that anew.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16

_FIELDS = (
    "tcp.stream",
    "ip.src",
    "ipv6.src",
    "tcp.srcport",
    "ip.dst",
    "ipv6.dst",
    "tcp.dstport",
    "tcp.flags",
    "tcp.len",
    "frame.len",
    "frame.cap_len",
)


HERE = Path(__file__).parent

KEPT = HERE / "tshark.json"


@dataclass
class Conversation:
    """A stream as tshark numbers them."""

    client: str
    server: str
    answered: bool = False
    finished: bool = False
    reset: bool = False
    whole: bool = True
    text: bytes = b""
    """The client's."""
    answer: bytes = b""
    """The server's."""
    answer_whole: bool = True

    @property
    def complete(self) -> bool:
        """Whether all that the client sent, from its SYN to an end, was captured."""
        return self.answered and (self.finished or self.reset) and self.whole

    def document(self) -> dict[str, object]:
        """Give the part of ``tshark.json``; the answer only if there is all of it."""
        return {
            "client": self.client,
            "server": self.server,
            "to_cluster": _digest(self.text),
            "to_host": _digest(self.answer) if self.answer_whole else None,
        }


def complete(path: Path) -> list[dict[str, object]]:
    """Give the complete streams of a capture."""
    return [each.document() for each in conversations(path) if each.complete]


def conversations(path: Path) -> list[Conversation]:
    """Give the streams that begin with a SYN in the capture."""
    found: dict[str, Conversation] = {}
    early: set[tuple[str, str]] = set()
    for line in _tshark(path, "-T", "fields", *_each("-e", _FIELDS)).splitlines():
        fields = dict(zip(_FIELDS, line.split("\t"), strict=True))
        # A packet inside an ICMP error is a second value.
        if not fields["tcp.stream"] or "," in line:
            continue
        source = _endpoint(fields, "src")
        destination = _endpoint(fields, "dst")
        flags = int(fields["tcp.flags"], 16)
        known = found.get(fields["tcp.stream"])
        if known is None:
            if flags & (_SYN | _ACK) == _SYN:
                found[fields["tcp.stream"]] = known = Conversation(source, destination)
                known.answered = (source, destination) in early
            elif flags & _SYN:
                early.add((destination, source))
            continue
        known.reset |= bool(flags & _RST)
        short = fields["frame.len"] != fields["frame.cap_len"]
        if source == known.server:
            known.answered |= bool(flags & _SYN)
            known.answer_whole &= not short
        else:
            known.finished |= bool(flags & _FIN)
            known.whole &= not short
            # Who took the reset, and when, decides whether this counts; tshark cannot say.
            known.whole &= not (known.reset and fields["tcp.len"] != "0")
    if found:
        _follow(path, found)
    return list(found.values())


def _follow(path: Path, found: dict[str, Conversation]) -> None:
    streams = _each("-z", [f"follow,tcp,raw,{number}" for number in found])
    number = ""
    nodes: dict[str, str] = {}
    for line in _tshark(path, "-q", *streams).splitlines():
        if line.startswith("Filter: tcp.stream eq "):
            number = line.split()[-1]
        elif line.startswith("Node "):
            name, _, where = line.partition(": ")
            nodes[name] = where
        elif line and line.strip("\t0123456789abcdef") == "":
            node = "Node 1" if line.startswith("\t") else "Node 0"
            from_client = nodes[node] == found[number].client
            _add(found[number], bytes.fromhex(line.strip()), from_client)


def _add(conversation: Conversation, text: bytes, from_client: bool) -> None:
    gap = text.startswith(b"[") and text.endswith(b" bytes missing in capture file]\0")
    if from_client:
        conversation.whole &= not gap
        conversation.text += text
    else:
        conversation.answer_whole &= not gap
        conversation.answer += text


def _digest(text: bytes) -> dict[str, object]:
    return {"octets": len(text), "sha256": hashlib.sha256(text).hexdigest()[:16]}


def _endpoint(fields: dict[str, str], side: str) -> str:
    port = fields[f"tcp.{side}port"]
    if fields[f"ip.{side}"]:
        return f"{fields[f'ip.{side}']}:{port}"
    return f"[{fields[f'ipv6.{side}']}]:{port}"


def _each(option: str, values) -> Iterator[str]:
    for value in values:
        yield from (option, value)


def _tshark(path: Path, *arguments: str) -> str:
    process = subprocess.run(
        ["tshark", "-n", "-r", path, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return process.stdout


def main() -> None:
    from tests.replay.golden import CAPTURES, FILES

    kept = {}
    for name in FILES:
        path = CAPTURES / name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        kept[name] = {"sha256": digest, "streams": complete(path)}
    lines = (f"{json.dumps(name)}: {json.dumps(of)}" for name, of in kept.items())
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
