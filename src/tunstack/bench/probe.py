"""What a group of benchmarks gives to be asked in turns.

Figures are in SI units without prefixes: bit/s, seconds, how many a second.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunstack.errors import HostError, TunstackError


class Unavailable(HostError):
    """This machine or this user cannot have a group of benchmarks; the rest can run."""


class WrongAnswer(TunstackError):
    """What came back is not what was sent: there is no figure then."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one measurement gave, by name."""

    values: Mapping[str, float]
    percentiles: Mapping[str, list[float]] = field(default_factory=dict)
    """From the 1st to the 99th, in seconds: how round trips are spread."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement."""

    gives: frozenset[str]
    """The names that it answers for."""
    ask: Callable[[float], Figures]
    """Measures for about so many seconds."""


def probe(name: str, ask: Callable[[float], float]) -> Probe:
    """Make a probe that answers for one name."""
    return Probe(frozenset({name}), lambda seconds: Figures({name: ask(seconds)}))


def spread(times: Sequence[float], p50: str, p99: str) -> Figures:
    """Say how the seconds of round trips are spread.

    Args:
        times: of all of them.
        p50: the name of what half of them stayed under.
        p99: of what all but one in a hundred did.
    """
    if len(times) == 1:
        cuts = [*times] * 99
    else:
        cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Figures({p50: cuts[49], p99: cuts[98]}, {p50: cuts})


def repeat(step: Callable[[], int], seconds: float) -> float:
    """Repeat a step for so long; gives how many a CPU second of what it says it did.

    For what only computes: it says the same on a machine that does other things, too.
    """
    done = 0
    began = time.process_time()
    until = time.perf_counter() + seconds
    while not done or time.perf_counter() < until:
        done += step()
    return done / (time.process_time() - began)


def expect(condition: bool, what: str) -> None:
    """Refuse a wrong answer.

    Raises:
        WrongAnswer: the condition does not hold.
    """
    if not condition:
        raise WrongAnswer(f"a wrong answer, so there is no figure: {what}")
