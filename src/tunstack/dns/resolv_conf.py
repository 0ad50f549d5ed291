"""What resolv.conf(5) says."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The parts of a resolv.conf that matter to us."""

    name_servers: tuple[str, ...] = ()
    """Addresses, in the file's order and as many as it has; ``fe80::1%eth0`` may occur."""

    search: tuple[str, ...] = ()
    """As written: ``.`` stands for no search at all."""

    options: tuple[str, ...] = ()


def parse(text: str) -> ResolvConf:
    """Read a resolv.conf. Nothing in it makes this raise: what is no entry is left out.

    As in glibc a keyword begins its line, the last ``search`` or ``domain`` counts, and
    the options of several lines add up.
    """
    name_servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        keyword, *values = _words(line) if line[:1].strip() else [""]
        if keyword == "nameserver" and values and _is_address(values[0]):
            name_servers.append(values[0])
        elif keyword == "search" and values:
            search = tuple(values)
        elif keyword == "domain" and values:
            search = (values[0],)
        elif keyword == "options":
            options += values
    return ResolvConf(tuple(dict.fromkeys(name_servers)), search, tuple(options))


def _words(line: str) -> list[str]:
    def before_comment() -> Iterator[str]:
        for word in line.split():
            if word[0] in "#;":
                return
            yield word

    return list(before_comment()) or [""]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
