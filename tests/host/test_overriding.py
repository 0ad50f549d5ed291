"""Questions to the host's name servers, and who gets them: real packets, real filters.

Four network namespaces: the host's, which the tests are in, and by a link each the
device (with our server), the network (with the host's name server), and a container.
Each server answers with its name.
"""

import itertools
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.host.namespaces import inside, unshared
from tunstack.errors import HostError
from tunstack.host.iptables import Chain, Iptables
from tunstack.host.nftables import Nftables
from tunstack.host.overriding import Overriding
from tunstack.host.rewrites import MARK, Rewrite, plan

OURS, OURS6 = ip_address("198.18.0.2"), ip_address("fd74::2")
THEIRS, THEIRS6 = ip_address("192.0.2.53"), ip_address("2001:db8::53")
OTHER = ip_address("192.0.2.54")
STUB, STUB6 = ip_address("127.0.0.53"), ip_address("::1")
OWN = ip_address("172.30.0.1")
PORT = 5353

BOTH = [OURS, OURS6]


@pytest.mark.parametrize(
    ("servers", "name_servers", "wanted"),
    [
        (BOTH, [THEIRS], [Rewrite(THEIRS, OURS, 53)]),
        (BOTH, [THEIRS6], [Rewrite(THEIRS6, OURS6, 53)]),
        (BOTH, [STUB, STUB6], [Rewrite(STUB, None, PORT), Rewrite(STUB6, None, PORT)]),
        (BOTH, [THEIRS, THEIRS], [Rewrite(THEIRS, OURS, 53)]),
        ([OURS], [THEIRS6, THEIRS], [Rewrite(THEIRS, OURS, 53)]),
        ([OURS], [STUB6], [Rewrite(STUB6, None, PORT)]),
        (BOTH, [ip_address("fe80::1%eth0"), THEIRS], [Rewrite(THEIRS, OURS, 53)]),
        (BOTH, [OURS, THEIRS], [Rewrite(THEIRS, OURS, 53)]),
    ],
)
def test_where_questions_go(servers, name_servers, wanted):
    assert plan(servers, name_servers, PORT) == wanted


@pytest.mark.parametrize("name_servers", [[], [THEIRS6], [ip_address("fe80::1%eth0")]])
def test_when_all_questions_would_stay_it_is_an_error(name_servers):
    with pytest.raises(HostError, match="no name server of the host can be overridden"):
        plan([OURS], name_servers, PORT)


def test_a_name_server_on_loopback_needs_our_port_there():
    with pytest.raises(HostError, match=r"127\.0\.0\.53 needs a port"):
        plan(BOTH, [THEIRS, STUB], None)


class Servers:
    """Servers at UDP and TCP ports, which answer with their names."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        stopped, self._stop = os.pipe()
        self._selector.register(stopped, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve)

    def start(self) -> None:
        self._thread.start()

    def add(self, name: str, address, port: int = 53) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            made = socket.socket(family, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((str(address), port))
            if kind == socket.SOCK_STREAM:
                made.listen()
            self._selector.register(made, selectors.EVENT_READ, name.encode())

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                if key.fileobj.type == socket.SOCK_DGRAM:
                    _, asker = key.fileobj.recvfrom(512)
                    key.fileobj.sendto(key.data, asker)
                else:
                    connection, _ = key.fileobj.accept()
                    connection.send(key.data)
                    connection.close()

    def close(self) -> None:
        os.write(self._stop, b"x")
        self._thread.join()
        os.close(self._stop)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            else:
                key.fileobj.close()
        self._selector.close()


def run_ip(*commands: str) -> None:
    text = "\n".join(commands)
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True, timeout=10)


class Room:
    """The four namespaces, with servers in three and on the host's loopback."""

    def __init__(self) -> None:
        self.servers = Servers()
        spaces = [unshared() for _ in range(4)]
        self.host, self.device, self.network, self.container = spaces
        for namespace in spaces:
            with inside(namespace):
                # A new address would not be used for a second.
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        with inside(self.host):
            for version in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path(f"/proc/sys/net/{version}").write_text("1")
            self.link("ts0", self.device, "198.18.0.{}/30", "fd74::{}/126")
            self.link("lan", self.network, "192.0.2.{}/24", "2001:db8::{}/64")
            self.link("pod", self.container, "172.30.0.{}/24", "fd30::{}/64")
            run_ip("link set lo up")
            self.servers.add("stub", STUB)
            self.servers.add("stub", STUB6)
            self.servers.add("dnsmasq", OWN)
            self.servers.add("ours", ip_address("127.0.0.1"), PORT)
            self.servers.add("ours", STUB6, PORT)
            run_ip("link set lo down")
        with inside(self.network):
            run_ip(
                f"addr add {THEIRS}/24 dev far",
                f"addr add {OTHER}/24 dev far",
                f"addr add {THEIRS6}/64 dev far",
            )
            self.servers.add("theirs", THEIRS)
            self.servers.add("theirs", THEIRS6)
            self.servers.add("theirs", THEIRS, 5300)
            self.servers.add("other", OTHER)
        with inside(self.device):
            self.servers.add("ours", OURS)
            self.servers.add("ours", OURS6)
        self.servers.start()

    def link(self, name: str, namespace: int, *networks: str) -> None:
        run_ip(
            f"link add {name} type veth peer name far",
            f"link set far netns /proc/{os.getpid()}/fd/{namespace}",
            *(f"addr add {network.format(1)} dev {name}" for network in networks),
            f"link set {name} up",
        )
        gateways = (network.partition("/")[0].format(1) for network in networks)
        with inside(namespace):
            run_ip(
                *(f"addr add {network.format(2)} dev far" for network in networks),
                "link set far up",
                *(f"route add default via {gateway}" for gateway in gateways),
            )

    def close(self) -> None:
        self.servers.close()
        for namespace in (self.host, self.device, self.network, self.container):
            os.close(namespace)


