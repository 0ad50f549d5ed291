"""A lab with names: a cluster's, which its resolver knows, and those of a host's network.

The cluster's resolver runs in the server, where only the manager gets to without a
tunnel. The host's name server runs in the gateway, at an address of either version of IP.
"""

import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from tests.support.lab import MANAGER, V4, V6, Lab, Namespace, run
from tests.support.name_server import NameServer, written

NAMESPACES = ("default", "rs", "lan")
"""Of the cluster: ``rs`` is a public suffix, ``lan`` one of the host's network, too."""

DOMAIN = "cluster.local"

ECHO = {V4.server, V6.server}
"""``echo.default``: where the lab's servers are."""

MANY = {f"n{n}.default.svc.{DOMAIN}": str(ip_address("10.98.3.0") + n) for n in range(250)}
"""Names of the cluster for load."""

PUBLIC = {
    "www.example.com": "203.0.113.6",
    "docs.rs": "203.0.113.5",
    "printer.lan": "203.0.113.7",
    "nas": "203.0.113.8",
}
"""What the host's name server knows."""

BIG = [f"{n}" * 200 for n in range(10)]
"""A TXT record of 2010 octets."""

_HTTPS = "00010000010003026832000300021f90"
"""RFC 9460, section 2.2: priority 1, the owner itself, alpn h2, port 8080."""
_SVCB = "0002046563686f0764656661756c740373766307636c7573746572056c6f63616c00"

_CLUSTER = (
    f"--local=/{DOMAIN}/",
    "--local=/arpa/",
    "--local=/corp.test/elsewhere.test/",
    f"--host-record=echo.default.svc.{DOMAIN},{V4.server},{V6.server}",
    f"--host-record=brief.default.svc.{DOMAIN},10.98.2.20,1",
    f"--host-record=later.default.svc.{DOMAIN},10.98.2.21",
    f"--host-record=echo.rs.svc.{DOMAIN},10.98.2.22",
    f"--host-record=echo.team-a.svc.{DOMAIN},10.98.2.23",
    f"--cname=alias.default.svc.{DOMAIN},echo.default.svc.{DOMAIN}",
    f"--srv-host=_http._tcp.echo.default.svc.{DOMAIN},echo.default.svc.{DOMAIN},8080,10,5",
    f"--mx-host=echo.default.svc.{DOMAIN},echo.default.svc.{DOMAIN},10",
    f'--txt-record=text.default.svc.{DOMAIN},"one","two words"',
    f"--txt-record=big.default.svc.{DOMAIN},{','.join(BIG)}",
    f"--dns-rr=echo.default.svc.{DOMAIN},65,{_HTTPS}",
    f"--dns-rr=echo.default.svc.{DOMAIN},64,{_SVCB}",
    f"--dns-rr=echo.default.svc.{DOMAIN},65280,00ff10",
    "--host-record=db.corp.test,10.98.2.24",
    "--host-record=deep.elsewhere.test,10.98.2.25",
)

HOST_RECORDS = (
    "--address=/#/",
    *(f"--host-record={name},{address}" for name, address in PUBLIC.items()),
    '--txt-record=www.example.com,"a public text"',
    "--host-record=www.corp.test,203.0.113.9",
)


class Names:
    """What it is made of.

    Args:
        lab: a bare one.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        many = written(lab.directory / "many", MANY)
        self.cluster = NameServer(
            lab.server, "cluster-dns", (V4.server, V6.server), (*_CLUSTER, many)
        )
        self.host = NameServer(
            lab.gateway, "host-dns", (V4.gateway, V6.gateway), HOST_RECORDS
        )
        self._resolv_conf = lab.directory / "cluster-resolv.conf"
        self._resolv_conf.write_text(f"nameserver {V4.server}\n")
        lab.client.resolve_by(V4.gateway, V6.gateway)

    def manage(self, *namespaces: str) -> None:
        """Start the manager."""
        self.lab.manage(
            "--insecure", "--listen", MANAGER, "--cluster-domain", DOMAIN,
            "--resolv-conf", str(self._resolv_conf),
            *(f"--subnet={subnet}" for subnet in (*V4.subnets, *V6.subnets)),
            *(f"--namespace={namespace}" for namespace in namespaces or NAMESPACES),
        )  # fmt: skip

    @property
    def server(self) -> str:
        """Where the session's name server is."""
        return str(self.lab.status()["dns"]["server"])


_MUSL = r"""
#include <netdb.h>
#include <stdio.h>

int
main(int argc, char **argv)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char text[NI_MAXHOST];

    (void)argc;
    if (getaddrinfo(argv[1], NULL, &hints, &found) != 0)
        return 2;
    for (; found; found = found->ai_next)
        if (getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0,
                NI_NUMERICHOST) == 0)
            puts(text);
    return 0;
}
"""

_PYTHON = """
import socket, sys
for found in socket.getaddrinfo(sys.argv[1], None, type=socket.SOCK_STREAM):
    print(found[4][0])
"""


def musl_program(directory: Path) -> Path:
    """Make a program that resolves by musl: prints the addresses of its argument."""
    source, program = directory / "resolve.c", directory / "resolve"
    if not program.exists():
        source.write_text(_MUSL)
        run("musl-gcc", "-static", "-o", str(program), str(source))
    return program


Client = Callable[[Namespace, Path, str], set[str]]
"""Resolves a name in a namespace; a directory is there for programs to be made."""


def by_getent(where: Namespace, _: Path, name: str) -> set[str]:
    """By glibc."""
    lines = where.run("getent", "ahosts", name).splitlines()
    return {line.split()[0] for line in lines}


def by_dig(where: Namespace, _: Path, name: str) -> set[str]:
    """By the first name server of resolv.conf, and nobody else."""
    said = where.run("dig", "+short", name, "A", name, "AAAA").splitlines()
    return {line for line in said if not line.endswith(".") and not line.startswith(";")}


def by_python(where: Namespace, _: Path, name: str) -> set[str]:
    """By getaddrinfo(3) of whatever Python is linked with."""
    return set(where.run(sys.executable, "-c", _PYTHON, name).split())


def by_musl(where: Namespace, directory: Path, name: str) -> set[str]:
    """By musl, which asks all name servers at once and takes the first answer."""
    return set(where.run(str(musl_program(directory)), name).split())


CLIENTS: dict[str, Client] = {
    "getent": by_getent,
    "dig": by_dig,
    "python": by_python,
    "musl": by_musl,
}
