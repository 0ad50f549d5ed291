"""``tunstack status``."""

import json
import time
from collections.abc import Iterator
from datetime import datetime

import click

from tunstack.cli import sessions
from tunstack.engine.control import Document, blank_status
from tunstack.errors import NotConnected, UsageError

_NAMED = 8
"""Namespaces that are named; the document has all."""

_INTERVAL = 1.0
"""Seconds between two looks with ``--watch``."""


@click.command()
@sessions.name_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
def status(name: str, as_json: bool, watch: bool) -> None:
    """Show what is connected, routed, resolved and carried.

    Exit 0 when connected, 1 when not.
    """
    if watch and as_json:
        raise UsageError("--json is one document, --watch is many")
    while watch:
        lines = "\n".join(_lines(_look(name)))
        click.clear()
        click.echo(lines)
        time.sleep(_INTERVAL)
    report = _look(name)
    click.echo(json.dumps(report) if as_json else "\n".join(_lines(report)))
    click.get_current_context().exit(0 if report["state"] == "connected" else 1)


def _look(name: str) -> Document:
    try:
        with sessions.find(name) as engine:
            report: Document = engine.ask("status")
            return report
    except NotConnected:
        return blank_status(name)


def _lines(report: Document) -> Iterator[str]:
    """Say a report to people."""
    if report["manager"] is None:
        yield "not connected"
        return
    manager, device, routes = report["manager"], report["device"], report["routes"]
    where = f"the manager at {manager['address']}"
    if report["state"] == "connected":
        yield f"connected to {where}"
    else:
        yield f"{report['state']}: {where}"
    cluster = report["kubernetes"]
    if cluster is not None:
        yield f"  cluster      {cluster['context']} at {cluster['server']}"
        yield f"  namespace    {cluster['namespace']}, the manager's {manager['namespace']}"
        yield f"  namespaces   {_some(cluster['namespaces'])}"
        yield from _credentials(cluster["credentials"])
    yield f"  versions     client {_version(report['client'])}, manager {_version(manager)}"
    if manager["rtt"] is not None:
        yield f"  round trip   {manager['rtt'] * 1000:.1f} ms"
    if not manager["icmp"]:
        yield "  ping         unavailable: the manager may not send ICMP"
    yield f"  device       {device['name']}, {', '.join(device['addresses'])}"
    for title, key in (
        ("routed", "proxied"),
        ("also proxy", "also_proxy"),
        ("never proxy", "never_proxy"),
        ("kept out", "api_server"),
        ("reached anyway", "reachable"),
    ):
        if routes[key]:
            yield f"  {title:12} {', '.join(routes[key])}"
    for overlap in routes["overlaps"]:
        yield (
            f"  overlap      {overlap['network']} with {overlap['existing']} on"
            f" {overlap['interface']}: the more specific one holds"
        )
    yield from _names(report["dns"])
    flows, traffic = report["flows"], report["traffic"]
    yield f"  flows        {', '.join(f'{count} {kind}' for kind, count in flows.items())}"
    yield (
        f"  traffic      {_octets(traffic['outbound_octets'])} out,"
        f" {_octets(traffic['inbound_octets'])} in"
    )
    drops = [f"{count} {reason}" for reason, count in report["drops"].items() if count]
    if drops:
        yield f"  drops        {', '.join(drops)}"
    yield f"  log          {report['log']}"


def _names(dns: Document) -> Iterator[str]:
    yield f"  names        {how(dns)}"
    if dns["mode"] == "none":
        return
    if dns["search"]:
        yield f"  search       {', '.join(dns['search'])}"
    if dns["skipped"]:
        yield f"  skipped      {skipped(dns)}"
    if dns["resolver"]["asked"]:
        yield f"  cluster DNS  {health(dns['resolver'])}"


def how(dns: Document) -> str:
    """Say how a host's names are resolved."""
    if dns["mode"] == "none":
        # Without --no-dns there is an address all the same.
        return "none" if dns["server"] is None else "none: no mode works here any more"
    return f"{dns['mode']}, by {dns['by']}, at {dns['server']}"


def skipped(dns: Document) -> str:
    """Say which namespaces' short names are not the cluster's, and why."""
    named = [f"{each['namespace']} ({each['reason']})" for each in dns["skipped"]]
    return f"not the cluster's: {_some(named)}"


def health(resolver: Document) -> str:
    """Say how the cluster's resolver is."""
    times = [
        f", {name} {resolver[name] * 1000:.1f} ms"
        for name in ("p50", "p99")
        if resolver[name] is not None
    ]
    where = resolver["address"] or "an address that the manager does not tell"
    return (
        f"{where}{''.join(times)}, {resolver['failures']} of {resolver['asked']}"
        " questions failed"
    )


def _some(names: list[str]) -> str:
    """Name the first few."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _credentials(credentials: Document) -> Iterator[str]:
    expires, renewal = credentials["expires"], credentials["renewal"]
    if credentials["expired"]:
        yield "  credentials  the API server takes them no more: connect again"
    elif expires is not None:
        at = datetime.fromtimestamp(expires).astimezone().isoformat(timespec="minutes")
        how = f"renewed by the {renewal}"
        if renewal == "connect again":
            how = "then a lost tunnel needs a new connect"
        yield f"  credentials  until {at}, {how}"


def _version(part: Document) -> str:
    return f"{part['version']} (protocol {part['protocol']})"


def _octets(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
