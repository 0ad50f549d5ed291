"""Runs groups of benchmarks one after the other, each in a process of its own."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunstack import _fastpath
from tunstack._version import PRODUCT
from tunstack.bench.probe import Figures
from tunstack.bench.result import SCHEMA, Document, summarize
from tunstack.bench.rows import GROUPS, Row
from tunstack.config import Config
from tunstack.errors import TunstackError, from_code
from tunstack.host.namespaces import end

ROUNDS = 5
SECONDS = 0.2
"""Of one measurement: with all of them a run takes less than a minute."""

_PATIENCE = 10.0
"""Seconds that a worker may take to end."""


@dataclass
class Run:
    """A run, while it lasts and at its end.

    Args:
        rows: what is to be measured.
    """

    rows: Sequence[Row]
    done: float = 0.0
    """Share of it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by row."""

    def __post_init__(self) -> None:
        self._rounds: dict[str, list[Figures]] = {}

    def results(self) -> list[Document]:
        """Give the rows that there are figures of so far."""
        found = (summarize(row, self._rounds.get(row.group, ())) for row in self.rows)
        return [row for row in found if row is not None]

    def document(self) -> Document:
        """Give the document of ``bench --json``."""
        return {
            "schema": SCHEMA,
            "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "version": PRODUCT,
            "machine": machine(),
            "rows": self.results(),
            "left_out": [
                {"name": name, "reason": reason} for name, reason in self.left_out.items()
            ],
        }

    def measure(
        self,
        report: Callable[["Run"], None] = lambda _: None,
        *,
        rounds: int = ROUNDS,
        seconds: float = SECONDS,
    ) -> None:
        """Measure all of them.

        Args:
            report: called whenever there is something new.
            rounds: how often each is asked, in turns with its ceiling.
            seconds: that each of those takes.

        Raises:
            WrongAnswer: what came back was not what was sent.
            TunstackError: a benchmark has failed.
        """
        groups = [group for group in GROUPS if any(row.group == group for row in self.rows)]
        for number, group in enumerate(groups):
            rows = [row for row in self.rows if row.group == group]
            of_round = self._rounds[group] = [Figures({}, {}) for _ in range(rounds)]
            with _worker(group, rounds, seconds, rows) as said:
                for message in said:
                    if "left_out" in message:
                        self.left_out |= {row.name: message["left_out"] for row in rows}
                        break
                    done, of = message["done"], message["of"]
                    at = (done - 1) * rounds // of
                    of_round[at] = _join(of_round[at], message)
                    self.done = (number + done / of) / len(groups)
                    report(self)


def _join(figures: Figures, message: dict[str, Any]) -> Figures:
    return Figures(
        {**figures.values, **message["values"]},
        {**figures.percentiles, **message["percentiles"]},
    )


@contextmanager
def _worker(
    group: str, rounds: int, seconds: float, rows: Sequence[Row]
) -> Iterator[Iterator[dict[str, Any]]]:
    """Start a worker; gives what it says, and ends it whatever happens."""
    names = {name for row in rows for name in (row.name, row.against) if name}
    command = [sys.executable, "-P", "-m", "tunstack.bench.worker", group]
    command += [str(rounds), str(seconds), *sorted(names)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Ctrl-C is for us, who then tell it: it has children to end in order.
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield map(_understand, process.stdout)
            code = process.wait(_PATIENCE)
            if code:
                raise TunstackError(f"the benchmarks of {group} ended with code {code}")
        finally:
            end(process, _PATIENCE)


def _understand(line: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(line)
    error = message.get("error")
    if error is not None:
        raise from_code(error["code"], error["message"], error["hint"])
    return message


def machine() -> dict[str, Any]:
    """Say what figures depend on, beside the version of tunstack."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "fastpath": _fastpath.NAME,
        "transport": Config().tunnel.transport,
        "user": "root" if os.geteuid() == 0 else "not root",
    }


def _cpu() -> str:
    """Name the processor: proc_cpuinfo(5), which has no name on every architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
