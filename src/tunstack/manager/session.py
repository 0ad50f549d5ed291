"""One client: what it says, what is said to it, and what of it outlives a stream.

A stream begins at the :class:`Reception`, which takes the hello. The :class:`Session`
that it leads to holds the flows. When a stream breaks, the session stays for a while:
its flows live, and stop by themselves where the client's credit ends. A client that
comes back in time with the session's secret goes on where it was.
"""

import asyncio
import hmac
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable

from google.protobuf.message import DecodeError

from tunstack.manager.config import ManagerConfig
from tunstack.manager.dialer import Dialer
from tunstack.manager.poller import Poller
from tunstack.manager.target import Target
from tunstack.mux.session import Flow, Mux
from tunstack.rpc import envelope
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import MAX_RECEIVE, Channel, Loss, Message
from tunstack.upstream.upstream import NoAnswer, Upstream
from tunstack.wire.frame import Kind, Refusal

_log = logging.getLogger(__name__)

_OPEN = Kind.OPEN
"""To name a member through its class is a call in Python 3.11."""

SECRET = 32
"""Octets that prove a session to be one's own."""

OUTBOX = 1024
"""Messages beside frames that may wait for a client. It does not read if there are more."""

PATIENCE = 4.0
"""Seconds that a DNS question may take whose client says nothing about it."""

MOST_PATIENCE = 30.0
"""Seconds that a DNS question may take whatever its client says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the sessions of one manager have in common."""

    config: ManagerConfig
    loop: asyncio.AbstractEventLoop
    poller: Poller
    dialer: Dialer
    resolver: Upstream


