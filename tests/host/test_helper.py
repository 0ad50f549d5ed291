"""The helper as a process, with a real device; nothing stays, whoever dies."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.support import lab
from tunstack._version import HELPER_PROTOCOL, PRODUCT
from tunstack.errors import ConfigError, HostError
from tunstack.host.device import open_tun
from tunstack.host.helper_client import Helper
from tunstack.host.protocol import MAX_SOCKETS
from tunstack.host.resolver_state import ResolverState
from tunstack.host.rewrites import MARK
from tunstack.host.routes import RouteConflict, plan

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("namespace")]

CLUSTER = [ip_network("10.96.0.0/12"), ip_network("fd00:10::/64")]
ADDRESSES = ["198.18.0.1/30", "fd74::1/126"]


NO_JOURNAL = 'mount -t tmpfs tmpfs /var/lib && exec "$@"'
"""So that what the machine's own sessions have left is not undone here."""


class Room:
    """A helper process, and the socket that an engine has to it."""

    def __init__(self, directory: Path, uid: int = 0, under: Sequence[str] = ()) -> None:
        self.directory = directory
        self.engine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.engine.settimeout(10)
        with theirs:
            self.process = self.start(
                *("-m", "tunstack.host.helper", "--name", "test"),
                *("--fd", str(theirs.fileno()), "--uid", str(uid)),
                *("--runtime-dir", str(directory)),
                keep=theirs.fileno(),
                under=under,
            )

    @staticmethod
    def start(
        *arguments: str, keep: int, under: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*under, sys.executable, "-P", *arguments],
            pass_fds=[keep],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def raw(self, message: bytes) -> dict:
        self.engine.send(message)
        return json.loads(self.engine.recv(1 << 17))

    def ended(self) -> int:
        return self.process.wait(10)


@pytest.fixture
def room(namespace, tmp_path) -> Iterator[Room]:
    directory = tmp_path / "session"
    directory.mkdir()
    (directory / "control").touch()
    made = Room(directory, under=["unshare", "-m", "sh", "-c", NO_JOURNAL, "sh"])
    yield made
    made.engine.close()
    with suppress(ProcessLookupError):
        made.process.kill()
    made.process.wait(10)
    made.process.stdout.close()


def client(room: Room, **arguments) -> Helper:
    return Helper(room.engine, **{"on_lost": lambda: None, **arguments})


async def opened(helper: Helper, **arguments):
    wanted = {"mtu": 65_520, "offload": True, "txqueuelen": 4096, "addresses": ADDRESSES}
    return await helper.open_device("ts0", **{**wanted, **arguments})


def asked(*arguments: str) -> list[dict]:
    """Ask the kernel by iproute2, which knows nothing of ours."""
    done = subprocess.run(
        ["ip", "-j", *arguments], stdout=subprocess.PIPE, check=True, timeout=10
    )
    return json.loads(done.stdout or b"[]")


def table() -> set[tuple[str, str]]:
    """Give network and interface of every route."""
    found = [*asked("-4", "route"), *asked("-6", "route")]
    return {(str(ip_network(route["dst"])), route["dev"]) for route in found}


def into(interface: str) -> set[str]:
    return {network for network, device in table() if device == interface}


def devices() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


async def test_says_who_it_is(room):
    helper = client(room)
    await helper.hello()
    assert (helper.version, helper.protocol) == (PRODUCT, HELPER_PROTOCOL)
    assert helper.pid == room.process.pid


