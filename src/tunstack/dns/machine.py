"""The name server: questions in, answers out, and whom to ask meanwhile.

Every question becomes a :class:`Job`, which goes along its decision (``rules.py``): what
the cluster may know under which names, then this host's own name servers. Equal questions
to the cluster that are under way at once are asked once; so are equal ones to the host.

The cluster's answers are kept (``cache.py``), the host's are not: whoever kept them before
still does. An answer whose time is over is fetched anew; when that takes longer than
:data:`LATE`, or fails, the old one is given (RFC 8767, section 5). Without one, silence
becomes SERVFAIL after ``dns.lookup_timeout``, and is never kept.

The host's answers pass as they are. Its name servers are asked with the client's own
message, over what the client used.

One turn is: :meth:`Machine.receive`, :meth:`Machine.answered`, :meth:`Machine.failed` or
:meth:`Machine.expire`, then carry out :meth:`Machine.take`. All times are monotonic
seconds.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunstack.config import DnsConfig
from tunstack.dns import message as msg
from tunstack.dns.cache import Cache, Entry, Key
from tunstack.dns.message import Question
from tunstack.dns.rewrite import Alias, local, rename
from tunstack.dns.rules import Decision, Rules

LATE = 0.5
"""Seconds after which a stale answer is better than waiting. RFC 8767, section 5, has 1.8
for the Internet; the cluster is nearer."""

STALE_TTL = 1
"""Seconds that a stale answer may be kept: it is right again a second after its source.
RFC 8767 recommends 30, for sources that are hours away from being mended."""

HOST_TIMEOUT = 12.0
"""Seconds after which the host's own name servers are given up, whatever they do."""

MOST_JOBS = 4096
"""Questions that may wait for either side. More get SERVFAIL at once."""

_MOST_ALIASES = 8

CLUSTER, HOST = "cluster", "host"


class Ask(NamedTuple):
    """A question to be asked; :meth:`Machine.answered` or :meth:`Machine.failed` follow."""

    number: int
    to: str
    """:data:`CLUSTER` or :data:`HOST`."""
    message: bytes
    tcp: bool
    """Over TCP, to :data:`HOST`."""


class Reply(NamedTuple):
    """An answer to a client."""

    client: Any
    message: bytes
    job: "Job | None"
    """How it came about; ``None`` for what was no question."""


class Step(NamedTuple):
    """What one source said to a job."""

    to: str
    name: str
    seconds: float
    outcome: str
    """An RCODE, or why there is none."""
    server: str
    """Who said it; empty when not known."""


@dataclass(slots=True, eq=False)
class Job:
    """One client's question on its way."""

    client: Any
    question: Question
    tcp: bool
    started: float
    rule: str = ""
    by: str = ""
    """``cache``, ``stale``, ``cluster``, ``host``, ``settings`` or ``nobody``."""
    steps: list[Step] = field(default_factory=list)
    decision: Decision | None = None
    aliases: list[Alias] = field(default_factory=list)
    next: int = 0
    """Which of the decision's names the cluster is asked for next."""
    stale: Entry | None = None
    """What to say when the cluster does not answer."""
    failure: str = ""
    """Why the cluster did not answer."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A question under way, and who waits for the answer."""

    number: int
    started: float
    message: bytes
    key: Any
    asked: bytes
    jobs: list[Job] = field(default_factory=list)
    late: bool = False
    edns: bool = True


