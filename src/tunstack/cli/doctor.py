"""``tunstack doctor``.

Each check is a function that yields what it has found: a :class:`Finding`, which
somebody should act on, or a text, which is only to be known.
"""

import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from tunstack._version import PRODUCT
from tunstack.cli import sessions
from tunstack.cli.dns import PATIENCE
from tunstack.cli.status import health, how, skipped
from tunstack.dns.rules import CHECK
from tunstack.engine.control import Document
from tunstack.errors import HostError, NotConnected, TunstackError
from tunstack.host import journal, paths
from tunstack.host.paths import RESOLV_CONF

TUN = Path("/dev/net/tun")

_CAP_NET_ADMIN = 12  # linux/capability.h

_WAIT = 5.0
"""Seconds that this host's resolver has for a question: what it gives a name server by
itself (resolv.conf(5), ``timeout``)."""

_SLOW = 0.5
"""Seconds of the slowest hundredth of the answers, from which on the resolver is slow:
then single labels go elsewhere (``dns/machine.py``)."""

_ENOUGH, _TOO_MANY = 20, 0.01
"""Questions, and the share of them that may fail."""

_COREDNS = (
    "`kubectl -n kube-system get pods -l k8s-app=kube-dns` says whether CoreDNS runs,"
    " `kubectl -n kube-system logs -l k8s-app=kube-dns` what it complains of"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    finding: str
    hint: str
    fix: Callable[[], list[str]] | None = None
    """Puts it right, and says what was done."""


@dataclass(frozen=True, slots=True)
class _Session:
    name: str
    report: Document
    """The document of ``status``. An engine of another version may say less."""

    def __getitem__(self, part: str) -> Any:
        return self.report.get(part) or {}


Found = Iterator[Finding | str]


@click.command()
@click.option("--name", help="Look at this session only, not at all of the caller's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--fix", is_flag=True, help="Put right what can be put right from here.")
def doctor(name: str | None, as_json: bool, fix: bool) -> None:
    """Look for what is wrong, and say what to do about each.

    At this host, and at the caller's sessions where there are any. Exit 0 when nothing
    was found, 1 when something was; with --fix, when something is left.
    """
    results = _examine(name, fix)
    fixed: list[str] = []
    fixes = {f.fix: None for _, found in results for f in _findings(found) if f.fix}
    if fix and fixes:
        for undo in fixes:
            fixed += undo()
        results = _examine(name, fix)
    findings = [(check, each) for check, found in results for each in _findings(found)]
    if as_json:
        document = {
            "findings": [
                {
                    "check": check,
                    "finding": each.finding,
                    "hint": each.hint,
                    "fixable": each.fix is not None,
                }
                for check, each in findings
            ],
            "checks": [
                {"check": check, "result": _result(found)} for check, found in results
            ],
            "fixed": fixed,
        }
        click.echo(json.dumps(document))
    else:
        for check, found in results:
            click.echo(f"{check:12} {_result(found)}")
        for line in fixed:
            click.echo(f"fixed: {line}")
        for _, each in findings:
            click.echo(f"finding: {each.finding}\nhint: {each.hint}")
    click.get_current_context().exit(1 if findings else 0)


def _findings(found: list[Finding | str]) -> list[Finding]:
    return [each for each in found if isinstance(each, Finding)]


def _result(found: list[Finding | str]) -> str:
    texts = [each for each in found if isinstance(each, str)]
    count = len(_findings(found))
    if count:
        texts.append(f"{count} finding{'s' if count > 1 else ''}")
    return "; ".join(texts) or "ok"


def _examine(name: str | None, fix: bool) -> list[tuple[str, list[Finding | str]]]:
    """Give what each check has found, in their order."""
    known: list[_Session] = []
    results = [
        ("device", list(_device())),
        ("leftovers", list(_leftovers(fix))),
        ("sessions", list(_sessions(name, known))),
        ("fastpath", list(_fastpaths(known))),
    ]
    for check, look in _SESSION_CHECKS.items() if known else ():
        found = [
            f"{session.name}: {each}" if isinstance(each, str) and known[1:] else each
            for session in known
            for each in look(session)
        ]
        results.append((check, found))
    return results


# This host


def _device(node: Path | None = None) -> Found:
    """Whether devices can be made here."""
    node = node or TUN
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        if os.geteuid() == 0:
            yield Finding(
                f"{node} may not be opened",
                "a container needs the device: docker run --device /dev/net/tun",
            )
    except OSError as exc:
        yield Finding(
            f"this host makes no TUN devices: {node}: {exc.strerror}",
            "modprobe tun; a container needs the device: docker run --device /dev/net/tun",
        )
    if os.geteuid() != 0:
        yield "`connect` wants root; this was looked at without"
    elif not _capabilities() >> _CAP_NET_ADMIN & 1:
        yield Finding(
            "root may not make devices here: CAP_NET_ADMIN is missing",
            "a container needs it: docker run --cap-add NET_ADMIN",
        )


def _capabilities() -> int:
    """Give this process's effective ones, as bits (proc_pid_status(5))."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line[:7] == "CapEff:")


def _leftovers(fix: bool) -> Found:
    """Whether helpers that are no more have left changes of this host."""
    try:
        found = journal.left_behind(journal.DIRECTORY)
    except PermissionError:
        found = []
        if fix:
            yield Finding("only root may undo what sessions have left", "run it with sudo")
        else:
            yield "only root may look at the journal"
    except HostError as error:
        found = []
        yield Finding(str(error), error.hint)
    for each in found:
        if each.undoable:
            yield Finding(
                each.text,
                "`tunstack doctor --fix`, `tunstack quit` or the next `connect` undoes it",
                _undo,
            )
        else:
            yield Finding(
                each.text, "see what it names, put that right by hand, and delete it"
            )
    if not any(each.text.startswith(f"{RESOLV_CONF} ") for each in found):
        yield from _resolv_conf()


def _undo() -> list[str]:
    return journal.replay(journal.DIRECTORY)


def _resolv_conf() -> Found:
    """Whether resolv.conf is that of a session that is no more.

    It names the record of what it was before, and so the helper.
    """
    try:
        text = RESOLV_CONF.read_text("utf-8", "replace")
    except OSError:
        return
    wrote = re.match(r"# By tunstack, .*\n# .* (/\S+-(\d+)\.json)\n", text)
    if wrote is not None and journal.started(int(wrote[2])) is None:
        yield Finding(
            f"{RESOLV_CONF} is still that of a session that is no more",
            f"`sudo tunstack doctor --fix`; where {wrote[1]} is lost, write the file anew,"
            " or have your network manager do it",
        )


def _sessions(wanted: str | None, known: list[_Session]) -> Found:
    """How the sessions are; adds those that answer to ``known``."""
    names = sessions.names()
    if wanted is not None:
        paths.session_dir(wanted)  # is it a name?
        names = [name for name in names if name == wanted]
    for name in names:
        if sessions.is_dead(name):
            yield Finding(
                f"the session {name} was killed, and has left its directory",
                "`tunstack doctor --fix`, or any command for it, clears it away",
                partial(_clear, name),
            )
            continue
        try:
            with sessions.find(name) as engine:
                report = engine.ask("status")
        except NotConnected:
            yield f"{name} begins or ends"
            continue
        except TunstackError as error:
            yield Finding(f"the session {name} does not answer: {error}", error.hint)
            continue
        if report.get("manager") is None:
            yield f"{name} is connecting"
            continue
        known.append(_Session(name, report))
        if report["state"] == "connected":
            yield f"{name} is connected"
        else:
            yield Finding(
                f"the session {name} has lost its tunnel: {report['state']}",
                f"it is tried again for ever; {report.get('log')} says what fails",
            )
    if not names:
        of_root = "" if os.geteuid() == 0 else " of yours; those that sudo began are root's"
        yield f"none{of_root}"


def _clear(name: str) -> list[str]:
    with suppress(NotConnected):
        sessions.find(name).close()
        return []
    return [f"what was left of the session {name} removed"]


def _fastpaths(known: list[_Session]) -> Found:
    """Whether the arithmetic on packets is done in C."""
    from tunstack import _fastpath

    names = {session.report.get("fastpath") for session in known} or {_fastpath.NAME}
    if "reference" in names:
        yield Finding(
            "packets are taken apart in Python, which is slow: the C core was not loaded",
            "install tunstack where there is a C compiler, unset TUNSTACK_FASTPATH, and"
            " connect again",
        )
    else:
        yield ", ".join(filter(None, names))


# A session


def _versions(session: _Session) -> Found:
    for part in ("engine", "helper"):
        version = session[part].get("version")
        if version not in (None, PRODUCT):
            yield Finding(
                f"the {part} of the session {session.name} is tunstack {version}, and"
                f" this is {PRODUCT}",
                "`tunstack quit`, then connect again: an upgrade changes nothing that runs",
            )


def _names(session: _Session) -> Found:
    """Whether names of this host are asked of the session's server."""
    dns = session["dns"]
    if not dns.get("server"):
        yield "none, as it was asked for"
        return
    if dns["mode"] == "none":
        yield Finding(
            f"the session {session.name} has lost this host's resolver: no mode works",
            f"{session.report.get('log')} says why; `tunstack quit`, then connect again",
        )
        return
    yield how(dns)
    if dns.get("skipped"):
        yield f"{skipped(dns)}; dns.force_namespaces overrules it"
    if dns["server"] not in _resolve(f"{secrets.token_hex(6)}.{CHECK}"):
        yield Finding(
            f"programs here do not ask the name server of the session {session.name}"
            f" ({how(dns)})",
            "is this the network namespace that it was begun in? Else see who else changes"
            " this host's resolver, and docs/troubleshooting.md",
        )


def _resolve(name: str) -> set[str]:
    """Give the addresses that this host's C library finds, if it does so in time."""
    found: set[str] = set()

    def ask() -> None:
        with suppress(OSError):
            found.update(str(info[4][0]) for info in socket.getaddrinfo(name, None))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_WAIT)
    return set(found)


