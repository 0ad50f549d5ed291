"""The name server of a session: the machine of ``dns/``, and whom it asks.

Questions come from the device (``local.py``), from loopback (``loopback.py``) and from the
command line; each brings a client, whose ``reply`` is called once. The cluster is asked
through the tunnel, this host's own name servers by :class:`~tunstack.upstream.Upstream`.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from tunstack.config import DnsConfig
from tunstack.dns import message as msg
from tunstack.dns.machine import CLUSTER, HOST, HOST_TIMEOUT, Ask, Job, Machine, rcode_name
from tunstack.dns.rules import Rules
from tunstack.engine.link import ResolverError
from tunstack.engine.links import Links
from tunstack.errors import TunnelError
from tunstack.upstream.upstream import Answered, NoAnswer, Upstream

MOST_ASKED = 256
"""Questions under way to either side at once; the manager takes no more. Others wait."""

_MOST_REPORTS = 1000
"""Questions that wait to be shown to one who looks."""

_SAMPLES = 1000
"""Times of answers that are kept for the percentiles."""


class Client(Protocol):
    """Whoever asked."""

    def reply(self, message: bytes) -> None:
        """Take the answer."""


class Health:
    """How the cluster's resolver is."""

    def __init__(self) -> None:
        self.server: str | None = None
        """Its address; ``None`` when the manager has not said."""
        self.asked = 0
        self.failures = 0
        self.last_failure: str | None = None
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)

    def take(self, answered: Answered) -> None:
        """Take note of an answer; one that the resolver could not give is a failure."""
        if len(answered.message) < msg.HEADER.size:
            self.failed("it says what is no DNS message", answered.server)
            return
        rcode = msg.HEADER.unpack_from(answered.message)[1] & msg.RCODE
        if rcode not in (msg.NOERROR, msg.NXDOMAIN):
            self.failed(f"it says {rcode_name(rcode)}", answered.server)
            return
        self.asked += 1
        self.server = answered.server or self.server
        self._seconds.append(answered.seconds)

    def failed(self, why: str, server: str) -> None:
        """Take note that there was none."""
        self.asked += 1
        self.failures += 1
        self.server = server or self.server
        self.last_failure = why

    def document(self) -> dict[str, Any]:
        """Make its part of the status document; seconds."""
        seconds = sorted(self._seconds)
        return {
            "address": self.server,
            "asked": self.asked,
            "failures": self.failures,
            "last_failure": self.last_failure,
            "p50": _percentile(seconds, 0.50),
            "p99": _percentile(seconds, 0.99),
        }


def _percentile(values: list[float], part: float) -> float | None:
    return values[min(int(len(values) * part), len(values) - 1)] if values else None


