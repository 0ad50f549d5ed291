"""A real systemd-resolved, in a laboratory of its own, and what it makes of our words.

The laboratory (``LABS``) starts resolved and a D-Bus in namespaces of their own. Tests
join its network namespace; its bus they reach by way of ``/proc``.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from tests.host.namespaces import forked, inside, joined, namespace_of, unshared
from tunstack.errors import HostError
from tunstack.host import resolved, routes_linux
from tunstack.host.device import open_tun
from tunstack.host.resolver import Resolver
from tunstack.host.resolver_state import ResolverState

pytestmark = pytest.mark.system

LABS = Path(os.environ.get("LABS", Path(__file__).parents[3] / "shared/labs"))

STUB = "/run/systemd/resolve/stub-resolv.conf"

SERVERS = ["198.18.0.2", "fd74::2"]


class Lab:
    """The laboratory, as long as it is there."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [LABS / "with-resolved", "sh", "-c", "echo $$; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = int(self._keeper.stdout.readline())
        self.bus = f"unix:path=/proc/{self.pid}/root/run/dbus/system_bus_socket"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-n", *command],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout

    def resolvectl(self, *arguments: str) -> str:
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        program = root / "tunstack-labs/resolved/usr/bin/resolvectl"
        return self.run(str(program), *arguments).partition(":")[2].strip()

    def ask(self, name: str) -> socket.socket:
        """Ask resolved's stub for an address; give the socket that gets the answer."""
        stub = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stub.settimeout(10)
        stub.sendto(dns.message.make_query(name, "A").to_wire(), ("127.0.0.53", 53))
        return stub

    def resolved(self) -> int:
        """Give the pid of the laboratory's resolved."""
        here = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        for comm in Path("/proc").glob("[0-9]*/comm"):
            process = comm.parent
            if (
                comm.read_text() == "systemd-resolve\n"
                and (process / "ns/net").stat().st_ino == here
            ):
                return int(process.name)
        raise AssertionError("no systemd-resolved")

    def close(self) -> None:
        self._keeper.stdin.close()
        self._keeper.wait(10)
        self._keeper.stdout.close()


def start() -> Lab:
    if os.geteuid() != 0 or not (LABS / "with-resolved").exists():
        pytest.skip(f"needs root, and LABS={LABS} to have with-resolved")
    return Lab()


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    made = start()
    yield made
    made.close()


@pytest.fixture
def own_lab(monkeypatch) -> Iterator[Lab]:
    made = start()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.bus)
    with joined(namespace_of(made.pid)):
        yield made
    made.close()


