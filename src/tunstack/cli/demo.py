"""``tunstack demo``: the main job, in two network namespaces made for it.

The namespaces, the laptop's and the cluster's, exist by descriptors of this process
and by its children, who die with it: nothing is left behind however the demo ends.
"""

import ctypes
import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunstack.errors import HostError, PrivilegeError, TunnelError
from tunstack.host import paths

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_LAPTOP = "192.0.2.1"  # RFC 5737
_MANAGER = "192.0.2.2"
_SERVICE = "10.96.0.80"
_SUBNET = "10.96.0.0/12"

_OCTETS = 128 * 1024 * 1024
"""What is fetched: enough for a rate worth saying, little enough for any /tmp."""

_PATIENCE = 60.0
"""Seconds that any step may take."""

_libc = ctypes.CDLL(None, use_errno=True)


@click.command()
def demo() -> None:
    """Show the main job with nothing set up.

    Makes two network namespaces, a laptop and a cluster. In the cluster run the real
    manager and an HTTP server that the laptop has no route to; on the laptop,
    `tunstack connect` and a download. Exit 0 only if the bytes came back right.
    """
    if os.geteuid() != 0:
        raise PrivilegeError("only root may make network namespaces")
    name = f"demo-{os.getpid()}"
    with tempfile.TemporaryDirectory() as directory:
        _play(Path(directory), name)
    paths.log_file(name).unlink()  # of use only when it went wrong


def _play(directory: Path, name: str) -> None:
    served = directory / "www"
    served.mkdir()
    wanted = _make_content(served / "content")
    laptop, cluster = _make_namespaces()
    click.echo(
        f"# a laptop at {_LAPTOP}; a cluster with a manager at {_MANAGER}, and a"
        f" service at {_SERVICE} that the laptop has no route to"
    )
    python = [sys.executable, "-P"]
    server = [*python, "-u", "-m", "http.server", "--bind", _SERVICE]
    server += ["--directory", str(served), "80"]
    tunstack = [*python, "-m", "tunstack.cli.main"]
    manager = ["manager", "--insecure", "--listen", f"{_MANAGER}:7777"]
    connect = ["connect", "--foreground", "--insecure", "--manager", f"{_MANAGER}:7777"]
    # The caller's own sessions and settings have nothing to do with this.
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(directory),
        "XDG_CONFIG_HOME": str(directory),
    }
    with (
        _running("cluster$ python -m http.server", server, cluster, environment),
        _running(
            f"cluster$ tunstack {' '.join(manager)} --subnet {_SUBNET}",
            [*tunstack, *manager, "--subnet", _SUBNET],
            cluster,
            environment,
        ),
    ):
        _enter(laptop)
        if _fetch(directory / "before") is not None:
            raise HostError("the service was there before the tunnel was")
        click.echo("          unreachable, as it should be")
        with _running(
            f"laptop$  tunstack {' '.join(connect)}",
            [*tunstack, *connect, "--name", name],
            laptop,
            environment,
        ):
            seconds = _fetch(directory / "after")
            if seconds is None:
                raise TunnelError("the service was not there through the tunnel")
            got = _hash(directory / "after")
            if got != wanted:
                raise TunnelError(f"the bytes came back wrong: SHA-256 {got}, not {wanted}")
            rate = _OCTETS * 8 / seconds / 1e9
            click.echo(
                f"          {_OCTETS} octets in {seconds:.2f} s, {rate:.1f} Gbit/s,"
                " SHA-256 equal"
            )
    devices = {name for _, name in socket.if_nameindex()}
    if devices != {"lo", "eth0"}:
        raise HostError(f"disconnected, but these are left: {', '.join(devices)}")
    click.echo("# disconnected: the device and its routes are gone")


def _make_content(path: Path) -> str:
    """Write what is to be fetched; returns its hash."""
    with path.open("wb") as file:
        for _ in range(_OCTETS // 2**20):
            file.write(os.urandom(2**20))
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(target: Path) -> float | None:
    """Fetch the content from this namespace; the seconds it took, or ``None``."""
    url = f"http://{_SERVICE}/content"
    curl = shutil.which("curl")
    click.echo(f"laptop$  {'curl' if curl else 'python: urlopen'} {url}")
    started = time.monotonic()
    try:
        if curl:
            options = ["-sS", "--noproxy", "*", "--max-time", str(_PATIENCE)]
            subprocess.run(
                [curl, *options, "-o", target, url],
                check=True,
                stderr=subprocess.DEVNULL,
            )
        else:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=_PATIENCE) as response, target.open("wb") as f:
                shutil.copyfileobj(response, f)
    except (OSError, subprocess.CalledProcessError):
        return None
    return time.monotonic() - started


@contextmanager
def _running(
    title: str,
    command: list[str],
    namespace: int,
    environment: dict[str, str],
) -> Iterator[None]:
    """Run a server in a namespace: from its first line on, until SIGTERM ended it."""
    click.echo(title)

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        _enter(namespace)

    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            env=environment,
            preexec_fn=prepare,  # safe: there is only this thread
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
            line = process.stdout.readline().decode().strip() if ready else ""
            if not line:
                errors.seek(0)
                raise HostError(f"{title}: {errors.read().decode().strip() or 'silent'}")
            click.echo(f"          {line}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _make_namespaces() -> tuple[int, int]:
    """Make the laptop's and the cluster's namespace, and the cable between them."""
    from pyroute2 import IPRoute

    laptop = _new_namespace()
    cluster = _new_namespace()
    with IPRoute() as netlink:
        peer = {"ifname": "eth0", "net_ns_fd": laptop}
        netlink.link("add", ifname="eth0", kind="veth", peer=peer)
        _set_up(netlink, "eth0", f"{_MANAGER}/30")
        _set_up(netlink, "lo", f"{_SERVICE}/32")
    _enter(laptop)
    with IPRoute() as netlink:
        _set_up(netlink, "eth0", f"{_LAPTOP}/30")
        _set_up(netlink, "lo", None)
    return laptop, cluster


def _set_up(netlink: "IPRoute", device: str, address: str | None) -> None:
    (index,) = netlink.link_lookup(ifname=device)
    netlink.link("set", index=index, state="up")
    if address is not None:
        host, _, length = address.partition("/")
        netlink.addr("add", index=index, address=host, prefixlen=int(length))


def _new_namespace() -> int:
    """Move this process into a network namespace of its own; returns its descriptor."""
    if _libc.unshare(_CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        raise HostError(
            f"no network namespace can be made: {reason}",
            hint="a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN for it",
        )
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
