"""One stream to a manager: hello, welcome, what both say then, goodbye.

A stream does not know the session that it carries on with, only whom to tell
(:class:`Session`). It measures the round trip, and gives itself up when the manager
says nothing for too long.
"""

import asyncio
import logging
import time
from collections import deque
from typing import Protocol

from google.protobuf.message import DecodeError

from tunstack._version import PROTOCOL, PROTOCOL_MINIMUM
from tunstack.errors import AuthError, TunnelError, TunstackError
from tunstack.mux.session import Mux
from tunstack.rpc import envelope
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import MAX_RECEIVE, Channel, Loss, Message

_log = logging.getLogger(__name__)

OUTBOX = 1024
"""Messages beside frames that may wait. A manager that leaves more does not read."""

RTT_SAMPLES = 8
"""The best of so many round trips counts: the others waited behind something."""

_NEWER = "use a client and a manager whose versions are nearer to each other"


class ViolationError(Exception):
    """The manager broke the protocol: how, in one line."""


class Session(Protocol):
    """What a stream tells of what the manager said.

    The first four raise :class:`ViolationError` when it makes no sense.
    """

    mux: Mux

    def welcomed(self, stream: "Stream", welcome: pb.Welcome) -> None:
        """Go on with this stream, or begin."""

    def frames_received(self, frames: bytes | memoryview) -> None:
        """Take a batch of frames."""

    def turn_ended(self) -> None:
        """Do what is left to do behind all frames that came together."""

    def cluster_received(self, info: pb.ClusterInfo) -> None:
        """Take what the cluster is now."""

    def namespaces_changed(self, change: pb.NamespacesChange) -> None:
        """Take what namespaces there are now."""

    def answer_received(self, answer: pb.DnsAnswer) -> None:
        """Take the answer to a question."""

    def drain_received(self, reason: str) -> None:
        """The manager is about to go."""

    def over(self) -> None:
        """No stream can go on with this session."""