def _resolver(session: _Session) -> Found:
    """Whether the cluster's resolver is well."""
    resolver = session["dns"].get("resolver")
    if resolver is None:
        return
    now = _ask_cluster(session)
    if now is not None:
        resolver, failure = now
        if failure:
            yield Finding(
                "the cluster's resolver, as a rule CoreDNS, does not answer now:"
                f" {failure} ({health(resolver)})",
                _COREDNS,
            )
            return
    if resolver["asked"]:
        yield health(resolver)
    if _is_sick(resolver):
        yield Finding(
            "the cluster's resolver, as a rule CoreDNS, is not well:"
            f" {health(resolver)}, at last: {resolver['last_failure']}",
            _COREDNS,
        )


def _ask_cluster(session: _Session) -> tuple[Document, str] | None:
    """Ask the cluster's resolver for a name that there is not.

    What it has done so far says little of what it does now, or nothing when nobody has
    asked. Gives how it is afterwards, and why it did not answer; ``None`` when it
    cannot be asked.
    """
    search = session["dns"].get("search")
    if session.report["state"] != "connected" or not search:
        return None
    name = f"tunstack-doctor-{secrets.token_hex(6)}.{search[0]}"
    try:
        with sessions.find(session.name) as engine:
            engine.send("dns_query", name=name, type=1)
            answer = engine.reply(PATIENCE)
            resolver = engine.ask("status")["dns"]["resolver"]
    except TunstackError:
        return None  # its engine is another version's, or has just ended
    failures = [step["outcome"] for step in answer["steps"] if step["to"] == "cluster"]
    return resolver, failures[-1] if failures and answer["by"] == "nobody" else ""


