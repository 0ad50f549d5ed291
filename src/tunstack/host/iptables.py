"""Overriding by the programs iptables and ip6tables, where nf_tables cannot be had.

What they make stays in the network namespace until it is removed, or until the next
boot, so each chain is recorded before.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tunstack.errors import HostError
from tunstack.host.rewrites import DNS, MARK, Rewrite

_PROGRAMS = {4: "iptables", 6: "ip6tables"}

_HOOKS = ("OUTPUT", "PREROUTING")

_WAIT = "5"
"""Seconds for the lock of xtables, which kube-proxy, for one, may hold."""

_PATH = os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/sbin"])


def network_namespace() -> int:
    """Give the number of this process's network namespace (namespaces(7))."""
    return os.stat("/proc/self/ns/net").st_ino


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours in the table nat, with the jumps into it."""

    program: str
    """``iptables`` or ``ip6tables``."""

    name: str

    namespace: int
    """Of :func:`network_namespace`, where it is."""

    def remove(self) -> bool:
        """Remove it, or what there is of it; say whether there was any.

        Raises:
            HostError: it is still there.
        """
        if not self._exists():
            return False
        for hook in _HOOKS:
            while _run(self.program, "-D", hook, "-j", self.name).returncode == 0:
                pass
        _run(self.program, "-F", self.name)
        done = _run(self.program, "-X", self.name)
        if done.returncode and self._exists():
            raise HostError(f"the chain {self.name} stays: {_complaint(done)}")
        return True

    def _exists(self) -> bool:
        return _run(self.program, "-n", "-L", self.name).returncode == 0


class Iptables:
    """The chain TUNSTACK-DEVICE in the table nat, of each IP version, once it is set.

    Args:
        device: the name of our device.
        record: called with each chain before it is made; whoever keeps the record
            removes it.
    """

    NAME = "iptables"

    def __init__(self, device: str, record: Callable[[Chain], None]) -> None:
        self._name = f"TUNSTACK-{device}"
        self._record = record
        self._chains: dict[int, Chain] = {}

    def set(self, rewrites: Sequence[Rewrite]) -> None:
        """Rewrite exactly so, in place of what is there, in one step an IP version.

        Raises:
            HostError: it was refused; what is recorded may be there.
        """
        for version, program in _PROGRAMS.items():
            wanted = [rw for rw in rewrites if rw.name_server.version == version]
            if wanted or version in self._chains:
                self._fill(version, program, wanted)

    def close(self) -> None:
        """Do nothing: the chains are recorded."""

    def _fill(self, version: int, program: str, wanted: Sequence[Rewrite]) -> None:
        if shutil.which(program, path=_PATH) is None:
            raise HostError(f"there is no program {program}")
        if version not in self._chains:
            chain = Chain(program, self._name, network_namespace())
            self._record(chain)
            self._chains[version] = chain
        # With --noflush a chain that is named is emptied, and the others stay.
        table = "\n".join(
            ["*nat", f":{self._name} -", *_rules(self._name, wanted), "COMMIT", ""]
        )
        _must(_run(f"{program}-restore", "--noflush", text=table))
        for hook in _HOOKS:
            if _run(program, "-C", hook, "-j", self._name).returncode:
                _must(_run(program, "-I", hook, "-j", self._name))


def _rules(chain: str, rewrites: Sequence[Rewrite]) -> Iterator[str]:
    yield f"-A {chain} -m mark --mark {MARK:#x} -j RETURN"
    for rewrite in rewrites:
        if rewrite.server is None:
            target = f"REDIRECT --to-ports {rewrite.port}"
        elif rewrite.server.version == 4:
            target = f"DNAT --to-destination {rewrite.server}:{rewrite.port}"
        else:
            target = f"DNAT --to-destination [{rewrite.server}]:{rewrite.port}"
        for protocol in ("udp", "tcp"):
            yield (
                f"-A {chain} -d {rewrite.name_server} "
                f"-p {protocol} --dport {DNS} -j {target}"
            )


def _run(
    program: str, *arguments: str, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    table = () if text is not None else ("-t", "nat")
    try:
        return subprocess.run(
            [program, "-w", _WAIT, *table, *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except OSError as exc:
        raise HostError(f"{program} cannot be run: {exc.strerror}") from exc


def _must(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise HostError(f"{done.args[0]} refused: {_complaint(done)}")


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())
