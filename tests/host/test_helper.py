"""The helper as a process, with a real device; nothing stays, whoever dies."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from tunstack._version import HELPER_PROTOCOL, PRODUCT
from tunstack.errors import ConfigError, HostError
from tunstack.host.device import open_tun
from tunstack.host.helper_client import Helper
from tunstack.host.routes import RouteConflict, plan

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("namespace")]

CLUSTER = [ip_network("10.96.0.0/12"), ip_network("fd00:10::/64")]
ADDRESSES = ["198.18.0.1/30", "fd74::1/126"]


class Room:
    """A helper process, and the socket that an engine has to it."""

    def __init__(self, directory: Path, uid: int = 0) -> None:
        self.directory = directory
        self.engine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.engine.settimeout(10)
        with theirs:
            self.process = self.start(
                *("-m", "tunstack.host.helper", "--name", "test"),
                *("--fd", str(theirs.fileno()), "--uid", str(uid)),
                *("--runtime-dir", str(directory)),
                keep=theirs.fileno(),
            )

    @staticmethod
    def start(*arguments: str, keep: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", *arguments],
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
    made = Room(directory)
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
    device = await opened(client(room))
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
