"""Resolver mode ``files``: resolv.conf names our server, or macOS's /etc/resolver does.

All of it is in the journal, which undoes it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tunstack.dns.resolv_conf import ResolvConf, parse
from tunstack.errors import HostError
from tunstack.host.journal import Journal, stat_of
from tunstack.host.paths import RESOLV_CONF

MACOS_DIRECTORY = Path("/etc/resolver")

MACOS_SEARCH = "search.tunstack"
"""The file that has the search domains."""

_DNS = 53


def resolv_conf(
    server: str, search: Sequence[str], before: ResolvConf, session: str, kept: Path
) -> str:
    """Write a resolv.conf(5) with our server in it.

    It is the only one: musl asks all of them at once and takes the first answer, and
    glibc goes on to the next where ours has failed.

    Args:
        server: its address.
        search: domains to search before the host's own.
        before: the host's own, whose ``search`` and ``options`` stay.
        session: who writes this.
        kept: where the one before is kept.
    """
    domains = dict.fromkeys([*search, *before.search])
    if len(domains) > 1:
        domains.pop(".", None)
    lines = [
        f"# By tunstack, session {session}, as long as it is connected.",
        f"# The file before is kept in {kept}",
        "# and comes back at the end, or with the next `tunstack quit` or `connect`.",
        f"nameserver {server}",
    ]
    if domains:
        lines.append(f"search {' '.join(domains)}")
    if before.options:
        lines.append(f"options {' '.join(before.options)}")
    return "\n".join(lines) + "\n"


def set_resolv_conf(
    servers: Sequence[str],
    search: Sequence[str],
    session: str,
    journal: Journal,
    path: Path = RESOLV_CONF,
    outside: Iterable[int] | None = None,
) -> None:
    """Have resolv.conf name our server.

    Args:
        servers: its addresses, of which IPv4's is taken where there is one.
        search: domains to search before the host's own.
        session: for its comment.
        journal: what undoes it.
        path: of the file: a link is replaced, a mount point written in place.
        outside: processes that stand for everybody else; ``None`` for process 1 and
            those that this one descends from.

    Raises:
        HostError: it cannot be written, or is everybody's; nothing was changed.
    """
    processes = _elders() if outside is None else outside
    if any(_shares(path, process) for process in processes):
        raise HostError(
            f"{path} is also read outside of this network namespace; nothing was changed"
        )
    text = resolv_conf(
        min(servers, key=lambda server: ":" in server),
        search,
        parse(journal.before(path)),
        session,
        journal.path,
    )
    journal.write(path, text)


def _shares(path: Path, process: int) -> bool:
    """Whether a process of another network namespace reads the same file.

    So it is under ``ip netns exec`` without a resolv.conf of the namespace's own. A
    process that we may not look at, as in some containers, tells nothing.
    """
    proc = Path(f"/proc/{process}")
    try:
        if (proc / "ns/net").samefile("/proc/self/ns/net"):
            return False
        there = os.lstat(proc / "root" / path.relative_to("/"))
        return os.path.samestat(there, os.lstat(path))
    except OSError:
        return False


def _elders() -> Iterator[int]:
    """Give process 1 and the processes that this one descends from."""
    yield 1
    process = os.getppid()
    while process > 1:
        yield process
        fields = stat_of(process)
        if fields is None:
            return
        process = int(fields[1])


def macos_files(
    servers: Sequence[str], domains: Sequence[str], search: Sequence[str], port: int = _DNS
) -> dict[str, str]:
    """Give the files of macOS's /etc/resolver, by name: one a domain.

    Those who ask for a name below a domain, and through the system's own functions, ask
    us; ``dig`` does not. Source: resolver(5) of macOS.

    Args:
        servers: addresses of our server.
        domains: what is ours.
        search: what a name without dots is completed with. macOS takes them from any of
            the files.
        port: where our server answers.
    """
    where = [f"nameserver {server}" for server in servers]
    if port != _DNS:
        where.append(f"port {port}")
    files = {
        domain: ["# By tunstack", f"domain {domain}", *where, "search_order 1"]
        for domain in domains
    }
    if search:
        files[MACOS_SEARCH] = [
            "# By tunstack",
            f"domain {MACOS_SEARCH}",
            *where,
            f"search {' '.join(search)}",
        ]
    return {name: "\n".join(lines) + "\n" for name, lines in files.items()}


def set_macos_files(
    files: dict[str, str], journal: Journal, directory: Path = MACOS_DIRECTORY
) -> list[str]:
    """Have exactly these files of ours in a directory, which is made if it is missing.

    Returns the names that are left out, as somebody else has a file of that name.

    Raises:
        HostError: a file cannot be written; those before it are.
    """
    try:
        directory.mkdir()
        directory.chmod(0o755)
    except FileExistsError:
        pass
    except OSError as exc:
        raise HostError(f"{directory} cannot be made: {exc.strerror}") from exc
    wanted = {directory / name: text for name, text in files.items()}
    journal.undo([path for path in journal.files if path not in wanted])
    skipped = []
    for path, text in wanted.items():
        if path not in journal.files and os.path.lexists(path):
            skipped.append(path.name)
        else:
            journal.write(path, text)
    return skipped