class Stream:
    """The handler of one stream.

    Args:
        channel: its transport.
        session: told what arrives.
        hello: the first message.
        keepalive: seconds of silence after a ping that mean that nobody is there.
    """

    def __init__(
        self, channel: Channel, session: Session, hello: pb.Hello, keepalive: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._session = session
        self._keepalive = keepalive
        self._outbox = deque((pb.FromClient(hello=hello).SerializeToString(),))
        self._goodbye: bytes | None = None
        self._heard = True
        self._pings = 0
        self._pinged_at = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._rtts: deque[float] = deque(maxlen=RTT_SAMPLES)
        self._over = False
        self._open = False
        self.reason: TunstackError | None = None
        """Why the stream ended."""
        self.welcomed: asyncio.Future[None] = self._loop.create_future()
        """Done when the manager said welcome; fails with :attr:`reason` otherwise."""
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing is left of the stream."""

    @property
    def peer(self) -> str:
        """The manager's address, for people."""
        return self._channel.peer

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip; ``None`` before the first."""
        return min(self._rtts, default=None)

    def wake(self) -> None:
        """Say that the mux may have something to send."""
        self._channel.wake()

    def say(self, message: pb.FromClient) -> None:
        """Send a message beside the frames."""
        if self._over:
            return
        if len(self._outbox) >= OUTBOX:
            self.abort(TunnelError(f"{self.peer} leaves {OUTBOX} messages unread"))
            return
        self._outbox.append(message.SerializeToString())
        self._channel.wake()

    def leave(self, code: "pb.Code", text: str) -> None:
        """Say goodbye behind the frames that wait, which ends the session too."""
        self._end(TunnelError(text))
        self._say_goodbye(code, text)

    def abort(self, reason: TunstackError) -> None:
        """End the stream now; the session may go on with another."""
        self._end(reason)
        self._channel.abort()

    def _end(self, reason: TunstackError) -> None:
        """Listen no more."""
        if self._over:
            return
        self._over = True
        self.reason = reason
        if self._tick is not None:
            self._tick.cancel()
        if not self.welcomed.done():
            self.welcomed.set_exception(reason)
            # Whoever connected may have lost interest, and that is no bug.
            self.welcomed.exception()

    # What the transport says

    def next_message(self) -> Message | None:
        """Give what is to be said next."""
        if self._outbox:
            return self._outbox.popleft()
        if self._open:
            frames = self._session.mux.next_frames()
            if frames is not None:
                return envelope.frames(frames)
        goodbye, self._goodbye = self._goodbye, None
        return goodbye

    def message_received(self, message: bytes | memoryview) -> None:
        """Take one message of the manager."""
        if self._over:
            return
        self._heard = True
        frames = envelope.unwrap(message)
        try:
            if len(message) > MAX_RECEIVE:
                raise ViolationError(
                    f"a message of {len(message)} octets: at most {MAX_RECEIVE}"
                )
            if frames is not None and self._open:
                self._session.frames_received(frames)
            else:
                self._take(message)
        except ViolationError as violation:
            text = f"{self.peer} broke the protocol: {violation}"
            self._give_up(TunnelError(text))
            self._say_goodbye(pb.CODE_PROTOCOL, str(violation))

    def turn_ended(self) -> None:
        """All messages that came together have been received."""
        if self._open:
            self._session.turn_ended()

    def channel_lost(self, loss: Loss) -> None:
        """The stream is gone."""
        self._open = False
        hint = "this is not a traffic manager" if loss.refused else None
        self._end(TunnelError(f"the manager at {self.peer}: {loss.reason}", hint=hint))
        self.gone.set_result(None)

    # What the manager says

    def _take(self, message: bytes | memoryview) -> None:
        try:
            said = pb.FromManager.FromString(bytes(message))
        except DecodeError:
            raise ViolationError("a message that is not protobuf") from None
        body = said.WhichOneof("body")
        if body == "goodbye":
            self._take_goodbye(said.goodbye)
        elif body == "welcome":
            self._take_welcome(said.welcome)
        elif not self._open:
            raise ViolationError("something else came before the welcome")
        elif body == "frames":
            self._session.frames_received(said.frames)
        elif body == "ping":
            self.say(pb.FromClient(pong=said.ping))
        elif body == "pong":
            self._take_pong(said.pong)
        elif body == "dns_answer":
            self._session.answer_received(said.dns_answer)
        elif body == "cluster":
            self._session.cluster_received(said.cluster)
        elif body == "namespaces_change":
            self._session.namespaces_changed(said.namespaces_change)
        elif body == "drain":
            _log.warning("%s will go: %s", self.peer, said.drain.reason)
            self._session.drain_received(said.drain.reason)
        else:
            raise ViolationError("a message without content")

    def _take_welcome(self, welcome: pb.Welcome) -> None:
        if self._open:
            raise ViolationError("a second welcome")
        if not PROTOCOL_MINIMUM <= welcome.protocol <= PROTOCOL:
            text = (
                f"the manager speaks protocol {welcome.protocol},"
                f" this client {PROTOCOL_MINIMUM} to {PROTOCOL}"
            )
            self._give_up(TunnelError(text, hint=_NEWER))
            self._say_goodbye(pb.CODE_VERSION, text)
            return
        self._session.welcomed(self, welcome)
        self._open = True
        self.welcomed.set_result(None)
        self._check()
        self._channel.wake()

    def _take_goodbye(self, goodbye: pb.Goodbye) -> None:
        self._give_up(_error(self.peer, goodbye))
        self._channel.close()

    def _give_up(self, reason: TunstackError) -> None:
        """Listen no more, and have the session end if it ran on this stream."""
        self._end(reason)
        if self._open:
            self._open = False
            self._session.over()

    def _say_goodbye(self, code: "pb.Code", text: str) -> None:
        goodbye = pb.Goodbye(code=code, reason=text)
        self._goodbye = pb.FromClient(goodbye=goodbye).SerializeToString()
        self._channel.close()

    def _take_pong(self, pong: pb.Ping) -> None:
        if pong.number == self._pings:
            # Not the loop's own time, which uvloop has in whole milliseconds.
            self._rtts.append(time.monotonic() - self._pinged_at)

    def _check(self) -> None:
        """Ask whether the manager is there, unless it left the last time unanswered."""
        if not self._heard:
            error = TunnelError(
                f"{self.peer} has said nothing for {self._keepalive:g} s (tunnel.keepalive)"
            )
            self.abort(error)
            return
        self._heard = False
        self._pings += 1
        self._pinged_at = time.monotonic()
        self.say(pb.FromClient(ping=pb.Ping(number=self._pings)))
        self._tick = self._loop.call_later(self._keepalive, self._check)


def _error(peer: str, goodbye: pb.Goodbye) -> TunstackError:
    """Say what a goodbye means to whoever wants a session."""
    text = f"the manager at {peer} said goodbye: {goodbye.reason or 'no reason given'}"
    if goodbye.code in (pb.CODE_UNAUTHENTICATED, pb.CODE_FORBIDDEN):
        return AuthError(text, hint="give a token that the manager knows: --token-file")
    if goodbye.code == pb.CODE_VERSION:
        return TunnelError(text, hint=_NEWER)
    return TunnelError(text, hint="see the manager's log")
