"""Measures one group, in a process that can be put into networks of its own.

``python -m tunstack.bench.worker GROUP ROUNDS SECONDS NAME...`` asks every probe that
answers for one of the names, all of them in each round: A B A B. It says one JSON object a
line: ``{"left_out": reason}``, or for each probe ``{"values", "percentiles", "done",
"of"}``, or ``{"error": {"code", "message", "hint"}}`` and nothing behind that.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tunstack.bench.kernels import kernels
from tunstack.bench.path import path, start
from tunstack.bench.probe import Probe, Unavailable
from tunstack.bench.stages import stages
from tunstack.errors import TunstackError

_GROUPS: Mapping[str, Callable[[frozenset[str]], AbstractContextManager[list[Probe]]]] = {
    "kernels": kernels,
    "stages": stages,
    "start": start,
    "path": path,
}

_WARM_UP = 0.2
"""Share of the time of a measurement that goes before all of them, unused."""


def measure(group: str, rounds: int, seconds: float, names: frozenset[str]) -> None:
    """Measure and say what was found, line by line."""
    with _GROUPS[group](names) as every:
        probes = [probe for probe in every if probe.gives & names]
        for probe in probes:
            probe.ask(seconds * _WARM_UP)
        of = rounds * len(probes)
        for done in range(of):
            figures = probes[done % len(probes)].ask(seconds)
            _say(
                values=figures.values,
                percentiles=figures.percentiles,
                done=done + 1,
                of=of,
            )


def _say(**document: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(document).encode() + b"\n")


def _interrupt(*_: object) -> None:
    """Take SIGTERM as Ctrl-C, once: what follows is the end, in order."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(group: str, rounds: str, seconds: str, *names: str) -> None:
    """Be the worker."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        measure(group, int(rounds), float(seconds), frozenset(names))
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # whoever started us has told us to end, or is no more
    except Unavailable as reason:
        _say(left_out=str(reason))
    except TunstackError as error:
        _fail(error)
    except Exception as exc:  # noqa: BLE001 - the caller has to hear of it
        _fail(TunstackError(f"{type(exc).__name__}: {exc}"))


def _fail(error: TunstackError) -> None:
    _say(error={"code": error.exit_code, "message": str(error), "hint": error.hint})


if __name__ == "__main__":
    main(*sys.argv[1:])
