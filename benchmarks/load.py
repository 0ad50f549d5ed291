"""Applications at both ends of a path: ``load.c``, in the namespaces of a lab.

A load generator in Python would need more of the machine than the tunnel that it loads.
"""

import functools
import json
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab import V4, Lab

GIB = 1 << 30

Result = dict[str, float]


@functools.cache
def program() -> Path:
    """Compile it, once a process."""
    kept = tempfile.TemporaryDirectory(prefix="tunstack-load-")
    program.kept = kept  # type: ignore[attr-defined]
    built = Path(kept.name, "load")
    source = Path(__file__).with_name("load.c")
    subprocess.run(["cc", "-std=gnu11", "-O2", source, "-o", built], check=True)
    return built


class Load:
    """A server in the lab's server, and clients of it in the lab's client."""

    def __init__(self, lab: Lab) -> None:
        self._client = lab.client
        self.process = lab.server.start(
            str(program()), "serve", log="load", stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().removeprefix("ready ").strip()

    def words(self, what: str, *options: float) -> list[str]:
        """The command of a client."""
        return [str(program()), what, V4.server, self.port, *map(str, options)]

    def __call__(self, what: str, *options: float) -> Result:
        """Run a client to its end."""
        result: Result = json.loads(self._client.run(*self.words(what, *options)))
        return result

    @contextmanager
    def hold(self, count: int):
        """Keep so many connections open; they must all answer in the end."""
        client = subprocess.Popen(
            self._client.inside(*self.words("hold", count)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "held\n"
        yield
        client.stdin.close()
        assert client.stdout.readline() == f"answered {count}\n"
        client.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, all its threads: ``/proc/PID/task/TID/schedstat``."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) * 1e-9
