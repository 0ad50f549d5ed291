"""What the cluster's resolver has said, for as long as it may be kept, and for longer.

Denials have the time of RFC 2308, section 5. What is out of date stays for the day on
which nobody answers (RFC 8767). Bounded by entries and octets; the one not used for
longest goes first.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from tunstack.dns.message import NXDOMAIN, Answer, Question
from tunstack.dns.rewrite import rename

Key = tuple[bytes, int, bool, int]
"""Name in small letters, type, DO, CD."""

MOST_ENTRIES = 10_000
MOST_OCTETS = 16 * 1024 * 1024

MOST_STALE = 86_400.0
"""Seconds after its time that an answer is of use (RFC 8767, section 5)."""

PREFETCH = 0.1
"""What is left of an answer's time when one that is asked for again is fetched anew."""

_VIEWS = 4
"""Names that an answer is kept renamed to."""


@dataclass(slots=True)
class Entry:
    """An answer, and since when."""

    answer: Answer
    since: float
    used: bool = False
    views: dict[bytes, Answer] = field(default_factory=dict)

    @property
    def denies(self) -> bool:
        """There is no such name."""
        return self.answer.rcode == NXDOMAIN

    def fresh(self, now: float) -> bool:
        """Whether its time is not over."""
        return now < self.since + self.answer.ttl

    def due(self, now: float) -> bool:
        """Whether it should be fetched anew, as it is in use and its time soon over."""
        return self.used and now > self.since + self.answer.ttl * (1 - PREFETCH)

    def view(self, asked: bytes, question: Question) -> Answer:
        """Give it as an answer to a question for another name than was asked for.

        Raises:
            ValueError: see :func:`~.rewrite.rename`.
        """
        if asked == question.key:
            return self.answer
        found = self.views.get(question.key)
        if found is None:
            found = rename(self.answer, asked, question, ())
            if len(self.views) < _VIEWS:
                self.views[question.key] = found
        return found


class Cache:
    """Answers by what was asked.

    Args:
        most_entries: how many.
        most_octets: in their messages.
    """

    def __init__(
        self, most_entries: int = MOST_ENTRIES, most_octets: int = MOST_OCTETS
    ) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._most_entries = most_entries
        self._most_octets = most_octets
        self.octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Entry | None:
        """Give what is known, fresh or stale."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.since + entry.answer.ttl + (0 if entry.denies else MOST_STALE):
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, answer: Answer, now: float) -> Entry:
        """Keep an answer, unless it may not be kept at all; returns it as an entry."""
        if key in self._entries:
            self._remove(key)
        entry = Entry(answer, now)
        if answer.ttl:
            self._entries[key] = entry
            self.octets += len(answer.body)
            while len(self) > self._most_entries or self.octets > self._most_octets:
                self._remove(next(iter(self._entries)))
        return entry

    def forget_denials(self) -> None:
        """Forget what there was not: now there may be."""
        for key in [key for key, entry in self._entries.items() if entry.denies]:
            self._remove(key)

    def _remove(self, key: Key) -> None:
        self.octets -= len(self._entries.pop(key).answer.body)