@pytest.fixture
def lab(shared_lab, monkeypatch) -> Iterator[Lab]:
    """The laboratory, from within its network namespace."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", shared_lab.bus)
    with joined(namespace_of(shared_lab.pid)):
        yield shared_lab


class Tun:
    def __init__(self) -> None:
        self.fd, _ = open_tun("ts0", offload=False)
        addresses = ["198.18.0.1/30", "fd74::1/126"]
        routes_linux.configure("ts0", mtu=1500, txqueuelen=500, addresses=addresses)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@pytest.fixture
def device(lab) -> Iterator[Tun]:
    made = Tun()
    yield made
    made.close()


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, timeout=10)


def of_link(lab: Lab) -> dict[str, str]:
    words = ("dns", "domain", "default-route", "dnssec", "dnsovertls", "llmnr", "mdns")
    return {word: lab.resolvectl(word, "ts0") for word in words}


def test_a_link_has_our_servers_and_domains_and_is_nobodys_default(lab, device):
    resolved.set_link("ts0", SERVERS, ["cluster.local", "svc", "default"], ["x.svc"])
    assert of_link(lab) == {
        "dns": "198.18.0.2 fd74::2",
        "domain": "~cluster.local ~svc ~default x.svc",
        "default-route": "no",
        "dnssec": "no",
        "dnsovertls": "no",
        "llmnr": "no",
        "mdns": "no",
    }


def test_what_is_below_our_domains_is_asked_of_us_and_nothing_else(lab, device):
    """The questions come out of the device, in the order in which they are asked."""
    resolved.set_link("ts0", SERVERS[:1], ["cluster.local", "default"], [])
    asking = [lab.ask(name) for name in ("other.example", "web.default")]
    os.set_blocking(device.fd, True)
    packet = b""
    # Others are IPv6's own, and LLMNR of resolved, from before it was told.
    while packet[9:10] != b"\x11" or packet[22:24] != b"\0\x35":
        packet = os.read(device.fd, 2000)
    assert packet[16:20] == bytes([198, 18, 0, 2])
    assert b"\x03web\x07default\x00" in packet
    for stub in asking:
        stub.close()


def test_what_it_knew_from_another_server_is_forgotten(lab, device):
    network = unshared()
    ip("link add lan type veth peer name lan1")
    ip(f"link set lan1 netns /proc/{os.getpid()}/fd/{network}")
    ip("addr add 192.0.2.1/24 dev lan")
    ip("link set lan up")
    with inside(network):
        ip("addr add 192.0.2.53/24 dev lan1")
        ip("link set lan1 up")
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("192.0.2.53", 53))
    server.settimeout(10)
    lab.resolvectl("dns", "lan", "192.0.2.53")
    lab.resolvectl("domain", "lan", "~.")
    with server, lab.ask("web.default") as stub:
        query, asker = server.recvfrom(512)
        answer = dns.message.make_response(dns.message.from_wire(query))
        answer.answer.append(dns.rrset.from_text("web.default.", 300, "IN", "A", "1.2.3.4"))
        server.sendto(answer.to_wire(), asker)
        stub.recv(512)
    assert "Current Cache Size: 1" in lab.resolvectl("statistics")
    resolved.set_link("ts0", SERVERS, ["default"], [])
    assert "Current Cache Size: 0" in lab.resolvectl("statistics")
    ip("link del lan")
    os.close(network)


def test_a_second_call_replaces_the_first(lab, device):
    resolved.set_link("ts0", SERVERS, ["cluster.local", "one"], ["one"])
    resolved.set_link("ts0", SERVERS[:1], ["cluster.local"], [])
    assert of_link(lab)["dns"] == "198.18.0.2"
    assert of_link(lab)["domain"] == "~cluster.local"


def test_as_a_mode_of_the_resolver_it_is_undone_by_the_next_one(lab, device):
    before = of_link(lab)
    resolver = Resolver("test")
    state = ResolverState(
        mode="resolved",
        servers=tuple(map(ip_address, SERVERS)),
        domains=("cluster.local",),
        search=("default.svc.cluster.local",),
    )
    assert resolver.set(state, "ts0") == "systemd-resolved"
    assert of_link(lab)["domain"] == "~cluster.local default.svc.cluster.local"
    assert resolver.set(ResolverState(mode="none"), "ts0") is None
    assert of_link(lab) == before


def test_reverting_makes_the_link_what_it_was(lab, device):
    before = of_link(lab)
    resolved.set_link("ts0", SERVERS, ["cluster.local"], [])
    assert of_link(lab) != before
    resolved.revert_link("ts0")
    assert of_link(lab) == before


def test_the_end_of_the_device_is_the_end_of_it_all(lab, device):
    before = lab.run("cat", STUB)
    resolved.set_link("ts0", SERVERS, ["cluster.local"], ["default.svc.cluster.local"])
    assert "search default.svc.cluster.local\n" in lab.run("cat", STUB)
    device.close()
    resolved.revert_link("ts0")  # says nothing
    again = Tun()
    assert of_link(lab)["dns"] == of_link(lab)["domain"] == ""
    assert lab.run("cat", STUB) == before
    again.close()


def test_as_many_domains_as_it_takes(lab, device):
    domains = [f"ns-{number}" for number in range(resolved.MOST_DOMAINS)]
    resolved.set_link("ts0", SERVERS, domains, [])
    assert len(of_link(lab)["domain"].split()) == resolved.MOST_DOMAINS


def test_more_domains_than_it_takes_leave_the_link_as_it_was(lab, device):
    before = of_link(lab)
    domains = [f"ns-{number}" for number in range(resolved.MOST_DOMAINS + 1)]
    with pytest.raises(HostError, match="refused SetLinkDomains"):
        resolved.set_link("ts0", SERVERS, domains, [])
    assert of_link(lab) == before


def test_a_device_of_the_same_index_elsewhere_is_not_taken_for_it(lab, device):
    """D-Bus crosses network namespaces, an interface index does not."""
    before = of_link(lab)
    index = str(socket.if_nametoindex("ts0"))
    with joined(unshared()):
        ip(f"link add ts0 index {index} type veth")
        with pytest.raises(HostError, match="not of this network namespace"):
            resolved.set_link("ts0", SERVERS, ["cluster.local"], [])
        with pytest.raises(HostError, match="not of this network namespace"):
            resolved.revert_link("ts0")
    assert of_link(lab) == before


def test_who_may_not_is_refused_and_nothing_changes(lab, device):
    before = of_link(lab)

    def attempt() -> None:
        os.setuid(65_534)
        with pytest.raises(HostError):
            resolved.set_link("ts0", SERVERS, ["cluster.local"], [])

    forked(attempt)
    assert of_link(lab) == before


def test_without_a_device_nothing_is_asked(lab):
    with pytest.raises(HostError, match="no device ts0"):
        resolved.set_link("ts0", SERVERS, ["cluster.local"], [])


def test_a_resolved_that_has_ended_is_found_out_at_once(own_lab):
    device = Tun()
    os.kill(own_lab.resolved(), signal.SIGKILL)
    began = time.monotonic()
    # Its name may be on the bus for a moment longer.
    with pytest.raises(HostError, match=r"not there|cannot be told|refused"):
        resolved.set_link("ts0", SERVERS, ["cluster.local"], [])
    assert time.monotonic() - began < 1
    device.close()


def test_a_resolved_that_is_stuck_has_nothing_of_ours_when_it_goes_on(own_lab):
    device = Tun()
    pid = own_lab.resolved()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(HostError, match=r"did not answer in 0.2 s"):
        resolved.set_link("ts0", SERVERS, ["cluster.local"], [], timeout=0.2)
    os.kill(pid, signal.SIGCONT)
    assert of_link(own_lab)["dns"] == ""
    device.close()


def test_without_a_bus_it_cannot_be_had(namespace, monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(HostError, match="no D-Bus"):
        resolved.set_link("lo", SERVERS, ["cluster.local"], [])
