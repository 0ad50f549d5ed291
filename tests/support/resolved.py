"""A lab whose client has a real systemd-resolved, of its own.

``LABS`` has the program that starts one, with a D-Bus, in a mount and a network namespace.
"""

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.support.lab import Lab, Namespace, run, wait_until

LABS = Path(os.environ.get("LABS", Path(__file__).parents[3] / "shared/labs"))

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
_ROOT = _CACHE / "tunstack-labs/resolved"
"""Where that program has systemd-resolved."""

SERVER = _ROOT / "lib/systemd/systemd-resolved"

_COMMAND = "systemd-resolve"  # of 15 octets, as proc_pid_comm(5) cuts it


class Unavailable(Exception):
    """There is no systemd-resolved to be had here."""


class Resolved(Namespace):
    """A network namespace whose commands see the resolver and the D-Bus that are in it."""

    def _make(self) -> None:
        program = LABS / "with-resolved"
        if not program.exists():
            raise Unavailable(f"LABS={LABS} has no with-resolved")
        with self.log("with-resolved").open("a") as log:
            self._keeper = subprocess.Popen(
                [program, "sh", "-c", "echo $$; exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            self._keeper.wait()
            if not SERVER.exists():
                raise Unavailable("systemd-resolved cannot be downloaded")
            raise AssertionError(self.log("with-resolved").read_text())
        self.pid = int(line)
        """Of a process in the namespaces."""
        run("ip", "netns", "attach", self.name, str(self.pid))

    def close(self) -> None:
        """End every process in the namespace and remove it."""
        super().close()
        self._keeper.wait()

    def inside(self, *command: str) -> list[str]:
        """The command that runs ``command`` in it."""
        return self._entered(f"--net=/run/netns/{self.name}", *command)

    def beside(self, namespace: Namespace, *command: str) -> list[str]:
        """The same, but in another network namespace."""
        return self._entered(f"--net=/run/netns/{namespace.name}", *command)

    def _entered(self, net: str, *command: str) -> list[str]:
        path = f"PATH={_ROOT}/usr/bin:{os.environ['PATH']}"
        target = f"--target={self.pid}"
        return ["nsenter", target, "--mount", net, "--", "env", path, *command]

    def resolve_by(self, *name_servers: str, more: str = "") -> None:
        """Have resolved ask these, on the link to the gateway."""
        self.resolvectl("dns", "gateway", *name_servers)

    def resolvectl(self, *words: str) -> str:
        """Run resolvectl; gives what it says."""
        return self.run("resolvectl", *words)

    def resolver_state(self) -> str:
        """What resolved has been told of every link, as text."""
        verbs = ("dns", "domain", "default-route")
        return "\n".join(self.resolvectl(verb) for verb in verbs)

    def restart(self) -> None:
        """Kill resolved, and start one that knows of nothing."""
        for pid in self.pids():
            if Path(f"/proc/{pid}/comm").read_text().strip() == _COMMAND:
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self._is_there(), 10, "resolved is gone")
        self.run("sh", "-c", "rm -f /run/systemd/resolve/netif/*")
        self.start(str(SERVER), log="resolved")
        wait_until(self._is_there, 10, "resolved is there")

    def _is_there(self) -> bool:
        done = subprocess.run(
            self.inside("resolvectl", "dns"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
        return done.returncode == 0


class Beside(Namespace):
    """Another network namespace, whose commands see resolver and D-Bus of the first."""

    def __init__(self, name: str, logs: Path, of: Resolved) -> None:
        super().__init__(name, logs)
        self._of = of

    def inside(self, *command: str) -> list[str]:
        """The command that runs ``command`` in it."""
        return self._of.beside(self, *command)


class ResolvedLab(Lab):
    """A lab whose client is a :class:`Resolved`.

    Raises:
        Unavailable: there is none.
    """

    client: Resolved

    def _namespace(self, undo: ExitStack, place: str) -> Namespace:
        if place != "cl":
            return super()._namespace(undo, place)
        namespace = Resolved(f"{self.name}-{place}", self.logs)
        undo.callback(namespace.close)
        return namespace
