"""``tunstack dns``: questions for names, asked and watched."""

import json
from collections.abc import Iterator
from datetime import datetime

import click

from tunstack.cli import sessions
from tunstack.engine.control import Document
from tunstack.errors import HostError, TunnelError, TunstackError, UsageError

PATIENCE = 60.0
"""Seconds for an answer: more than ``dns.lookup_timeout`` and the host's name servers
may take together."""

_BY = {
    "cache": "the cache: what the cluster has said",
    "stale": "the cache, out of date: the cluster does not answer",
    "cluster": "the cluster",
    "host": "this host's own name server",
    "settings": "the settings",
    "nobody": "nobody",
}
"""Who answered, for people."""


@click.group()
def dns() -> None:
    """Ask for names as programs here do, and see who answers."""


@dns.command()
@sessions.name_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.argument("asked", metavar="NAME")
@click.argument("kind", metavar="[TYPE]", default="A")
def query(name: str, as_json: bool, asked: str, kind: str) -> None:
    """Ask the session's name server for NAME, and say how it was answered.

    Which rule applied, who was asked and how long each took, who answered, and the
    records. TYPE is a name or a number: AAAA, 28, TYPE65280. Exit 0 when there was an
    answer, be it that there is no such name.
    """
    question = {"name": _name(asked), "type": _type(kind)}
    with sessions.find(name) as engine:
        engine.send("dns_query", **question)
        report: Document = engine.reply(PATIENCE)
    records, why = _read(bytes.fromhex(report["message"]))
    if as_json:
        click.echo(json.dumps(report | {"records": records}))
    else:
        click.echo("\n".join(_lines(report, records, why)))
    if report["by"] == "nobody" and report["rcode"] == "SERVFAIL":
        raise _unanswered(report, why)


@dns.command()
@sessions.name_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document a line.")
def log(name: str, as_json: bool) -> None:
    """Show each question as it is answered, until Ctrl-C.

    Time, name, type, who answered, rule, milliseconds, and what was said.
    """
    from dns.rdatatype import to_text

    def show(report: Document) -> None:
        if as_json:
            click.echo(json.dumps(report))
            return
        if report["missed"]:
            click.echo(f"{report['missed']} more came too fast to be shown", err=True)
        at = datetime.fromtimestamp(report["time"]).isoformat(" ", "milliseconds")
        click.echo(
            f"{at[11:]}  {report['name']:40} {to_text(report['type']):6}"
            f" {_who(report):24} {report['rule']:20} {_milliseconds(report['seconds']):>10}"
            f"  {report['rcode']}"
        )

    with sessions.find(name) as engine:
        engine.send("dns_log")
        engine.reply(None, show)


def _name(text: str) -> str:
    """Give a name as it is asked for: in ASCII (RFC 3490).

    Raises:
        UsageError: it is none.
    """
    from dns.exception import DNSException
    from dns.name import from_text

    try:
        name = from_text(text).to_text(omit_final_dot=True)
    except DNSException as exc:
        name, why = "", str(exc)
    else:
        why = "an octet that no program asks for" if "\\" in name else ""
    if why:
        raise UsageError(f"{text!r} is not a name: {why}", hint="say it as echo.default")
    return name


def _type(text: str) -> int:
    """Give the number of a type of record.

    Raises:
        UsageError: there is no such type.
    """
    from dns.exception import DNSException
    from dns.rdatatype import from_text

    try:
        return int(from_text(f"TYPE{text}" if text.isdigit() else text))
    except (DNSException, ValueError):
        raise UsageError(
            f"{text!r} is no type of record", hint="say A, AAAA, SRV, TXT, or a number"
        ) from None


def _read(message: bytes) -> tuple[list[str], str]:
    """Give the records of an answer, a line each, and the reason that it has."""
    from dns.edns import EDEOption
    from dns.exception import DNSException
    from dns.message import from_wire

    try:
        answer = from_wire(message, ignore_trailing=True, continue_on_error=True)
    except DNSException as exc:
        return [], f"the answer cannot be read: {exc}"
    records = [line for rrset in answer.answer for line in rrset.to_text().splitlines()]
    reasons = [o.text for o in answer.options if isinstance(o, EDEOption) and o.text]
    reasons += [f"the answer cannot be read: {error.exception}" for error in answer.errors]
    return records, "; ".join(reasons)


def _lines(report: Document, records: list[str], why: str) -> Iterator[str]:
    """Say a report to people."""
    from dns.rdatatype import to_text

    kind, rcode = to_text(report["type"]), report["rcode"]
    said = f"{report['name']} {kind}: {rcode}"
    if rcode == "NXDOMAIN":
        said += ", there is no such name"
    elif rcode == "NOERROR" and not records:
        said += f", but there are no {kind} records"
    yield said
    yield f"  rule         {report['rule'] or 'none'}"
    for step in report["steps"]:
        where = f"{step['server']}: " if step["server"] else ""
        yield (
            f"  {step['to']:12} {where}{step['name']}, {step['outcome']},"
            f" {_milliseconds(step['seconds'])}"
        )
    server = _server(report)
    yield f"  answered by  {_BY.get(report['by'], report['by'])}" + (
        f", {server}" if server else ""
    )
    if why:
        yield f"  because      {why}"
    yield f"  in           {_milliseconds(report['seconds'])}"
    yield from records


def _unanswered(report: Document, why: str) -> TunstackError:
    text = f"nobody answers for {report['name']}: {why or 'no reason was given'}"
    if any(step["to"] == "cluster" for step in report["steps"]):
        return TunnelError(text, hint="`tunstack doctor` says how the cluster's DNS is")
    return HostError(
        text, hint="`tunstack status` names this host's own name servers and the log"
    )


def _server(report: Document) -> str:
    """Give the address of whoever answered, where somebody was asked."""
    steps = [step for step in report["steps"] if step["to"] == report["by"]]
    return str(steps[-1]["server"]) if steps else ""


def _who(report: Document) -> str:
    return f"{report['by']} {_server(report)}".rstrip()


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