async def test_opens_a_device_with_its_settings_and_no_link_local_address(room):
    device = await opened(client(room))
    (link,) = asked("addr", "show", "dev", "ts0")
    found = {f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"]}
    assert found == set(ADDRESSES)
    assert (link["mtu"], link["txqlen"]) == (65_520, 4096)
    assert device.vnet == 10
    device.close()


async def test_a_device_without_offload_has_no_virtio_header(room):
    device = await opened(client(room), offload=False)
    assert device.vnet == 0
    device.close()


async def test_the_descriptor_is_not_inherited_by_what_the_engine_starts(room):
    device = await opened(client(room))
    assert not os.get_inheritable(device.fileno())
    device.close()


async def test_the_helper_keeps_no_descriptor_of_the_device(room):
    helper = client(room)
    device = await opened(helper)
    await helper.hello()  # it closes its own one behind the answer
    device.close()
    assert "ts0" not in devices()
    assert room.process.poll() is None


async def test_set_routes_is_the_whole_desired_state_and_idempotent(room):
    helper = client(room)
    device = await opened(helper)
    linked = into("ts0")
    for wanted in (
        CLUSTER,
        CLUSTER,
        CLUSTER[:1],
        [ip_network("10.0.0.0/24"), *CLUSTER],
        [],
    ):
        await helper.set_routes(wanted)
        assert into("ts0") - linked == {str(network) for network in wanted}
    assert linked <= into("ts0")
    device.close()


async def test_a_route_of_last_resort_counts_where_no_other_leads(room):
    helper = client(room)
    device = await opened(helper)
    server, other = ip_network("192.0.2.53/32"), ip_network("192.0.2.54/32")
    before = table()
    await helper.set_routes(CLUSTER, [server])
    assert asked("route", "get", "192.0.2.53")[0]["dev"] == "ts0"
    assert table() - before == {(str(network), "ts0") for network in CLUSTER}
    asked("link", "set", "lo", "up")
    asked("route", "add", "192.0.2.0/24", "dev", "lo")
    assert asked("route", "get", "192.0.2.53")[0]["dev"] == "lo"
    await helper.set_routes(CLUSTER, [other])
    (left,) = asked("-4", "route", "show", "table", "default")
    assert (left["dst"], left["dev"]) == ("192.0.2.54", "ts0")
    await helper.set_routes(CLUSTER)
    assert asked("-4", "route", "show", "table", "default") == []
    device.close()


async def test_hundreds_of_routes_are_set(room):
    helper = client(room)
    device = await opened(helper)
    wanted = list(ip_network("10.0.0.0/8").subnets(new_prefix=17))
    await helper.set_routes(wanted)
    assert {str(network) for network in wanted} <= into("ts0")
    device.close()


async def test_routes_of_others_are_seen_and_left_alone(room):
    fd, _ = open_tun("wg0", offload=False)
    asked("link", "set", "wg0", "up")
    asked("addr", "add", "10.200.0.1/16", "dev", "wg0")
    before = into("wg0")
    helper = client(room)
    device = await opened(helper)
    await helper.set_routes(CLUSTER)
    await helper.set_routes([])
    assert into("wg0") == before
    device.close()
    os.close(fd)


async def test_a_conflict_is_found_before_anything_is_touched(room):
    fd, _ = open_tun("wg0", offload=False)
    asked("link", "set", "wg0", "up")
    asked("addr", "add", "10.100.0.1/16", "dev", "wg0")
    before = table()
    existing = await client(room).routes()
    with pytest.raises(RouteConflict, match="wg0"):
        plan(
            cluster=CLUSTER, also_proxy=(), never_proxy=(), keep_out=(), existing=existing,
            device="ts0",
        )  # fmt: skip
    assert table() == before
    assert "ts0" not in devices()
    os.close(fd)


async def test_a_second_device_of_the_same_name_is_a_clear_error(room):
    fd, _ = open_tun("ts0", offload=False)
    with pytest.raises(HostError, match="there is a device ts0 already"):
        await opened(client(room))
    assert "ts0" in devices()
    os.close(fd)


async def test_where_ipv6_is_switched_off_ipv4_works(room):
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
    helper = client(room)
    device = await opened(helper)
    await helper.set_routes(CLUSTER)
    assert into("ts0") == {"10.96.0.0/12", "198.18.0.0/30"}
    device.close()


async def test_a_device_that_is_gone_is_an_error_and_not_the_end(room):
    helper = client(room)
    device = await opened(helper)
    device.close()
    with pytest.raises(HostError, match="no device ts0"):
        await helper.set_routes(CLUSTER)
    await helper.hello()


@pytest.mark.parametrize(
    "arguments",
    [{"name": "../etc"}, {"name": ""}, {"mtu": 100}, {"mtu": 70_000}, {"txqueuelen": 0}],
)
async def test_a_device_outside_the_settings_limits_is_refused(room, arguments):
    wanted = {"mtu": 1500, "offload": True, "txqueuelen": 500, "addresses": ADDRESSES}
    name = arguments.pop("name", "ts0")
    with pytest.raises(ConfigError):
        await client(room).open_device(name, **{**wanted, **arguments})
    assert devices() == {"lo"}


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\x00",
        b"[]",
        b"7",
        b'{"id": 1}',
        b'{"id": 1, "verb": "format_disk"}',
        b'{"id": 1, "verb": "hello", "extra": 1}',
        b'{"id": 1, "verb": []}',
        b'{"id": 1, "verb": "set_routes", "networks": ["10.0.0.0/8"], "last_resort": []}',
        b'{"id": 1, "verb": "set_routes", "networks": ["10.0.0.0/8"]}',
        b'{"id": 1, "verb": "open_device", "name": "ts0", "mtu": "x", "offload": true,'
        b' "txqueuelen": 500, "addresses": []}',
        b'{"id": 1, "verb": "open_device", "name": "ts0", "mtu": 1500, "offload": true,'
        b' "txqueuelen": 500, "addresses": ["here"]}',
    ],
)
def test_what_it_does_not_understand_is_refused_and_it_goes_on(room, message):
    assert room.raw(message)["error"]["code"]
    assert room.raw(b'{"id": 2, "verb": "hello"}')["ok"]["pid"] == room.process.pid
    assert devices() == {"lo"}