@pytest.fixture(scope="module")
def shared_room() -> Iterator[Room]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    made = Room()
    yield made
    made.close()


@pytest.fixture
def room(shared_room) -> Iterator[Room]:
    """The room, from within the host's namespace, with loopback down."""
    with inside(shared_room.host):
        yield shared_room
        run_ip("link set lo down")


PORTS = itertools.count(10_000)
"""A question from where another came from goes where that went (conntrack)."""


def ask(address, kind=socket.SOCK_DGRAM, *, port: int = 53, mark: int | None = None) -> str:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, kind) as asker:
        asker.settimeout(5)
        asker.bind(("", next(PORTS)))
        if mark is not None:
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        asker.connect((str(address), port))
        if kind == socket.SOCK_DGRAM:
            asker.send(b"?")
        return asker.recv(64).decode()


@pytest.fixture(params=["nftables", "iptables"])
def make(request, room):
    """Give a function that begins to override; what it began is ended behind the test."""
    began = []

    def begin() -> Nftables | Iptables:
        if request.param == "nftables":
            made = Nftables("ts0")
            began.append(made.close)
        else:
            made = Iptables("ts0", lambda chain: began.append(chain.remove))
        return made

    yield begin
    for end in began:
        end()


ALL = [THEIRS, THEIRS6]
KINDS = [socket.SOCK_DGRAM, socket.SOCK_STREAM]


@pytest.mark.system
def test_questions_to_the_name_servers_reach_us(room, make):
    assert {ask(address, kind) for address in ALL for kind in KINDS} == {"theirs"}
    make().set(plan(BOTH, ALL, None))
    assert {ask(address, kind) for address in ALL for kind in KINDS} == {"ours"}


@pytest.mark.system
def test_our_own_questions_reach_the_name_servers(room, make):
    run_ip("link set lo up")
    make().set(plan(BOTH, [*ALL, STUB, STUB6], PORT))
    assert {ask(address, kind, mark=MARK) for address in ALL for kind in KINDS} == {
        "theirs"
    }
    for stub in (STUB, STUB6):
        assert {ask(stub, kind, mark=MARK) for kind in KINDS} == {"stub"}
    assert ask(THEIRS, mark=MARK | 0x100) == "ours"


@pytest.mark.system
def test_questions_to_loopback_reach_our_port_there(room, make):
    run_ip("link set lo up")
    assert {ask(stub, kind) for stub in (STUB, STUB6) for kind in KINDS} == {"stub"}
    make().set(plan(BOTH, [STUB, STUB6], PORT))
    assert {ask(stub, kind) for stub in (STUB, STUB6) for kind in KINDS} == {"ours"}


@pytest.mark.system
def test_a_container_behind_this_host_reaches_us_too(room, make):
    with inside(room.container):
        assert {ask(address, kind) for address in ALL for kind in KINDS} == {"theirs"}
    make().set(plan(BOTH, ALL, None))
    with inside(room.container):
        assert {ask(address, kind) for address in ALL for kind in KINDS} == {"ours"}


@pytest.mark.system
def test_a_name_server_on_an_address_of_the_hosts_own_is_overridden(room, make):
    """As of a dnsmasq for virtual machines."""
    run_ip("link set lo up")
    assert ask(OWN) == "dnsmasq"
    make().set(plan(BOTH, [OWN], None))
    assert {ask(OWN, kind) for kind in KINDS} == {"ours"}
    assert ask(OWN, mark=MARK) == "dnsmasq"
    with inside(room.container):
        assert ask(OWN) == "ours"


@pytest.mark.system
def test_all_else_goes_where_it_went(room, make):
    make().set(plan(BOTH, [THEIRS], None))
    assert ask(THEIRS, port=5300) == "theirs"
    assert ask(THEIRS, socket.SOCK_STREAM, port=5300) == "theirs"
    assert ask(OTHER) == "other"
    assert ask(THEIRS6) == "theirs"


