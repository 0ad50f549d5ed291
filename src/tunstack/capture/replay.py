"""Captured packets through the stack, in the time of their capture.

Whoever began a conversation in the capture is our host: its packets go into the stack.
What the other side answered is what the cluster says: it goes in where a manager's frames
would. What the stack then sends is counted; the host it is for has said all it will say.

TCP is followed from a SYN on; segments of a connection that had begun before are only
counted. Segments that came in IP fragments go in as they are: what they acknowledge is not
translated, so only a SYN means something that way.
"""

from pathlib import Path

from tunstack import _fastpath
from tunstack.capture import link, vouched
from tunstack.capture.reader import CaptureError, Frame, frames
from tunstack.capture.report import Report
from tunstack.capture.stream import ServerText, Stream
from tunstack.config import TcpConfig
from tunstack.stack import seq
from tunstack.stack.events import Event, What
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import ACK, FIN, RST, SYN, Connection
from tunstack.wire import icmp
from tunstack.wire import key as flow_key
from tunstack.wire.frame import Refusal
from tunstack.wire.record import Record, Verdict

_TCP, _UDP = 6, 17

MTU = 65_520
"""What `connect` gives a device."""

LONGEST_GAP = 120.0
"""Seconds between two frames; a longer one is taken for this. What the stack waits for is
over by then, and a forged time stamp costs no more."""

EARLY = 1024
"""SYN-ACKs kept for a SYN that was captured after them."""


def replay(path: Path, *, ignore_checksums: bool = False) -> Report:
    """Replay one capture file.

    Args:
        path: of a pcap or pcapng file.
        ignore_checksums: count the verdicts of a device with offload, where the kernel
            vouches for checksums. Streams are driven that way in any case.

    A file that cannot be read to its end is no exception: the report is of what comes
    before, and has the error.
    """
    player = Player(Report(path), ignore_checksums=ignore_checksums)
    try:
        for frame in frames(path):
            player.play(frame)
    except CaptureError as error:
        player.report.error = error
    player.report.drops = player.stack.drops
    return player.report