async def test_a_late_answer_is_not_taken_for_the_next_one(room):
    room.raw(b'{"id": 0, "verb": "hello"}')
    helper = client(room, timeout=2)
    os.kill(room.process.pid, signal.SIGSTOP)
    with pytest.raises(HostError, match=r"routes in 2 s \(timeouts.helper\)"):
        await helper.routes()
    os.kill(room.process.pid, signal.SIGCONT)
    await helper.hello()
    assert helper.pid == room.process.pid


async def test_the_engine_learns_that_the_helper_was_killed(room):
    lost = asyncio.Event()
    helper = client(room, on_lost=lost.set)
    await helper.hello()
    room.process.kill()
    await asyncio.wait_for(lost.wait(), 10)
    with pytest.raises(HostError, match="helper has ended"):
        await helper.hello()


async def test_a_request_that_the_helper_dies_under_is_an_error(room):
    helper = client(room)
    await helper.hello()
    os.kill(room.process.pid, signal.SIGSTOP)
    asking = asyncio.ensure_future(helper.routes())
    await asyncio.sleep(0)
    room.process.kill()
    with pytest.raises(HostError, match="helper has ended"):
        await asyncio.wait_for(asking, 10)


def test_end_of_file_removes_the_runtime_directory_and_ends_well(room):
    room.raw(b'{"id": 1, "verb": "hello"}')
    room.engine.close()
    assert room.ended() == 0
    assert not room.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(room, number):
    room.raw(b'{"id": 1, "verb": "hello"}')
    room.process.send_signal(number)
    assert room.ended() == 0
    assert not room.directory.exists()
    assert room.engine.recv(1) == b""


