"""One recorded TCP connection, and its double in the stack.

The double has the client's sequence numbers and others than the recorded server's. So what
the client acknowledged is moved by the difference; nothing else of its segments changes.
"""

import hashlib
import heapq
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address

from tunstack.capture import vouched
from tunstack.stack import seq
from tunstack.stack.tcp import ACK, FIN, PSH, RST, SYN, Connection
from tunstack.wire import key as flow_key
from tunstack.wire.record import Record

MAX_HELD = 4 * 1024 * 1024
"""Octets of the server's kept per connection until what precedes them comes."""

MAX_SEGMENTS = 4096
"""Segments with them."""

_END, _NOP, _SACK = 0, 1, 5
_BLOCK = 8
_NUMBER = struct.Struct("!I")
_NUMBERS = struct.Struct("!II")


class Digest:
    """How many octets passed, and which."""

    def __init__(self) -> None:
        self.octets = 0
        self._hash = hashlib.sha256()

    def add(self, octets: bytes | memoryview) -> None:
        """Take the next octets."""
        self.octets += len(octets)
        self._hash.update(octets)

    def __str__(self) -> str:
        return f"{self.octets} octets ({self._short()})" if self.octets else "nothing"

    def document(self) -> dict[str, object]:
        """Give the count, and the first 16 digits of the SHA-256."""
        return {"octets": self.octets, "sha256": self._short()}

    def _short(self) -> str:
        return self._hash.hexdigest()[:16]