class Session:
    """What the manager keeps for one client.

    Args:
        shared: what sessions have in common.
        ended: called once, when it is over.
    """

    def __init__(self, shared: Shared, ended: Callable[["Session"], None]) -> None:
        self.id = os.urandom(16)
        self.config = shared.config
        self.loop = shared.loop
        self.poller = shared.poller
        self.mux = Mux(client=False, unacknowledged=shared.config.unacknowledged)
        self.targets: set[Target] = set()
        self.spans: list[int] = []
        self._held: list[Target] = []
        self._secret = os.urandom(SECRET)
        self._dialer = shared.dialer
        self._resolver = shared.resolver
        self._ended = ended
        self._channel: Channel | None = None
        self._outbox: deque[bytes] = deque()
        self._questions: set[asyncio.Task[None]] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._draining = False
        self._over = False
        self._goodbye: bytes | None = None
        self._version = 0

    def __str__(self) -> str:
        return f"session {self.id[:4].hex()}"

    # Its streams

    def attach(self, channel: Channel, welcome: pb.Welcome) -> None:
        """Go on with a stream, instead of the one before if there is one.

        Args:
            channel: whose client has proved to be this session's.
            welcome: completed here with what proves this session, and sent.
        """
        if self._channel is not None:
            self._channel.hand_over(Nobody())
            self._channel.abort()
        if self._patience is not None:
            self._patience.cancel()
        _log.info("%s: %s", self, channel.peer)
        self._channel = channel
        channel.hand_over(self)
        self._version = welcome.protocol
        welcome.session = self.id
        welcome.secret = self._secret
        welcome.received = self.mux.received
        self._outbox.clear()
        self._say(pb.FromManager(welcome=welcome))

    def resumable(self, resume: pb.Resume) -> bool:
        """Whether who asks to go on is this session's client, and can."""
        return hmac.compare_digest(resume.secret, self._secret) and self.mux.resume(
            resume.received
        )

    def channel_lost(self, loss: Loss) -> None:
        """The stream is gone: wait for the client to come back."""
        self._channel = None
        if self._over:
            return
        _log.info("%s: %s; waiting for it to come back", self, loss.reason)
        self._patience = self.loop.call_later(self.config.resume, self._expire)

    def _expire(self) -> None:
        self.end(pb.CODE_LIMIT, "the client did not come back")

    def next_message(self) -> Message | None:
        """Give what is to be said next."""
        if self._outbox:
            return self._outbox.popleft()
        frames = self.mux.next_frames()
        if frames is not None:
            if self._held:
                held, self._held = self._held, []
                for target in held:
                    target.release()
            return envelope.frames(frames)
        goodbye, self._goodbye = self._goodbye, None
        return goodbye

    def tell(self, news: Sequence[pb.FromManager]) -> None:
        """Say what is new of the cluster.

        Args:
            news: by version of the protocol, from 1; the last is for all above, too.
        """
        self._say(news[min(self._version, len(news)) - 1])

    def _say(self, message: pb.FromManager) -> None:
        if self._channel is None:
            return
        if len(self._outbox) >= OUTBOX:
            self.end(pb.CODE_LIMIT, f"the client leaves {OUTBOX} messages unread")
            return
        self._outbox.append(message.SerializeToString())
        self._channel.wake()

    # Its end

    def drain(self, seconds: float) -> None:
        """Take no new flows, and ask the client to go elsewhere."""
        self._draining = True
        drain = pb.Drain(timeout=int(seconds * 1000), reason="the manager is going away")
        self._say(pb.FromManager(drain=drain))

    def end(self, code: "pb.Code", reason: str) -> None:
        """Say goodbye behind what waits to be sent, and close the flows."""
        if self._over:
            return
        _log.info("%s: over: %s", self, reason)
        self._over = True
        goodbye = pb.Goodbye(code=code, reason=reason)
        self._goodbye = pb.FromManager(goodbye=goodbye).SerializeToString()
        for task in self._questions:
            task.cancel()
        for target in list(self.targets):
            target.abandon()
        if self._patience is not None:
            self._patience.cancel()
        if self._channel is not None:
            self._channel.close()
        self._ended(self)

    # What the client says

    def message_received(self, message: bytes | memoryview) -> None:
        """Take one message of the stream."""
        if self._over:
            return
        if len(message) > MAX_RECEIVE:
            self._violated(f"a message of {len(message)} octets: at most {MAX_RECEIVE}")
            return
        frames = envelope.unwrap(message)
        if frames is None:
            self._take(message)
            return
        for kind, flow, value in self.mux.receive(frames):
            owner = flow.owner
            if owner is not None:
                owner.flow_event(kind, flow, value)
            elif kind is _OPEN:  # else it has ended a moment ago
                self._open(flow)
        if self.mux.violation is not None:
            self._violated(self.mux.violation)

    def _take(self, message: bytes | memoryview) -> None:
        """Take a message of which not all is known to be frames."""
        try:
            said = pb.FromClient.FromString(bytes(message))
        except DecodeError:
            self._violated("a message that is not protobuf")
            return
        body = said.WhichOneof("body")
        if body == "frames":
            # Encoded in another way than everybody does: once more, as they do.
            self.message_received(b"".join(envelope.frames(said.frames)))
        elif body == "ping":
            self._say(pb.FromManager(pong=said.ping))
        elif body == "dns_question":
            self._take_question(said.dns_question)
        elif body == "goodbye":
            self.end(pb.CODE_CLOSED, said.goodbye.reason or "the client said goodbye")
        elif body != "pong":
            self._violated("a second hello" if body else "a message without content")

    def flush(self) -> None:
        """Send what sockets have received so far in this turn."""
        spans, self.spans = self.spans, []
        self.mux.send(self.poller.arena, spans)

    def turn_ended(self) -> None:
        """Say what a turn led to: messages that came together, or sockets."""
        if self.spans:
            self.flush()
        if self.mux.pending and self._channel is not None:
            self._channel.wake()

    def _violated(self, how: str) -> None:
        self.end(pb.CODE_PROTOCOL, how)

    def _open(self, flow: Flow) -> None:
        limit = self.config.flows_per_session
        if self._draining:
            self.mux.refuse(flow, Refusal.LIMIT, "the manager is going away")
        elif len(self.targets) >= limit:
            text = f"a session may have {limit} flows and no more"
            self.mux.refuse(flow, Refusal.LIMIT, text)
        else:
            self._dialer.open(self, flow)

    def hold(self, target: Target) -> None:
        """Read no more from a target until the transport asks for what was read."""
        self._held.append(target)

    def acquired(self, target: Target) -> None:
        """Take note of a target."""
        self.targets.add(target)
        self._dialer.acquired(target)

    def released(self, target: Target) -> None:
        """Take note that a target has closed its socket."""
        self.targets.discard(target)
        self._dialer.released(target)

    def _take_question(self, question: pb.DnsQuestion) -> None:
        limit = self.config.questions_per_session
        if len(self._questions) >= limit:
            error = f"{limit} questions are unanswered"
            answer = pb.DnsAnswer(id=question.id, error=error)
            self._say(pb.FromManager(dns_answer=answer))
            return
        task = self.loop.create_task(self._answer(question))
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _answer(self, question: pb.DnsQuestion) -> None:
        timeout = min(question.timeout / 1000 or PATIENCE, MOST_PATIENCE)
        try:
            answered = await self._resolver.ask(question.message, timeout)
            answer = pb.DnsAnswer(
                id=question.id,
                message=answered.message,
                server=answered.server,
                elapsed=int(answered.seconds * 1e6),
            )
        except NoAnswer as exc:
            answer = pb.DnsAnswer(id=question.id, error=str(exc), server=exc.server)
        self._say(pb.FromManager(dns_answer=answer))


