"""``tunstack connect``."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tunstack.cli import sessions, settings
from tunstack.cli.launch import Daemons
from tunstack.config import Config, plain
from tunstack.errors import ConfigError, NotConnected, PrivilegeError, UsageError

_SLACK = 10.0
"""Seconds that the engine may take to load, beside what its own steps may take."""


@click.command()
@click.option("--manager", metavar="HOST:PORT", help="A manager reached directly.")
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
    expose_value=False,  # nothing touches it yet
    help="Leave this host's resolver alone.",
)
@click.option("--verbose", is_flag=True, help="Show each step and its time.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD ...]")
def connect(
    manager: str | None,
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
    verbose: bool,
    command: tuple[str, ...],
) -> None:
    """Connect this computer to a cluster.

    Returns when the cluster's networks are routed. With a command behind `--` it runs
    that, disconnects, and exits with its code.
    """
    said = {
        "tunnel.manager": manager,
        "routing.also_proxy": ",".join(also_proxy) or None,
        "routing.never_proxy": ",".join(never_proxy) or None,
        "routing.device": device,
        "routing.mtu": mtu,
        "routing.offload": False if no_offload else None,
    }
    config = settings.load({k: v for k, v in said.items() if v is not None}).config
    if config.tunnel.manager is None:
        raise ConfigError("no manager is given", hint="say --manager HOST:PORT")
    if insecure and (token_file is not None or tls_ca is not None):
        raise UsageError(
            "--insecure means plaintext and no token",
            hint="leave out --insecure, or --token-file and --tls-ca",
        )
    request = {
        "settings": plain(config),
        "token": None if token_file is None else _read_token(token_file),
        "ca": None if tls_ca is None else _read(tls_ca),
        "insecure": insecure,
        "hold": foreground or bool(command),
    }
    if os.geteuid() != 0:
        raise PrivilegeError(
            "only root may open a device and set routes",
            hint="run it with sudo",
        )
    if foreground or command:
        signal.signal(signal.SIGTERM, _interrupt)
        # A shell starts a command with & so that it ignores SIGINT.
        signal.signal(signal.SIGINT, _interrupt)
    try:
        with Daemons(name, config.tunnel.transport) as daemons:
            daemons.engine.send("connect", **request)
            report = daemons.engine.reply(_patience(config), _progress(verbose))
            if report is None:
                raise NotConnected("the session was ended before it worked")
            if command:
                click.get_current_context().exit(_run(command))
            if not foreground:
                daemons.leave()
            click.echo(_summary(report))
            if foreground:
                daemons.engine.reply(None)
    except KeyboardInterrupt:
        if not foreground:
            raise


def _interrupt(*_: object) -> None:
    """Take SIGTERM as Ctrl-C, and Ctrl-C as itself."""
    raise KeyboardInterrupt


def _patience(config: Config) -> float:
    """Seconds that any one step may take."""
    return config.timeouts.manager_connect + config.timeouts.helper + _SLACK


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


def _run(command: tuple[str, ...]) -> int:
    """Run a command as a shell would, and give the code that a shell would."""
    try:
        process = subprocess.Popen(command)
    except FileNotFoundError:
        click.echo(f"error: {command[0]}: command not found", err=True)
        click.echo("hint: give a program and its arguments behind --", err=True)
        return 127
    # Ctrl-C reaches the command by itself; SIGTERM is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code