class Machine:
    """Answers questions for names.

    Args:
        config: ``lookup_timeout`` of it.
        rules: whose question is it; may be replaced by :meth:`follow`.
        cache: what the cluster has said.
    """

    def __init__(self, config: DnsConfig, rules: Rules, cache: Cache | None = None) -> None:
        self._timeout = config.lookup_timeout
        self._rules = rules
        self.cache = cache or Cache()
        self.has_host = True
        """This host has name servers that can be asked."""
        self.counts: Counter[str] = Counter()
        """Questions by who answered them, and what was refused by reason."""
        self._out: list[Ask | Reply] = []
        self._waiting = {CLUSTER: 0, HOST: 0}
        self._number = 0
        self._asked: dict[int, _Pending] = {}
        self._cluster: dict[Key, _Pending] = {}
        self._host: dict[tuple[bool, bytes], _Pending] = {}
        # In the order of their time, as all of a kind have as long.
        self._due: dict[str, OrderedDict[_Pending, float]] = {
            "late": OrderedDict(),
            CLUSTER: OrderedDict(),
            HOST: OrderedDict(),
        }

    def follow(self, rules: Rules) -> None:
        """Decide by other rules from here on; what was denied is asked again."""
        self._rules = rules
        self.cache.forget_denials()

    @property
    def waiting(self) -> int:
        """Count the questions that wait for somebody."""
        return sum(self._waiting.values())

    def take(self) -> list[Ask | Reply]:
        """Give what is to be done."""
        out, self._out = self._out, []
        return out

    # Questions

    def receive(self, message: bytes, client: Any, now: float, *, tcp: bool) -> bool:
        """Take what a client sent; says whether there will be a :class:`Reply`.

        Args:
            message: octets that may be a DNS message.
            client: comes back in the :class:`Reply`.
            now: the time.
            tcp: the answer may have any size.
        """
        question = msg.parse_question(message)
        if isinstance(question, int):
            self.counts["malformed"] += 1
            if question >= 0:
                reply = msg.refuse_unread(message, question)
                self._out.append(Reply(client, reply, None))
            return question >= 0
        job = Job(client, question, tcp, now)
        if question.version:
            self._refuse(job, msg.BADVERS)
        elif question.cls != msg.IN:
            job.rule = "class"
            job.decision = Decision(job.rule, host=True)
            self._advance(job, now)
        else:
            self._decide(job, question.key, now)
        return True

    def _decide(self, job: Job, key: bytes, now: float) -> None:
        decision = self._rules.decide(key)
        while decision.alias is not None and len(job.aliases) < _MOST_ALIASES:
            job.aliases.append(
                (job.question.name if not job.aliases else key, decision.alias)
            )
            key = decision.alias
            decision = self._rules.decide(key)
        job.decision = decision
        job.rule = decision.rule if not job.aliases else f"mapping, {decision.rule}"
        if decision.alias is not None:
            self._refuse(job, msg.SERVFAIL, "the mappings of the settings lead in a circle")
        elif decision.address is not None or (
            job.aliases and job.question.type == msg.CNAME
        ):
            job.by = "settings"
            made = local(job.question, job.aliases, decision.address)
            self._finish(job, msg.complete(made, job.question, age=0, ttl=None))
        elif decision.names and job.question.type in (msg.AXFR, msg.IXFR):
            self._refuse(job, msg.REFUSED, "zones are not transferred")
        else:
            self._advance(job, now)

    def _advance(self, job: Job, now: float) -> None:
        """Go on with a job: what is known, else ask."""
        assert job.decision is not None
        question, names = job.question, job.decision.names
        while job.next < len(names):
            asked = names[job.next]
            key = _key(asked, question)
            entry = self.cache.get(key, now)
            if entry is not None and entry.fresh(now):
                if entry.due(now):
                    self._ask_cluster(key, now)
                entry.used = True
                if not entry.denies or not self._goes_on(job):
                    job.by = "cache"
                    self._answer(job, entry, asked, now)
                    return
                job.next += 1
                continue
            if self._is_full(CLUSTER, job):
                return
            pending = self._ask_cluster(key, now)
            job.stale = entry
            if not (pending.late and self._waits_no_longer(job, pending, now)):
                self._waiting[CLUSTER] += 1
                pending.jobs.append(job)
            return
        self._ask_host(job, now)

    def _is_full(self, to: str, job: Job) -> bool:
        """Refuse a job where too many wait already; one side does not fill the other."""
        if self._waiting[to] < MOST_JOBS:
            return False
        self.counts["overload"] += 1
        self._refuse(job, msg.SERVFAIL, "too many questions wait")
        return True

    def _goes_on(self, job: Job) -> bool:
        """Whether somebody else may know a name that one does not."""
        assert job.decision is not None
        host = job.decision.host and self.has_host
        return host or job.next + 1 < len(job.decision.names)

    # Asking

    def _ask_cluster(self, key: Key, now: float) -> _Pending:
        pending = self._cluster.get(key)
        if pending is None:
            message = _question(key, edns=True)
            pending = self._begin(message, key, key[0], now)
            self._cluster[key] = pending
            self._due["late"][pending] = now + LATE
            self._due[CLUSTER][pending] = now + self._timeout
            self._out.append(Ask(pending.number, CLUSTER, message, False))
        return pending

    def _ask_host(self, job: Job, now: float) -> None:
        if not self.has_host:
            self._refuse(job, msg.SERVFAIL, job.failure or "this host has no name server")
            return
        if self._is_full(HOST, job):
            return
        question = job.question
        message = question.message
        name = question.name
        if job.aliases:
            name = job.aliases[-1][1]
            message = _question(_key(name, question), edns=True)
        key = job.tcp, message[2:]
        pending = self._host.get(key)
        if pending is None:
            pending = self._begin(message, key, name, now)
            self._host[key] = pending
            self._due[HOST][pending] = now + HOST_TIMEOUT
            self._out.append(Ask(pending.number, HOST, message, job.tcp))
        self._waiting[HOST] += 1
        pending.jobs.append(job)

    def _begin(self, message: bytes, key: Any, asked: bytes, now: float) -> _Pending:
        self._number += 1
        pending = _Pending(self._number, now, message, key, asked)
        self._asked[self._number] = pending
        return pending

    def _end(self, pending: _Pending) -> bool:
        """Forget that something is under way; says whether the cluster was asked."""
        del self._asked[pending.number]
        for due in self._due.values():
            due.pop(pending, None)
        cluster = self._cluster.get(pending.key) is pending
        self._waiting[CLUSTER if cluster else HOST] -= len(pending.jobs)
        del (self._cluster if cluster else self._host)[pending.key]
        return cluster

    # Answers

    def answered(self, number: int, message: bytes, now: float, server: str = "") -> None:
        """Take the answer to an :class:`Ask`.

        Args:
            number: of the question; one that is not under way any more is ignored.
            message: from whoever was asked. What does not answer the question is a
                failure.
            now: the time.
            server: who said it, for people.
        """
        pending = self._asked.get(number)
        if pending is None:
            self.counts["too-late"] += 1
        elif not msg.is_answer(message, pending.message):
            self.counts["not-the-question"] += 1
            self.failed(number, "the answer is to another question", now, server)
        elif pending.key in self._host:
            self._end(pending)
            rcode = msg.HEADER.unpack_from(message)[1] & msg.RCODE
            for job in pending.jobs:
                self._step(job, HOST, pending, rcode_name(rcode), server, now)
                self._answer_by_host(job, message, rcode, now)
        else:
            self._answered_by_cluster(pending, message, now, server)

    def _answered_by_cluster(
        self, pending: _Pending, message: bytes, now: float, server: str
    ) -> None:
        rcode = msg.HEADER.unpack_from(message)[1] & msg.RCODE
        if rcode in (msg.FORMERR, msg.NOTIMP) and pending.edns:
            # It does not know EDNS (RFC 6891, section 7): asked again without.
            pending.edns = False
            pending.message = _question(pending.key, edns=False)
            self._out.append(Ask(pending.number, CLUSTER, pending.message, False))
            return
        try:
            answer = msg.parse_answer(message)
        except ValueError as exc:
            said = f"a malformed answer: {exc}"
            if rcode in (msg.FORMERR, msg.NOTIMP):  # perhaps without the question
                said = f"the cluster's resolver says {rcode_name(rcode)}"
            self.failed(pending.number, said, now, server)
            return
        if answer.rcode not in (msg.NOERROR, msg.NXDOMAIN):
            said = f"the cluster's resolver says {rcode_name(answer.rcode)}"
            self.failed(pending.number, said, now, server)
            return
        self._end(pending)
        entry = self.cache.put(pending.key, answer, now)
        for job in pending.jobs:
            outcome = rcode_name(answer.rcode)
            self._step(job, CLUSTER, pending, outcome, server, now)
            if entry.denies and self._goes_on(job):
                job.next += 1
                self._advance(job, now)
            else:
                entry.used = True
                job.by = CLUSTER
                self._answer(job, entry, pending.asked, now)

    def failed(self, number: int, why: str, now: float, server: str = "") -> None:
        """Take that there is no answer to an :class:`Ask`, and why, for people."""
        pending = self._asked.get(number)
        if pending is None:
            return
        if not self._end(pending):
            for job in pending.jobs:
                self._step(job, HOST, pending, why, server, now)
                self._refuse(job, msg.SERVFAIL, why)
            return
        for job in pending.jobs:
            self._step(job, CLUSTER, pending, why, server, now)
            if job.stale is not None:
                self._answer_stale(job, job.stale, pending.asked, now)
            else:
                self._give_up_cluster(job, why, now)

    def _waits_no_longer(self, job: Job, pending: _Pending, now: float) -> bool:
        """Answer a job whose question is late otherwise, where that can be."""
        assert job.decision is not None
        if job.stale is None and not job.decision.shared:
            return False
        self._step(job, CLUSTER, pending, "late", "", now)
        if job.stale is not None:
            self._answer_stale(job, job.stale, pending.asked, now)
        else:
            self._give_up_cluster(job, "the cluster's resolver is late", now)
        return True

    def _give_up_cluster(self, job: Job, why: str, now: float) -> None:
        assert job.decision is not None
        job.failure = why
        if job.decision.shared:
            self._ask_host(job, now)
        else:
            self._refuse(job, msg.SERVFAIL, why)

    def _answer_by_host(self, job: Job, message: bytes, rcode: int, now: float) -> None:
        question = job.question
        answers = msg.HEADER.unpack_from(message)[3]
        if job.failure and (rcode != msg.NOERROR or not answers):
            # It may be the cluster's: whoever asks must not keep that there is none.
            self._refuse(job, msg.SERVFAIL, job.failure)
            return
        job.by = HOST
        if job.aliases:
            try:
                answer = msg.parse_answer(message)
                made = rename(answer, job.aliases[-1][1], question, job.aliases)
            except ValueError as exc:
                self._refuse(job, msg.SERVFAIL, str(exc))
                return
            self._finish(job, msg.complete(made, question, age=0, ttl=None))
            return
        self._finish(job, question.message[:2] + message[2:])

    def _answer(
        self, job: Job, entry: Entry, asked: bytes, now: float, ttl: int | None = None
    ) -> None:
        question = job.question
        try:
            if job.aliases:
                answer = rename(entry.answer, asked, question, job.aliases)
            else:
                answer = entry.view(asked, question)
        except ValueError as exc:
            self._refuse(job, msg.SERVFAIL, str(exc))
            return
        age = int(now - entry.since)
        self._finish(job, msg.complete(answer, question, age=age, ttl=ttl))

    def _answer_stale(self, job: Job, entry: Entry, asked: bytes, now: float) -> None:
        entry.used = True
        job.by = "stale"
        self._answer(job, entry, asked, now, STALE_TTL)

    def _refuse(self, job: Job, rcode: int, why: str = "") -> None:
        job.by = "nobody"
        error = {msg.SERVFAIL: msg.NETWORK_ERROR, msg.REFUSED: msg.PROHIBITED}.get(rcode)
        self._finish(job, msg.refuse(job.question, rcode, error=error, text=why))

    def _finish(self, job: Job, reply: bytes) -> None:
        self.counts[job.by] += 1
        if not job.tcp:
            reply = msg.fit(reply, job.question)
        self._out.append(Reply(job.client, reply, job))

    def _step(
        self, job: Job, to: str, pending: _Pending, outcome: str, server: str, now: float
    ) -> None:
        name = msg.text(pending.asked)
        job.steps.append(Step(to, name, now - pending.started, outcome, server))

    # Time

    def deadline(self) -> float | None:
        """Give the time by which :meth:`expire` wants to be called."""
        first = [next(iter(due.values())) for due in self._due.values() if due]
        return min(first, default=None)

    def expire(self, now: float) -> None:
        """Let what is late be late, and what is silent be silent."""
        late = self._due["late"]
        while late and next(iter(late.values())) <= now:
            pending, _ = late.popitem(last=False)
            pending.late = True
            waiting = pending.jobs
            pending.jobs = [
                job for job in waiting if not self._waits_no_longer(job, pending, now)
            ]
            self._waiting[CLUSTER] -= len(waiting) - len(pending.jobs)
        for to, whose in ((CLUSTER, "cluster's resolver"), (HOST, "host's name servers")):
            due = self._due[to]
            while due and next(iter(due.values())) <= now:
                pending = next(iter(due))
                seconds = now - pending.started
                why = f"the {whose} did not answer within {seconds:.1f} s"
                self.failed(pending.number, why, now)


def _key(name: bytes, question: Question) -> Key:
    """Give what is asked for when a question is one for another name."""
    return name, question.type, question.dnssec, question.flags & msg.CD


def _question(key: Key, *, edns: bool) -> bytes:
    name, kind, dnssec, checking = key
    return msg.make_question(name, kind, dnssec=dnssec, checking=checking, edns=edns)


def rcode_name(rcode: int) -> str:
    """Give an RCODE's name, for people."""
    names = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
    return names[rcode] if rcode < len(names) else f"RCODE {rcode}"