class ServerText:
    """The recorded server's text in order, from segments in any.

    Positions count from its initial sequence number, and do not wrap.
    """

    def __init__(self, isn: int) -> None:
        self.isn = isn
        self.next = 1
        self._held: list[tuple[int, bytes]] = []
        self._octets = 0
        self._fin: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the FIN has come, and all before it."""
        return self._fin == self.next

    def position(self, number: int) -> int:
        """Give the position nearest to the next that a sequence number can mean."""
        return unwrap(number, self.isn, self.next)

    def add(self, number: int, text: bytes, fin: bool) -> bytes:
        """Take a segment; gives what is new and in order."""
        at = self.position(number)
        if fin:
            self._fin = at + len(text)
        room = len(self._held) < MAX_SEGMENTS and self._octets + len(text) <= MAX_HELD
        if at + len(text) > self.next and (at <= self.next or room):
            heapq.heappush(self._held, (at, text))
            self._octets += len(text)
        ready = b""
        while self._held and self._held[0][0] <= self.next:
            at, text = heapq.heappop(self._held)
            self._octets -= len(text)
            ready += text[self.next - at :]
            self.next = max(self.next, at + len(text))
        return ready


class Stream:
    """What the capture showed of a connection, and what became of it in the stack.

    Args:
        connection: the double, which the stack has just made of the client's SYN.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.to_cluster = Digest()
        self.to_host = Digest()
        self.retransmissions = 0
        """Of the recorded client's."""
        self.resent = 0
        """Octets that the double has sent again."""
        self.answer: ServerText | None = None
        """Once it has answered the SYN."""
        self.host_finished = False
        self.cluster_finished = False
        self.reset_by: str | None = None
        """``host``, ``cluster``, or ``silence`` when the stack gave it up."""
        self.complete = False
        """Whether all the text of the client's arrived, up to its FIN or to a reset."""
        self._isn = connection.rcv.irs
        self._seen = 1
        """Position behind the last of the client's text."""
        self._iss: int | None = None
        """The double's, once it has answered."""
        self._sent = 1
        """Position behind the last that it sent."""
        self._syn: tuple[bytearray, int] | None = None
        """The client's SYN if it has text, and where its options are."""

    def answers(self, acknowledged: int) -> bool:
        """Whether a number acknowledges the client's SYN, with or without its text."""
        return 1 <= unwrap(acknowledged, self._isn, 1) <= self._seen

    def note(self, packet: bytearray, record: Record) -> None:
        """See a segment of the client's: what text has it?"""
        number, start, end, flags = record[0], record[4], record[5], record[9]
        if start == end or flags & RST:
            return
        if flags & SYN:
            number = seq.add(number, 1)
            if self._iss is None:
                self._syn = packet[:], record[3]
        last = unwrap(number, self._isn, self._seen) + end - start
        if last <= self._seen:
            self.retransmissions += 1
        self._seen = max(self._seen, last)

    def translate(self, packet: bytearray, record: Record) -> None:
        """Make a segment of the client's acknowledge what the double has sent."""
        flags, options, start = record[9], record[3], record[4]
        if self._iss is None or self.answer is None or not flags & ACK:
            return
        position = self.answer.position(record[1])
        # The client may have got what the capture lacks, or what waits for its window.
        acknowledged = seq.add(self._iss, min(position, self._sent))
        _NUMBER.pack_into(packet, options - 12, acknowledged)
        for at in _sack_edges(packet, options, start):
            (edge,) = _NUMBER.unpack_from(packet, at)
            moved = seq.add(self._iss, self.answer.position(edge))
            _NUMBER.pack_into(packet, at, moved)

    def sent(self, packet: bytes, record: Record) -> bytearray | None:
        """See a segment of the double's.

        Returns what the client sends in answer and the capture does not have: the text of
        its SYN, which the server took and the double did not (RFC 7413, section 4.2).
        """
        number, start, end, flags = record[0], record[4], record[5], record[9]
        if flags & SYN:
            self._iss = number
            return self._syn_text()
        if self._iss is None or flags & RST:
            return None
        at = unwrap(number, self._iss, self._sent)
        last = at + end - start
        if at <= self._sent < last:
            self.to_host.add(packet[start + self._sent - at : end])
        self.resent += max(0, min(self._sent, last) - at)
        self._sent = max(self._sent, last + (flags & FIN))
        return None

    def _syn_text(self) -> bytearray | None:
        """Make a third segment of a SYN that has text."""
        if self._syn is None:
            return None
        assert self._iss is not None
        packet, options = self._syn
        self._syn = None
        packet[options - 7] = PSH | ACK
        _NUMBERS.pack_into(
            packet, options - 16, seq.add(self._isn, 1), seq.add(self._iss, 1)
        )
        return packet

    def end(self, by: str | None) -> None:
        """The double is over, or its host sends no more; what came is all there was?"""
        self.complete = self.answer is not None and self.to_cluster.octets == self._seen - 1
        if by is None:
            self.host_finished = True
        else:
            self.reset_by = by

    def __str__(self) -> str:
        notes = [self.how]
        if self.complete:
            notes.append("complete")
        if self.retransmissions:
            notes.append(f"{self.retransmissions} sent again")
        if self.resent:
            notes.append(f"{self.resent} octets of the answer sent again")
        return (
            f"{self.client} -> {self.server}: {self.to_cluster} out, {self.to_host} in,"
            f" {', '.join(notes)}"
        )

    def document(self) -> dict[str, object]:
        """Give the part of the report."""
        return {
            "client": self.client,
            "server": self.server,
            "end": self.how,
            "complete": self.complete,
            "to_cluster": self.to_cluster.document(),
            "to_host": self.to_host.document(),
            "retransmissions": self.retransmissions,
            "resent": self.resent,
        }

    @property
    def client(self) -> str:
        """Address and port that were captured."""
        key = self.connection.key
        return _endpoint(key[1:17], flow_key.ports(key)[0])

    @property
    def server(self) -> str:
        """The same of the server."""
        key = self.connection.key
        return _endpoint(key[17:33], flow_key.ports(key)[1])

    @property
    def how(self) -> str:
        """How it ended, if it did."""
        if self.reset_by is not None:
            if self.reset_by == "silence":
                return "given up"
            refused = self.answer is None and self.reset_by == "cluster"
            return "refused" if refused else f"reset by {self.reset_by}"
        if self.answer is None:
            return "unanswered"
        if self.host_finished and self.cluster_finished:
            return "finished"
        if self.host_finished or self.cluster_finished:
            return f"finished by {'host' if self.host_finished else 'cluster'}"
        return "open"


def unwrap(number: int, isn: int, near: int) -> int:
    """Give the position, counted from ``isn``, nearest to ``near`` that a number means."""
    ahead = seq.sub(number, seq.add(isn, near & seq.MASK))
    return near + (ahead if ahead < 1 << 31 else ahead - (1 << 32))


def _sack_edges(packet: bytearray, at: int, end: int) -> Iterator[int]:
    """Give the offsets of the edges of the blocks that a segment's options tell of."""
    while at + 1 < end and packet[at] != _END:
        if packet[at] == _NOP:
            at += 1
            continue
        length = packet[at + 1]
        if length < 2 or at + length > end:
            return
        if packet[at] == _SACK and length % _BLOCK == 2:
            yield from range(at + 2, at + length, _NUMBER.size)
        at += length


def _endpoint(address: bytes, port: int) -> str:
    host = IPv6Address(vouched.recorded(address))
    return f"[{host}]:{port}" if host.ipv4_mapped is None else f"{host.ipv4_mapped}:{port}"