class Nobody:
    """The handler of a stream that another has replaced: nobody wants what it says."""

    def message_received(self, message: bytes | memoryview) -> None:
        """Take a message, for nothing."""

    def turn_ended(self) -> None:
        """Do nothing."""

    def next_message(self) -> Message | None:
        """Have nothing to say."""
        return None

    def channel_lost(self, loss: Loss) -> None:
        """It had to end."""


Verdict = pb.Goodbye | None
"""Why somebody is not let in; ``None`` lets in."""


class Reception:
    """The first handler of a stream: takes the hello, and leads to its session.

    That is the handler from then on.

    Args:
        channel: of the stream.
        examine: says whether who says a hello is let in; that may take its time.
        admit: gives the session that the hello leads to, or the goodbye instead.
        left: called once, when the hello has come or will not come.
        patience: seconds for the hello.
    """

    def __init__(
        self,
        channel: Channel,
        examine: Callable[[pb.Hello], Verdict | Awaitable[Verdict]],
        admit: Callable[[pb.Hello, Channel], Session | pb.Goodbye],
        left: Callable[["Reception"], None],
        patience: float,
    ) -> None:
        self._channel = channel
        self._examine = examine
        self._admit = admit
        self._left = left
        self._examination: asyncio.Future[Verdict] | None = None
        self._goodbye: bytes | None = None
        self._waiting = True
        self._deadline = asyncio.get_running_loop().call_later(patience, self._no_hello)

    def message_received(self, message: bytes | memoryview) -> None:
        """Take the hello; everything behind it is the session's."""
        if not self._waiting:
            return
        if self._examination is not None:
            self.refuse(pb.CODE_PROTOCOL, "something came before the welcome")
            return
        try:
            said = pb.FromClient.FromString(bytes(message))
        except DecodeError:
            said = pb.FromClient()
        if said.WhichOneof("body") != "hello":
            self.refuse(pb.CODE_PROTOCOL, "the first message is not a hello")
            return
        verdict = self._examine(said.hello)
        if isawaitable(verdict):
            self._examination = asyncio.ensure_future(verdict)
            self._examination.add_done_callback(partial(self._examined, said.hello))
        else:
            self._decide(said.hello, verdict)

    def _examined(self, hello: pb.Hello, verdict: asyncio.Future[Verdict]) -> None:
        if not verdict.cancelled():
            self._decide(hello, verdict.result())

    def _decide(self, hello: pb.Hello, verdict: Verdict) -> None:
        admitted = verdict or self._admit(hello, self._channel)
        if isinstance(admitted, Session):
            self._leave()
        else:
            self.refuse(admitted.code, admitted.reason)

    def turn_ended(self) -> None:
        """Nothing is done for several messages at once."""

    def next_message(self) -> Message | None:
        """Give the goodbye, if it comes to that."""
        goodbye, self._goodbye = self._goodbye, None
        return goodbye

    def channel_lost(self, loss: Loss) -> None:
        """The stream is gone."""
        self._leave()

    def refuse(self, code: "pb.Code", reason: str) -> None:
        """Say goodbye instead of welcome."""
        _log.info("%s: refused: %s", self._channel.peer, reason)
        goodbye = pb.Goodbye(code=code, reason=reason)
        self._goodbye = pb.FromManager(goodbye=goodbye).SerializeToString()
        self._leave()
        self._channel.close()

    def _no_hello(self) -> None:
        self.refuse(pb.CODE_LIMIT, "no hello came in time")

    def _leave(self) -> None:
        if self._waiting:
            self._waiting = False
            self._deadline.cancel()
            if self._examination is not None:
                self._examination.cancel()
            self._left(self)