class Player:
    """A stack, and the two sides of a capture around it."""

    def __init__(self, report: Report, *, ignore_checksums: bool = False) -> None:
        self.report = report
        config = TcpConfig()
        self.stack = Stack(mtu=MTU, vnet=vouched.VNET, config=config, secret=bytes(16))
        self._credit = config.receive_buffer
        self._ignore_checksums = ignore_checksums
        self._now = 0.0
        self._time: float | None = None
        """When the last frame was captured."""
        self._streams: dict[bytes, Stream] = {}
        """The latest of each flow key."""
        self._early: dict[bytes, tuple[bytearray, Record]] = {}
        self._asked: set[bytes] = set()
        """Keys of the datagrams and echo requests that the stack delivered."""
        self._pairs: set[bytes] = set()
        """Source and destination, 32 octets, of the first packet between two addresses."""

    def play(self, frame: Frame) -> None:
        """Take the next frame."""
        report = self.report
        report.frames += 1
        report.links[link.NAMES[frame.link]] = None
        packet = link.ip_packet(frame.link, frame.octets)
        if packet is None:
            report.others += 1
            return
        report.octets += len(packet)
        if frame.time is not None:
            self._wait_until(frame.time)
        driven = vouched.vouch(packet)
        (record,) = _fastpath.parse_batch(driven, len(driven), [len(driven)], vouched.VNET)
        (strict,) = _fastpath.parse_batch(packet, len(packet), [len(packet)], 0)
        verdict = strict[8]
        if verdict == Verdict.BAD_CHECKSUM and self._ignore_checksums:
            verdict = record[8]
        report.verdicts[Verdict(verdict).reason] += 1
        self._dispatch(driven, record)

    def _dispatch(self, packet: bytearray, record: Record) -> None:
        verdict, key = record[8], record[11]
        if verdict not in (Verdict.DELIVER, Verdict.FRAGMENT):
            return
        from_host = key[17:33] + key[1:17] not in self._pairs
        if from_host:
            self._pairs.add(key[1:33])
        if verdict == Verdict.FRAGMENT:
            if from_host:
                self._feed(packet)
        elif key[0] == _TCP:
            self._segment(packet, record)
        elif key[0] == _UDP:
            self._datagram(packet, record)
        else:
            self._echo(packet, record)

    def _segment(self, packet: bytearray, record: Record) -> None:
        key, flags = record[11], record[9]
        streams, answered = self._streams, flow_key.reverse(key)
        if answered in streams and key not in streams:
            self._server_segment(streams[answered], packet, record)
        elif flags & (SYN | ACK | RST) == SYN:
            known = streams.get(key)
            self._feed(packet)
            stream = streams.get(key)
            if stream is None:
                return  # too many already
            stream.note(packet, record)
            early = self._early.pop(key, None)
            if stream is not known and early is not None:
                self._server_segment(stream, *early)
        elif key in streams:
            streams[key].note(packet, record)
            streams[key].translate(packet, record)
            self._feed(packet)
        elif flags & (SYN | ACK) == SYN | ACK and len(self._early) < EARLY:
            self._early[answered] = packet, record
        else:
            self.report.outside += 1

    def _server_segment(self, stream: Stream, packet: bytearray, record: Record) -> None:
        """What the recorded server sent is what the cluster says."""
        number, acknowledged, flags = record[0], record[1], record[9]
        connection, stack = stream.connection, self.stack
        if stream.reset_by is not None:
            return
        answers = flags & ACK and stream.answers(acknowledged)
        if stream.answer is None:
            if flags & RST and answers:
                stack.refuse(connection, Refusal.REFUSED)
                stream.end("cluster")
            elif flags & SYN and (answers or not flags & ACK):
                stream.answer = ServerText(number)
                stack.opened(connection, self._credit)
        elif flags & RST and stream.answer.position(number) == stream.answer.next:
            stack.reset(connection, self._now)
            stream.end("cluster")
        if stream.answer is not None and not flags & RST:
            text = bytes(packet[record[4] : record[5]])
            number += flags & SYN and 1
            ready = stream.answer.add(number & seq.MASK, text, bool(flags & FIN))
            if ready:
                stack.send(connection, memoryview(ready))
            if stream.answer.finished and not stream.cluster_finished:
                stream.cluster_finished = True
                stack.finish(connection)
        self._turn()

    def _datagram(self, packet: bytearray, record: Record) -> None:
        answered = flow_key.reverse(record[11])
        if answered in self._asked:
            self.report.datagram_answers += 1
            self.stack.datagram(answered, bytes(packet[record[4] : record[5]]))
            self._turn()
        else:
            self._feed(packet)

    def _echo(self, packet: bytearray, record: Record) -> None:
        kind, key = record[9], record[11]
        if kind == icmp.ECHO_REQUEST[key[0]]:
            self._feed(packet)
        elif kind == icmp.ECHO_REPLY[key[0]]:
            # The identifier keeps its place.
            answered = key[:1] + key[17:33] + key[1:17] + key[33:]
            if answered in self._asked:
                self.report.echo_answers += 1
                data = bytes(packet[record[4] : record[5]])
                self.stack.echo_reply(answered, record[0], data)
                self._turn()

    def _feed(self, packet: bytearray) -> None:
        self.stack.receive(packet, len(packet), [len(packet)], self._now)
        self._turn()

    def _wait_until(self, time: float) -> None:
        """Let as much time pass as between the last frame and one captured at ``time``."""
        since = time if self._time is None else self._time
        self._time = time
        until = self._now + min(max(time - since, 0.0), LONGEST_GAP)
        while (at := self.stack.deadline()) is not None and at <= until:
            self._now = max(self._now, at)
            self.stack.expire(self._now)
            self._turn(silent=True)
        self._now = until

    def _turn(self, *, silent: bool = False) -> None:
        """Take what the stack says to the cluster and to the host.

        Args:
            silent: a timer went off; if the stack gives up now, nobody has asked it to.
        """
        for event in self.stack.take_events():
            self._handle(event, "silence" if silent else "host")
        for pieces in self.stack.output(self._now):
            packet = b"".join(pieces)
            (record,) = _fastpath.parse_batch(
                packet, len(packet), [len(packet)], vouched.VNET
            )
            verdict, key = record[8], record[11]
            assert verdict <= Verdict.FRAGMENT, (
                f"the stack made a {Verdict(verdict).reason}"
            )
            stream = self._streams.get(flow_key.reverse(key))
            if stream is not None:
                answer = stream.sent(packet, record)
                if answer is not None:
                    self._feed(answer)

    def _handle(self, event: Event, by: str) -> None:
        report, what = self.report, event[0]
        if what is What.OPEN:
            connection: Connection = event[1]
            stream = connection.context = Stream(connection)
            self._streams[connection.key] = stream
            report.streams.append(stream)
        elif what is What.DATA:
            _, connection, memory, start, end = event
            connection.context.to_cluster.add(memoryview(memory)[start:end])
            self.stack.grant(connection, end - start)
        elif what is What.FIN:
            event[1].context.end(None)
        elif what is What.RESET:
            event[1].context.end(by)
        elif what is What.DATAGRAM:
            _, key, memory, start, end, _ = event
            report.datagram_count += 1
            report.datagrams.add(memoryview(memory)[start:end])
            self._asked.add(key)
        elif what is What.ECHO:
            report.echo_requests += 1
            self._asked.add(event[1])