@pytest.mark.system
def test_a_second_set_replaces_the_first(room, make):
    made = make()
    made.set(plan(BOTH, ALL, None))
    made.set(plan(BOTH, ALL, None))
    made.set(plan(BOTH, [OTHER], None))
    assert [ask(address) for address in (THEIRS, THEIRS6, OTHER)] == [
        "theirs", "theirs", "ours",
    ]  # fmt: skip


@pytest.mark.system
def test_no_question_slips_through_while_it_is_set_again(room, make):
    made = make()
    made.set(plan(BOTH, [THEIRS], None))
    done = threading.Event()
    heard: set[str] = set()

    def keep_asking() -> None:
        while not done.is_set():
            heard.add(ask(THEIRS))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    for extra in range(20):
        more = [OTHER] if extra % 2 else []
        made.set(plan(BOTH, [*more, THEIRS], None))
    done.set()
    asking.join()
    assert heard == {"ours"}


@contextmanager
def process(program: str, *under: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program with ``ours``, ``theirs`` and ``Overriding`` until it says a line."""
    begin = (
        "import sys\nfrom ipaddress import ip_address\n"
        "from tunstack.errors import HostError\n"
        "from tunstack.host.overriding import Overriding\n"
        f"ours, theirs = [ip_address('{OURS}')], [ip_address('{THEIRS}')]\n"
    )
    end = "\nsys.stdout.flush()\nsys.stdin.read()\n"
    started = subprocess.Popen(
        [*under, sys.executable, "-P", "-c", begin + program + end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    yield started
    started.kill()
    started.wait(10)
    started.stdout.close()
    started.stdin.close()


START = "o = Overriding('ts0', print)\nprint(o.set(ours, theirs, None))"


@pytest.mark.system
def test_the_table_is_gone_with_whoever_made_it(room):
    with process(START) as owner:
        assert owner.stdout.readline() == "nftables\n"
        assert ask(THEIRS) == "ours"
        assert "tunstack-ts0" in tables()
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        assert "tunstack" not in tables()
        assert ask(THEIRS) == "theirs"


@pytest.mark.system
def test_nobody_else_can_change_the_table(room):
    with process(START) as owner:
        assert owner.stdout.readline() == "nftables\n"
        done = subprocess.run(
            ["nft", "delete", "table", "inet", "tunstack-ts0"], stderr=subprocess.DEVNULL
        )
        assert done.returncode
        assert ask(THEIRS) == "ours"


@pytest.mark.system
def test_where_nftables_is_refused_iptables_does_it(room):
    chains: list[Chain] = []
    with process(START) as owner:
        assert owner.stdout.readline() == "nftables\n"
        second = Overriding("ts0", chains.append)
        assert second.set([OURS], [THEIRS], None) == "iptables"
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
    assert ask(THEIRS) == "ours"
    assert second.set([OURS], [OTHER], None) == "iptables"
    assert [ask(THEIRS), ask(OTHER)] == ["theirs", "ours"]
    second.close()
    assert [chain.remove() for chain in chains] == [True]
    assert ask(OTHER) == "other"


@pytest.mark.system
def test_where_neither_can_be_had_both_reasons_are_given(room):
    program = (
        "try:\n    Overriding('ts0', lambda chain: None).set(ours, theirs, None)\n"
        "except HostError as error:\n    print(error)\n"
    )
    with process(program, "setpriv", "--bounding-set", "-net_admin") as somebody:
        message = somebody.stdout.readline()
    assert "nftables refused the table inet tunstack-ts0: not permitted" in message
    assert "iptables-restore refused" in message
    assert ask(THEIRS) == "theirs"


@pytest.mark.system
def test_a_chain_that_cannot_be_recorded_is_not_made(room):
    def refuse(chain: Chain) -> None:
        raise HostError("no room on the disk")

    with pytest.raises(HostError, match="no room on the disk"):
        Iptables("ts0", refuse).set(plan([OURS], [THEIRS], None))
    assert ask(THEIRS) == "theirs"


@pytest.mark.system
def test_rules_of_others_stay_when_a_chain_goes(room):
    def nat(*arguments: str) -> bytes:
        return subprocess.check_output(["iptables", "-t", "nat", *arguments], timeout=10)

    own = ("OUTPUT", "-d", "10.1.2.3", "-j", "ACCEPT")
    nat("-A", *own)
    before = nat("-S")
    chains: list[Chain] = []
    Iptables("ts0", chains.append).set(plan([OURS], [THEIRS], None))
    assert chains[0].remove()
    assert nat("-S") == before
    assert not chains[0].remove()
    nat("-D", *own)


def tables() -> str:
    return subprocess.check_output(["nft", "list", "tables"], text=True, timeout=10)
