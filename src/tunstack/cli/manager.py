"""``tunstack manager``."""

import logging
import os
import signal
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunstack.config import TRANSPORTS, Network
from tunstack.errors import UsageError

if TYPE_CHECKING:
    from tunstack.manager.config import ManagerConfig


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:7777",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to accept sessions. Port 0 picks one; [::1]:7777 for IPv6.",
)
@click.option(
    "--network",
    metavar="HOST:PORT",
    help="Listen there as well, with TLS and for bearers of a token.",
)
@click.option(
    "--subnet",
    multiple=True,
    metavar="CIDR",
    help="A network of the cluster; repeatable, or separated by commas.",
)
@click.option("--namespace", multiple=True, help="A namespace of it; repeatable.")
@click.option(
    "--cluster-domain",
    help="Behind the names of services.  [default: the pod's own, or cluster.local]",
)
@click.option(
    "--resolv-conf",
    type=click.Path(path_type=Path),
    default=Path("/etc/resolv.conf"),
    show_default=True,
    help="Names the cluster's resolver.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="Bearer tokens that let clients in, one a line.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM, with its chain.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM of its key.")
@click.option("--insecure", is_flag=True, help="Listen anywhere without TLS and a token.")
@click.option(
    "--transport",
    type=click.Choice(TRANSPORTS),
    default="lean",
    show_default=True,
    help="Which gRPC serves: tunstack's own, or grpcio.",
)
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Find out about the cluster that this runs in, with the account of its pod.",
)
@click.option(
    "--token-review",
    is_flag=True,
    help="Let in tokens that the API server knows, made out to `tunstack`.",
)
@click.option("--health", metavar="HOST:PORT", help="Answer probes there, over HTTP.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there.")
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="What flows have to end by themselves after SIGTERM.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
def manager(
    listen: str,
    network: str | None,
    subnet: tuple[str, ...],
    namespace: tuple[str, ...],
    cluster_domain: str | None,
    resolv_conf: Path,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    transport: str,
    kubernetes: bool,
    token_review: bool,
    health: str | None,
    metrics: str | None,
    drain: float,
    verbose: bool,
) -> None:
    """Be the cluster side, in the foreground.

    Prints `ready HOST:PORT` when it accepts sessions. SIGTERM and Ctrl-C let the flows
    drain first; a second one ends them.
    """
    # Here, because gRPC takes its time to load and --help has to load this module.
    from tunstack.manager.config import ManagerConfig
    from tunstack.rpc.loop import run

    host, port = _host_port("--listen", listen)
    config = ManagerConfig(
        host=host,
        port=port,
        network=None if network is None else _host_port("--network", network),
        metrics=None if metrics is None else _host_port("--metrics", metrics),
        insecure=insecure,
        transport=transport,
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        subnets=tuple(_network(item) for item in _items(subnet)),
        namespaces=tuple(_items(namespace)),
        cluster_domain=cluster_domain or _domain(kubernetes),
        resolv_conf=resolv_conf,
        kubernetes=kubernetes,
        token_review=token_review,
        health=None if health is None else _host_port("--health", health),
        pod_addresses=_pod_addresses(),
    )
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    run(_serve(config, drain))


async def _serve(config: "ManagerConfig", drain: float) -> None:
    import asyncio

    from tunstack.manager.server import Manager

    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, told.set)
    serving = Manager(config)
    # In a cluster it begins when the API server answers, which may not be before its end.
    begun, end = asyncio.ensure_future(serving.start()), asyncio.ensure_future(told.wait())
    await asyncio.wait((begun, end), return_when=asyncio.FIRST_COMPLETED)
    if not begun.done():
        begun.cancel()
        return
    host, port = begun.result()
    click.echo(f"ready [{host}]:{port}" if ":" in host else f"ready {host}:{port}")
    await end
    for number in signals:
        loop.remove_signal_handler(number)
    await serving.drain(drain)


def _host_port(option: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise UsageError(f"{option} {text}: want HOST:PORT", hint="say 127.0.0.1:7777")
    return host, int(port)


def _domain(kubernetes: bool) -> str:
    from tunstack.cluster.discovery import cluster_domain

    return cluster_domain(Path("/etc/resolv.conf")) if kubernetes else "cluster.local"


def _pod_addresses() -> tuple[Any, ...]:
    """Read the pod's addresses, which its manifest puts into a variable."""
    texts = os.environ.get("POD_IPS", "").split(",")
    return tuple(ip_address(text) for text in texts if text)


def _items(values: tuple[str, ...]) -> list[str]:
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise UsageError(f"--subnet {exc}", hint="say it as 10.96.0.0/12") from exc