def test_a_stranger_is_not_served(namespace, tmp_path):
    """The socket of another user than root and the one named: SO_PEERCRED tells."""
    program = (
        "import os, socket\n"
        "os.setegid(65534); os.seteuid(4242)\n"
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.seteuid(0); os.setegid(0)\n"
        "b.set_inheritable(True)\n"
        "import sys\n"
        "os.execv(sys.executable, [sys.executable, '-P', '-m', 'tunstack.host.helper',\n"
        "    '--fd', str(b.fileno()), '--uid', '1234', '--runtime-dir', sys.argv[1],\n"
        "    '--name', 'test'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "kept")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not serve uid 4242" in done.stderr


@pytest.fixture
def engine(room) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a device with routes."""
    script = str(Path(__file__).with_name("engine_stand_in.py"))
    made = room.start(script, str(room.engine.fileno()), keep=room.engine.fileno())
    room.engine.close()
    assert made.stdout.readline() == "ready\n"
    assert "10.96.0.0/12" in into("ts0")
    yield made
    with suppress(ProcessLookupError):
        made.kill()
    made.wait(10)
    made.stdout.close()


def nothing_stays() -> bool:
    return devices() == {"lo"} and not table()


def test_kill_of_the_engine_leaves_nothing(room, engine):
    engine.kill()
    engine.wait(10)
    assert room.ended() == 0
    assert nothing_stays()
    assert not room.directory.exists()


def test_kill_of_the_helper_leaves_nothing(room, engine):
    room.process.kill()
    assert engine.wait(10) == 0
    assert nothing_stays()


def test_kill_of_both_leaves_nothing(room, engine):
    room.process.kill()
    engine.kill()
    room.ended()
    engine.wait(10)
    assert nothing_stays()


def test_loads_no_grpc(room):
    room.raw(b'{"id": 1, "verb": "hello"}')
    assert "grpc" not in Path(f"/proc/{room.process.pid}/maps").read_text()


class Mounted(Room):
    """A helper with an /etc and a /var/lib of its own, which are directories of ours."""

    def __init__(self, base: Path) -> None:
        self.etc, self.lib = base / "etc", base / "lib"
        self.resolv_conf = self.etc / "resolv.conf"
        if not self.etc.exists():
            self.etc.mkdir()
            self.lib.mkdir()
            (self.etc / "stub").write_text(BEFORE)
            self.resolv_conf.symlink_to("stub")
        session = base / "session"
        session.mkdir(exist_ok=True)
        mounts = (
            'mount --bind "$0" /etc && mount --bind "$1" /var/lib && shift && exec "$@"'
        )
        where = [str(self.etc), str(self.lib)]
        super().__init__(session, under=["unshare", "-m", "sh", "-c", mounts, *where])

    @property
    def restored(self) -> bool:
        link = self.resolv_conf
        return link.is_symlink() and link.read_text() == BEFORE and not self.records

    @property
    def records(self) -> list[Path]:
        return list(self.lib.glob("tunstack/journal/*"))


BEFORE = "nameserver 192.0.2.53\nsearch lan\n"

STATE = ResolverState(
    mode="files",
    servers=(ip_address("198.18.0.2"), ip_address("fd74::2")),
    domains=("cluster.local", "svc", "default"),
    search=("default.svc.cluster.local",),
    name_servers=(ip_address("192.0.2.53"), ip_address("127.0.0.53")),
    port=5353,
)
OVERRIDING = replace(STATE, mode="overriding")
NONE = ResolverState(mode="none")


@pytest.fixture
def mounted(namespace, tmp_path) -> Iterator[Mounted]:
    made = Mounted(tmp_path)
    yield made
    made.engine.close()
    made.process.kill()
    made.process.wait(10)
    made.process.stdout.close()


def tables() -> str:
    return subprocess.check_output(["nft", "list", "ruleset"], text=True, timeout=10)


async def test_each_mode_undoes_the_one_before(mounted):
    helper = client(mounted)
    device = await opened(helper)
    for _ in range(2):
        assert await helper.set_resolver(STATE) == "/etc/resolv.conf"
        assert "nameserver 198.18.0.2\n" in mounted.resolv_conf.read_text()
        assert tables() == ""
        assert await helper.set_resolver(OVERRIDING) == "nftables"
        assert "redirect to :5353" in tables()
        assert "dnat ip to 198.18.0.2:53" in tables()
        assert mounted.restored
    assert await helper.set_resolver(NONE) is None
    assert tables() == ""
    assert mounted.restored
    device.close()


async def test_setting_the_resolver_again_is_the_whole_desired_state(mounted):
    helper = client(mounted)
    device = await opened(helper)
    for state in (STATE, STATE, replace(STATE, search=())):
        await helper.set_resolver(state)
    assert "search lan\n" in mounted.resolv_conf.read_text()
    one = replace(OVERRIDING, name_servers=STATE.name_servers[:1])
    for state in (OVERRIDING, OVERRIDING, one):
        await helper.set_resolver(state)
    assert "192.0.2.53" in tables()
    assert "127.0.0.53" not in tables()
    device.close()


async def test_a_mode_that_cannot_be_had_leaves_nothing_and_another_may_follow(
    mounted,
):
    """There may be a resolved on this machine: it is not of this network namespace."""
    helper = client(mounted)
    device = await opened(helper)
    await helper.set_resolver(STATE)
    with pytest.raises(HostError, match=r"systemd-resolved|D-Bus"):
        await helper.set_resolver(replace(STATE, mode="resolved"))
    assert mounted.restored
    with pytest.raises(HostError, match="needs a port"):
        await helper.set_resolver(replace(OVERRIDING, port=None))
    assert await helper.set_resolver(STATE) == "/etc/resolv.conf"
    device.close()


@pytest.mark.parametrize("state", [STATE, OVERRIDING], ids=lambda state: state.mode)
@pytest.mark.parametrize("end", ["end of file", "SIGTERM"])
async def test_at_its_end_the_resolver_is_what_it_was(mounted, state, end):
    helper = client(mounted)
    device = await opened(helper)
    await helper.set_resolver(state)
    if end == "SIGTERM":
        mounted.process.terminate()
    else:
        helper.close()
    assert mounted.ended() == 0
    assert mounted.restored
    assert tables() == ""
    device.close()


async def test_what_a_killed_helper_left_the_next_one_undoes(mounted, tmp_path):
    helper = client(mounted)
    device = await opened(helper)
    await helper.set_resolver(STATE)
    mounted.process.kill()
    mounted.ended()
    device.close()
    assert "198.18.0.2" in mounted.resolv_conf.read_text()
    again = Mounted(tmp_path)
    other = client(again)
    assert not again.restored
    device = await opened(other)
    assert again.restored
    device.close()
    other.close()
    assert again.ended() == 0
    again.process.stdout.close()


async def test_what_somebody_else_made_of_the_file_is_left_alone(mounted):
    helper = client(mounted)
    device = await opened(helper)
    await helper.set_resolver(STATE)
    mounted.resolv_conf.write_text("nameserver 192.0.2.7\n")
    helper.close()
    assert mounted.ended() == 0
    assert mounted.resolv_conf.read_text() == "nameserver 192.0.2.7\n"
    assert mounted.records == []
    device.close()


async def test_a_signal_waits_for_the_request_in_hand(mounted, monkeypatch, tmp_path):
    """A bus that says nothing keeps the helper busy, in an event loop."""
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "bus"))
        bus.listen()
        bus.settimeout(10)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        (tmp_path / "other").mkdir()
        under = ["unshare", "-m", "sh", "-c", NO_JOURNAL, "sh"]
        room = Room(tmp_path / "other", under=under)
        helper = client(room)
        device = await opened(helper)
        asking = asyncio.ensure_future(helper.set_resolver(replace(STATE, mode="resolved")))
        connection, _ = await asyncio.to_thread(bus.accept)
        room.process.terminate()
        with connection, pytest.raises(HostError, match="did not answer in 3 s"):
            await asking
        assert room.ended() == 0
        device.close()
        room.process.stdout.close()


async def test_without_a_device_there_is_no_resolver_to_set(mounted):
    with pytest.raises(HostError, match="no device for a resolver"):
        await client(mounted).set_resolver(STATE)
    assert mounted.restored


def repr_short(value: object) -> str:
    return repr(value)[:40]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "windows"},
        {"servers": []},
        {"servers": "198.18.0.2"},
        {"servers": ["198.18.0.2", "198.18.0.6"]},
        {"servers": ["fd74::2%x\noptions evil"]},
        {"servers": ["0.0.0.0"]},
        {"servers": [1]},
        {"domains": ["~svc"]},
        {"domains": [""]},
        {"domains": ["a..b"]},
        {"domains": ["../../etc/passwd"]},
        {"domains": ["a" * 64]},
        {"domains": [".".join(["a" * 63] * 4) + ".b"]},
        {"domains": ["svc\n"]},
        {"domains": [f"n{number}" for number in range(1025)]},
        {"search": ["lan\nnameserver 192.0.2.9"]},
        {"search": None},
        {"name_servers": ["localhost"]},
        {"name_servers": ["224.0.0.251"]},
        {"name_servers": ["2001:db8::1%x -j ACCEPT"]},
        {"name_servers": ["192.0.2.1"] * 33},
        {"port": 0},
        {"port": 65_536},
        {"port": "53"},
        {"port": True},
        {"extra": 1},
    ],
    ids=repr_short,
)
def test_a_state_that_cannot_be_is_refused(wrong):
    good = STATE.as_request()
    with pytest.raises((HostError, ValueError, TypeError)):
        ResolverState.from_request(**{**good, **wrong})


async def test_a_request_for_a_state_that_cannot_be_changes_nothing(mounted):
    helper = client(mounted)
    device = await opened(helper)
    good = STATE.as_request()
    await helper.set_resolver(STATE)
    text = mounted.resolv_conf.read_text()
    for wrong in ({"mode": "windows"}, {"servers": [1]}, {"search": ["a b"]}, {"x": 1}):
        with pytest.raises(HostError):
            await helper._ask("set_resolver", **{**good, **wrong})
        assert mounted.resolv_conf.read_text() == text
    device.close()


def test_a_state_is_the_same_at_both_ends():
    assert ResolverState.from_request(**STATE.as_request()) == STATE
    scoped = replace(STATE, name_servers=(ip_address("fe80::1%eth0"),))
    assert ResolverState.from_request(**scoped.as_request()) == scoped


async def test_opens_sockets_with_our_mark(room):
    helper = client(room)
    kinds = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
    for family, domain in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        for kind in kinds:
            (made,) = await helper.open_sockets(family, kind, 1)
            with made:
                assert (made.family, made.type) == (domain, kinds[kind])
                assert made.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
                assert not os.get_blocking(made.fileno())
                assert made.gettimeout() == 0
                assert not made.get_inheritable()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def test_as_many_sockets_as_one_answer_has(room):
    helper = client(room)
    made = await helper.open_sockets(4, "udp", MAX_SOCKETS)
    assert len({one.fileno() for one in made}) == MAX_SOCKETS
    for one in made:
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
        one.close()
    # It lets go of its own right after the answer.
    lab.wait_until(
        lambda: len(os.listdir(f"/proc/{room.process.pid}/fd")) < MAX_SOCKETS,
        10,
        "the helper has closed its own",
    )


async def test_other_sockets_are_refused(room):
    helper = client(room)
    for family, kind, count in (
        (5, "udp", 1),
        (4, "icmp", 1),
        (4, "udp", 0),
        (4, "udp", MAX_SOCKETS + 1),
        (4, "udp", "1"),
        ([], "udp", 1),
    ):
        with pytest.raises(HostError):
            await helper.open_sockets(family, kind, count)
    await helper.hello()


async def test_sockets_that_come_too_late_are_closed(room):
    assert room.raw(b'{"id": 0, "verb": "hello"}')["ok"]
    helper = client(room, timeout=1)
    before = descriptors()
    os.kill(room.process.pid, signal.SIGSTOP)
    with pytest.raises(HostError, match="did not answer open_sockets"):
        await helper.open_sockets(4, "udp", MAX_SOCKETS)
    os.kill(room.process.pid, signal.SIGCONT)
    await helper.hello()
    assert descriptors() == before


async def test_sockets_for_somebody_who_has_just_given_up_are_closed(room):
    helper = client(room)
    await helper.hello()
    before = descriptors()
    asking = asyncio.ensure_future(helper.open_sockets(4, "udp", MAX_SOCKETS))
    await asyncio.sleep(0)
    select.select([room.engine], [], [], 10)
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the answer is there, and whoever asked has not looked
    assert len(descriptors()) >= len(before) + MAX_SOCKETS
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert descriptors() == before
    await helper.hello()
