"""``tunstack connect``."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tunstack.cli import caller, kubernetes, leftovers, sessions, settings
from tunstack.cli.launch import Daemons
from tunstack.config import Config, plain
from tunstack.engine.control import Client, Document
from tunstack.errors import (
    ConfigError,
    NotConnected,
    PrivilegeError,
    TunstackError,
    UsageError,
)

_SLACK = 10.0
"""Seconds that the engine may take to load, beside what its own steps may take."""


@click.command()
@click.option(
    "--manager",
    metavar="HOST:PORT",
    help="A manager reached directly, without Kubernetes.",
)
@kubernetes.options
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="The bearer token that the manager wants.",
)
@click.option(
    "--tls-ca",
    type=click.Path(path_type=Path),
    help="PEM of the authorities to trust instead of the system's.",
)
@click.option("--insecure", is_flag=True, help="Plaintext, and no token.")
@click.option(
    "--also-proxy",
    multiple=True,
    metavar="CIDR",
    help="Networks beside the cluster's; repeatable, or separated by commas.",
)
@click.option(
    "--never-proxy",
    multiple=True,
    metavar="CIDR",
    help="Networks that stay out; repeatable, or separated by commas.",
)
@click.option("--device", metavar="NAME", help="Name of the TUN device.  [default: ts0]")
@click.option("--mtu", type=int, help="Octets in one packet.  [default: 65520]")
@click.option("--no-offload", is_flag=True, help="Plain packets of at most the MTU.")
@sessions.name_option
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C, then undo.")
@click.option(
    "--no-dns",
    is_flag=True,
    help="Leave this host's resolver alone.",
)
@click.option("--verbose", is_flag=True, help="Show each step and its time.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD ...]")
def connect(
    manager: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    manager_namespace: str | None,
    token_file: Path | None,
    tls_ca: Path | None,
    insecure: bool,
    also_proxy: tuple[str, ...],
    never_proxy: tuple[str, ...],
    device: str | None,
    mtu: int | None,
    no_offload: bool,
    name: str,
    foreground: bool,
    no_dns: bool,
    verbose: bool,
    command: tuple[str, ...],
) -> None:
    """Connect this computer to a cluster.

    The cluster is the one that kubectl would talk to, unless --manager names another way.
    Returns when its networks are routed and its names resolve here. With a command
    behind `--` it runs that, disconnects, and exits with its code.
    """
    options = kubernetes.said(kubeconfig, context, namespace, manager_namespace)
    said = options | {
        "tunnel.manager": manager,
        "routing.also_proxy": ",".join(also_proxy) or None,
        "routing.never_proxy": ",".join(never_proxy) or None,
        "routing.device": device,
        "routing.mtu": mtu,
        "routing.offload": False if no_offload else None,
        "dns.mode": "none" if no_dns else None,
    }
    said = {key: value for key, value in said.items() if value is not None}
    if manager is not None and options:
        raise UsageError(
            "--manager goes without Kubernetes, and its options", hint="leave out either"
        )
    config = settings.load(said).config
    # Kubernetes' options win over an address that is not on the command line.
    direct = not options and config.tunnel.manager is not None
    if insecure and (token_file is not None or tls_ca is not None):
        raise UsageError(
            "--insecure means plaintext and no token",
            hint="leave out --insecure, or --token-file and --tls-ca",
        )
    if not direct and (token_file is not None or tls_ca is not None):
        raise UsageError(
            "--token-file and --tls-ca are for a manager reached directly",
            hint="say --manager HOST:PORT; through Kubernetes neither is needed",
        )
    who = caller.find()
    if not direct:
        # Here, because a manager reached directly needs neither YAML nor TLS.
        from tunstack.cli import cluster

        config = cluster.load(said, who).config
    with who.rights():
        token = None if token_file is None else _read_token(token_file)
        ca = None if tls_ca is None else _read(tls_ca)
    request: Document = {
        "settings": plain(config),
        "token": token,
        "ca": ca,
        "insecure": insecure,
        "hold": foreground or bool(command),
        "kubernetes": None,
    }
    if os.geteuid() != 0:
        raise PrivilegeError(
            "only root may open a device and set routes", hint="run it with sudo"
        )
    # Before names are looked up: this host's resolver may be one that was left behind.
    for line in leftovers.undo():
        click.echo(line, err=True)

    def renew() -> Document:
        return cluster.access(config, who).plain()

    if not direct:
        request["kubernetes"] = {
            "access": renew(),
            # Root's is nothing for the engine, which is somebody else then.
            "environment": dict(who.environment) if who.uid else {},
            "uid": who.uid,
        }
    if foreground or command:
        signal.signal(signal.SIGTERM, _interrupt)
        # A shell starts a command with & so that it ignores SIGINT.
        signal.signal(signal.SIGINT, _interrupt)
    try:
        with Daemons(
            name,
            config.tunnel.transport,
            kubernetes=not direct,
            names=config.dns.mode != "none",
        ) as daemons:
            daemons.engine.send("connect", **request)
            report = daemons.engine.reply(_patience(config), _progress(verbose), renew)
            if report is None:
                raise NotConnected("the session was ended before it worked")
            if command:
                click.get_current_context().exit(_run(command, daemons.engine, renew))
            if not foreground:
                daemons.leave()
            click.echo(_summary(report))
            if foreground:
                daemons.engine.reply(None, renew=renew)
    except KeyboardInterrupt:
        if not foreground:
            raise


def _interrupt(*_: object) -> None:
    """Take SIGTERM as Ctrl-C, and Ctrl-C as itself."""
    raise KeyboardInterrupt


def _patience(config: Config) -> float:
    """Seconds that the engine may say nothing: no step takes longer."""
    timeouts = config.timeouts
    reach = timeouts.manager_connect + timeouts.manager_welcome
    ask = 3 * timeouts.api_request + timeouts.pod_ready
    return reach + ask + timeouts.helper + timeouts.reachable + _SLACK


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not text: {exc}") from exc


def _read_token(path: Path) -> str:
    """Take the first token of a file, which a manager may use as well."""
    for line in _read(path).splitlines():
        token = line.strip()
        if token and not token.startswith("#"):
            return token
    raise ConfigError(f"the token file {path} has no token")


def _progress(verbose: bool) -> Callable[[str], None]:
    started = time.monotonic()

    def show(text: str) -> None:
        if verbose:
            click.echo(f"{time.monotonic() - started:7.3f} s  {text}", err=True)
        elif sys.stderr.isatty():
            click.echo(text, err=True)

    return show


def _summary(report: dict[str, Any]) -> str:
    routed = ", ".join(report["routes"]["proxied"]) or "no networks"
    return (
        f"connected to the manager at {report['manager']['address']}:"
        f" {routed} through {report['device']['name']}"
    )


def _run(command: tuple[str, ...], engine: Client, renew: Callable[[], Document]) -> int:
    """Run a command as a shell would, and give the code that a shell would.

    Meanwhile the engine may ask for new credentials.
    """
    try:
        process = subprocess.Popen(command)
    except FileNotFoundError:
        click.echo(f"error: {command[0]}: command not found", err=True)
        click.echo("hint: give a program and its arguments behind --", err=True)
        return 127
    except OSError as exc:
        click.echo(f"error: {command[0]}: {exc.strerror}", err=True)
        click.echo("hint: give a program and its arguments behind --", err=True)
        return 126
    # Ctrl-C reaches the command by itself; SIGTERM is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    ended = os.pidfd_open(process.pid)
    try:
        while ended not in select.select([ended, engine.fileno()], [], [])[0]:
            engine.reply(None, renew=renew)
    except TunstackError:
        pass  # the session has ended; the command is told by its connections
    finally:
        os.close(ended)
    code = process.wait()
    return code if code >= 0 else 128 - code
