"""``tunstack demo``: the main job, in two network namespaces made for it.

The namespaces, the laptop's and the cluster's, exist by descriptors of this process
and by its children, who die with it: nothing is left behind however the demo ends.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tunstack.errors import HostError, PrivilegeError, TunnelError
from tunstack.host import namespaces, paths

_LAPTOP = "192.0.2.1"  # RFC 5737
_MANAGER = "192.0.2.2"
_SERVICE = "10.96.0.80"
_SUBNET = "10.96.0.0/12"

_OCTETS = 128 * 1024 * 1024
"""What is fetched: enough for a rate worth saying, little enough for any /tmp."""


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
        namespaces.enter(laptop)
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
            options = ["-sS", "--noproxy", "*", "--max-time", str(namespaces.PATIENCE)]
            subprocess.run(
                [curl, *options, "-o", target, url],
                check=True,
                stderr=subprocess.DEVNULL,
            )
        else:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with (
                opener.open(url, timeout=namespaces.PATIENCE) as response,
                target.open("wb") as f,
            ):
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
    """Run a server in a namespace, and show what it says first."""
    click.echo(title)
    with namespaces.running(command, environment, namespace) as (_, line):
        click.echo(f"          {line}")
        yield


def _make_namespaces() -> tuple[int, int]:
    """Make the laptop's and the cluster's namespace, and the cable between them."""
    laptop, cluster = namespaces.new(), namespaces.new()
    namespaces.cable(cluster, "eth0", laptop, "eth0")
    namespaces.configure(cluster, {"eth0": [f"{_MANAGER}/30"], "lo": [f"{_SERVICE}/32"]})
    namespaces.configure(laptop, {"eth0": [f"{_LAPTOP}/30"], "lo": []})
    return laptop, cluster