class _Side:
    """What is asked of one side: the silence of one must not hold up the other.

    Args:
        timeout: seconds after which nobody waits for an answer.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.tasks: set[asyncio.Task[None]] = set()
        self.backlog: deque[tuple[Ask, float]] = deque()
        """Each with the time by which nobody waits for it any more."""


class NameServer:
    """Answers questions for names.

    Args:
        links: the way to the cluster's resolver.
        config: of DNS.
        rules: whose question is it.
        upstream: this host's own name servers; ``None`` when there are none to ask.
        flush: called after answers that nobody's turn writes.
    """

    def __init__(
        self,
        links: Links,
        config: DnsConfig,
        rules: Rules,
        upstream: Upstream | None,
        flush: Callable[[], None],
    ) -> None:
        self._links = links
        self._timeout = config.lookup_timeout
        self._upstream = upstream
        self._flush = flush
        self._loop = asyncio.get_running_loop()
        self.machine = Machine(config, rules)
        self.machine.has_host = upstream is not None
        self.health = Health()
        self.observers: set[Callable[[dict[str, Any]], None]] = set()
        """Each is told of every question that was answered."""
        self._logs: set[asyncio.Event] = set()
        self._closed = False
        self._sides = {CLUSTER: _Side(config.lookup_timeout), HOST: _Side(HOST_TIMEOUT)}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._flushing = False

    def receive(self, message: bytes, client: Client, *, tcp: bool) -> bool:
        """Take what somebody sent. What is known is answered before this returns.

        Returns whether it has an answer, now or later: what is no question has none.
        """
        answered = self.machine.receive(message, client, monotonic(), tcp=tcp)
        self._carry_out()
        return answered

    async def query(self, name: str, kind: int) -> dict[str, Any]:
        """Ask a question of our own, and say how it was answered.

        Args:
            name: absolute; a dot at its end means nothing.
            kind: type of record.

        Raises:
            ValueError: it is no name.
        """
        message = msg.make_question(
            msg.wire(name), kind, dnssec=False, checking=0, edns=True
        )
        answer = _Answer(self._loop.create_future())
        self.machine.receive(message, answer, monotonic(), tcp=True)
        self._carry_out()
        reply, job = await answer.waiting
        return {**self._report(job, reply), "message": reply.hex()}

    async def log(self) -> AsyncIterator[dict[str, Any]]:
        """Give a report of every question, from now on, as it is answered, to our end.

        Whoever does not keep up misses some: ``missed`` in the next report says how many.
        """
        reports: deque[dict[str, Any]] = deque()
        arrived = asyncio.Event()
        missed = 0

        def observe(report: dict[str, Any]) -> None:
            nonlocal missed
            if len(reports) < _MOST_REPORTS:
                reports.append({**report, "missed": missed})
                missed = 0
            else:
                missed += 1
            arrived.set()

        self.observers.add(observe)
        self._logs.add(arrived)
        try:
            while not self._closed:
                await arrived.wait()
                arrived.clear()
                while reports:
                    yield reports.popleft()
        finally:
            self.observers.discard(observe)
            self._logs.discard(arrived)

    def close(self) -> None:
        """Ask no more; nobody who waits is answered."""
        self._closed = True
        for arrived in self._logs:
            arrived.set()
        if self._timer is not None:
            self._timer.cancel()
        for side in self._sides.values():
            side.backlog.clear()
            for task in side.tasks:
                task.cancel()

    # What the machine wants

    def _carry_out(self) -> None:
        for action in self.machine.take():
            if isinstance(action, Ask):
                side = self._sides[action.to]
                if len(side.tasks) < MOST_ASKED:
                    self._start(side, action)
                else:
                    side.backlog.append((action, monotonic() + side.timeout))
                continue
            client, reply, job = action
            if job is not None and self.observers:
                report = self._report(job, reply)
                for observer in tuple(self.observers):
                    observer(report)
            if isinstance(client, _Answer):
                client.take(reply, job)
            else:
                client.reply(reply)
        self._arm()

    def _start(self, side: "_Side", ask: Ask) -> None:
        task = self._loop.create_task(self._ask(ask))
        side.tasks.add(task)
        task.add_done_callback(partial(self._ended, side))

    def _ended(self, side: "_Side", task: asyncio.Task[None]) -> None:
        side.tasks.discard(task)
        while side.backlog and len(side.tasks) < MOST_ASKED:
            ask, until = side.backlog.popleft()
            if monotonic() < until:
                self._start(side, ask)

    async def _ask(self, ask: Ask) -> None:
        machine, health = self.machine, self.health
        try:
            if ask.to == CLUSTER:
                answered = await self._links.ask(ask.message, self._timeout)
                health.take(answered)
            else:
                assert self._upstream is not None
                answered = await self._upstream.ask(ask.message, HOST_TIMEOUT, tcp=ask.tcp)
        except ResolverError as error:
            health.failed(error.why, error.server)
            machine.failed(ask.number, str(error), monotonic(), error.server)
        except (TunnelError, NoAnswer) as error:
            machine.failed(ask.number, str(error), monotonic())
        else:
            machine.answered(ask.number, answered.message, monotonic(), answered.server)
        self._carry_out()
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Have the answers of this turn of the loop written together."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        if not self._closed:
            self._flush()

    def _arm(self) -> None:
        deadline = self.machine.deadline()
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(deadline - monotonic(), self._expire)
        self._timer_at = deadline

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.machine.expire(monotonic())
        self._carry_out()
        self._flush_soon()

    def _report(self, job: Job, reply: bytes) -> dict[str, Any]:
        """Say how a question was answered: for `tunstack dns query` and `dns log`."""
        rcode = msg.HEADER.unpack_from(reply)[1] & msg.RCODE
        return {
            "time": time.time(),
            "name": msg.text(job.question.name),
            "type": job.question.type,
            "rule": job.rule,
            "by": job.by,
            "rcode": rcode_name(rcode),
            "seconds": monotonic() - job.started,
            "steps": [step._asdict() for step in job.steps],
        }


class _Answer:
    """A question of our own."""

    def __init__(self, waiting: asyncio.Future[tuple[bytes, Job]]) -> None:
        self.waiting = waiting

    def take(self, reply: bytes, job: Job | None) -> None:
        """Take the answer, and how it came about."""
        assert job is not None  # our questions are questions
        if not self.waiting.done():
            self.waiting.set_result((reply, job))
