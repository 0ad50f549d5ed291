"""Name servers for labs: dnsmasq, and a client that shows what came back."""

import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import dns.message
import dns.name
import dns.rdatatype

from tests.support.lab import Namespace, wait_until
from tests.support.questions import query

PORT = 53

TTL = 60
"""Seconds."""

TOOLS = ("dnsmasq", "dig", "getent", "musl-gcc")

_ASKED = re.compile(r"query\[\S+\] (\S+) from ")


def missing() -> str | None:
    """Say what tests of names want and is not here, or ``None``."""
    return next((f"needs {tool}" for tool in TOOLS if shutil.which(tool) is None), None)


class NameServer:
    """dnsmasq at some addresses of a namespace, with records and nobody to ask.

    Args:
        where: it runs.
        name: of its log.
        addresses: it answers at.
        records: options of dnsmasq. Answers may be kept for :data:`TTL` where no record
            says else.
    """

    def __init__(
        self,
        where: Namespace,
        name: str,
        addresses: Sequence[str],
        records: Sequence[str],
    ) -> None:
        self.addresses = list(addresses)
        self._where = where
        self._name = name
        self._log = where.log(name)
        self._forgotten = 0
        self._command = [
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=",
            "--user=root", "--no-resolv", "--no-hosts", "--bind-interfaces",
            "--log-queries", "--log-facility=-", f"--local-ttl={TTL}", "--local=//",
            *(f"--listen-address={address}" for address in addresses),
            *records,
        ]  # fmt: skip
        self.process: subprocess.Popen[str]
        self.start()

    def start(self) -> None:
        """Run it, and wait until it answers."""
        self.process = self._where.start(*self._command, log=self._name)

        def answers() -> bool:
            assert self.process.poll() is None, "dnsmasq ended"
            try:
                ask(self._where, self.addresses[0], "ready.test", timeout=0.2)
            except OSError:
                return False
            return True

        wait_until(answers, 10, f"{self._name} answers")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def names(self) -> set[str]:
        """Give the names that it was asked for, in small letters."""
        said = self._log.read_bytes()[self._forgotten :].decode(errors="replace")
        return set(_ASKED.findall(said.lower()))

    def forget(self) -> None:
        """Forget what it was asked for until now."""
        self._forgotten = self._log.stat().st_size


def exchange(
    where: Namespace, server: str, message: bytes, *, tcp: bool = False, timeout: float = 20
) -> bytes:
    """Send a message from a namespace, and give the answer.

    Raises:
        OSError: there is none.
    """
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with where:
        sock = socket.socket(family, kind)
    with sock:
        sock.settimeout(timeout)
        sock.connect((server, PORT))
        if not tcp:
            sock.send(message)
            return sock.recv(65_535)
        sock.sendall(len(message).to_bytes(2) + message)
        with sock.makefile("rb") as stream:
            return stream.read(int.from_bytes(stream.read(2)))


def ask(
    where: Namespace,
    server: str,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    payload: int | None = 1232,
    timeout: float = 20,
) -> dns.message.Message:
    """Ask from a namespace, and read the answer, which must be to the question.

    Raises:
        OSError: there is none.
    """
    question = query(name, kind, payload=payload)
    answer = exchange(where, server, question, tcp=tcp, timeout=timeout)
    message = dns.message.from_wire(answer)
    assert dns.message.from_wire(question).is_response(message)
    return message


def ask_at_once(
    where: Namespace, server: str, names: Sequence[str], *, timeout: float = 20
) -> list[dns.message.Message]:
    """Ask for addresses, all at the same time; gives the answers in the order of names.

    Raises:
        OSError: one is missing.
    """
    with where:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found: dict[int, dns.message.Message] = {}
    with sock:
        sock.settimeout(timeout)
        sock.connect((server, PORT))
        for number, name in enumerate(names):
            sock.send(query(name, number=number))
        while len(found) < len(names):
            message = dns.message.from_wire(sock.recv(65_535))
            found[message.id] = message
    return [found[number] for number in range(len(names))]


def addresses(message: dns.message.Message) -> list[str]:
    """Give the addresses in an answer."""
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    return [
        str(rdata) for rrset in message.answer if rrset.rdtype in kinds for rdata in rrset
    ]


def records(message: dns.message.Message) -> list[tuple[str, int, bytes]]:
    """Give the records of an answer in their order: owner, type, octets of the data."""
    return [
        (rrset.name.to_text(), int(rrset.rdtype), rdata.to_wire())
        for rrset in message.answer
        for rdata in rrset
    ]


def written(path: Path, hosts: dict[str, str]) -> str:
    """Write addresses by name to a file; gives dnsmasq's option to read it."""
    path.write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    return f"--addn-hosts={path}"