def _is_sick(resolver: Document) -> bool:
    """Whether failures are more than what a network loses.

    A datagram may get lost, so one failure in thousands means nothing; nor does one of
    very few questions, if the others are answered as quickly as ever. But failures of
    a resolver that is also slow are its own.
    """
    asked, failures, p99 = resolver["asked"], resolver["failures"], resolver["p99"]
    if not failures:
        return False
    often = asked >= _ENOUGH and failures > asked * _TOO_MANY
    return often or p99 is None or p99 > _SLOW


def _ping(session: _Session) -> Found:
    if session["manager"].get("icmp") is False:
        yield Finding(
            "ping gets no answer: the manager may not send ICMP; all else works",
            "let it have net.ipv4.ping_group_range, as `tunstack install` does",
        )


def _credentials(session: _Session) -> Found:
    if (session["kubernetes"].get("credentials") or {}).get("expired"):
        yield Finding(
            f"the API server takes the credentials of the session {session.name} no more",
            "log in as for kubectl, `tunstack quit`, and connect again",
        )


def _routes(session: _Session) -> Found:
    for overlap in session["routes"].get("overlaps", ()):
        yield (
            f"{overlap['network']} overlaps {overlap['existing']} on"
            f" {overlap['interface']}, and the more specific one holds"
        )


_SESSION_CHECKS: dict[str, Callable[[_Session], Found]] = {
    "versions": _versions,
    "names": _names,
    "resolver": _resolver,
    "ping": _ping,
    "credentials": _credentials,
    "routes": _routes,
}
