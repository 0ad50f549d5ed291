"""Networks made for a program of ours, which nobody else has.

A namespace lives by its descriptors and by the processes in it, and those die with this
one: nothing is left behind however it ends. The kernel moves one thread at a time
(namespaces(7)), so all of this is for programs that have no other.
"""

import ctypes
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunstack.errors import HostError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# linux/sched.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

PATIENCE = 60.0
"""Seconds that a program may take to begin, or to end."""

_libc = ctypes.CDLL(None, use_errno=True)


def become_root() -> None:
    """Move into a user namespace, and be root there: user_namespaces(7).

    What is made from here on belongs to it, network namespaces too. There is no way back.

    Raises:
        HostError: this kernel does not let such a user do that.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(_CLONE_NEWUSER)
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            Path("/proc/self", file).write_text(text)
    except OSError as exc:
        raise HostError(f"no user namespace can be made: {exc.strerror}") from exc


def new() -> int:
    """Move into a new network namespace; gives its descriptor.

    Raises:
        HostError: it takes more rights.
    """
    try:
        _unshare(_CLONE_NEWNET)
    except OSError as exc:
        raise HostError(
            f"no network namespace can be made: {exc.strerror}",
            hint="a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN for it",
        ) from exc
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(namespace: int) -> None:
    """Move into a network namespace."""
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def cable(one: int, device: str, other: int, peer: str) -> None:
    """Join two namespaces by a pair of devices; moves into the first."""
    from pyroute2 import IPRoute

    enter(one)
    with IPRoute() as netlink:
        end = {"ifname": peer, "net_ns_fd": other}
        netlink.link("add", ifname=device, kind="veth", peer=end)


def configure(
    namespace: int,
    devices: Mapping[str, Sequence[str]],
    routes: Iterable[tuple[str, str]] = (),
) -> None:
    """Set devices up; moves into their namespace.

    Args:
        namespace: descriptor.
        devices: by name, each with its addresses as ``ADDRESS/LENGTH``.
        routes: networks, each with its gateway.
    """
    from pyroute2 import IPRoute

    enter(namespace)
    with IPRoute() as netlink:
        for device, addresses in devices.items():
            _set_up(netlink, device, addresses)
        for network, gateway in routes:
            netlink.route("add", dst=network, gateway=gateway)


def _set_up(netlink: "IPRoute", device: str, addresses: Sequence[str]) -> None:
    (index,) = netlink.link_lookup(ifname=device)
    netlink.link("set", index=index, state="up")
    for address in addresses:
        host, _, length = address.partition("/")
        netlink.addr("add", index=index, address=host, prefixlen=int(length))


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    namespace: int | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server: from the first line it says on, until SIGTERM has ended it.

    Args:
        command: program and arguments.
        environment: its variables.
        namespace: where it runs, if not here.

    Gives the process and that line.

    Raises:
        HostError: it ended or said nothing; with what it had to complain of.
    """

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if namespace is not None:
            enter(namespace)

    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            env=dict(environment),
            preexec_fn=prepare,  # safe: there is only this thread
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            line = process.stdout.readline().decode().strip() if ready else ""
            if not line:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip() or "silent"
                raise HostError(f"{' '.join(command)}: {said}")
            yield process, line
        finally:
            end(process, PATIENCE)


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask a process to end, and kill it when it has not within ``patience`` seconds."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
