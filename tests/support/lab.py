"""A small world for tests from the outside: network namespaces and a tunnel between them.

    pod -- client -- gateway -- server

The manager runs in the gateway, which does not forward: nothing gets from the client
to the server but through the tunnel. With ``TUNSTACK_SYSTEM_DIRECT=1`` the gateway
does forward and no tunnel is made. What the tests then see is what the kernel does,
so a test that fails in that mode asks for the wrong thing.

``with lab.client:`` moves the calling thread into a namespace. A socket stays where it
was made, so one test can hold both ends of a connection.

Interfaces are called by where they lead: in the client, ``gateway`` is the way there.
"""

import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.support.servers import HTTP_PORT

DIRECT = os.environ.get("TUNSTACK_SYSTEM_DIRECT") == "1"
"""No tunnel: the gateway forwards."""

TRANSPORT = os.environ.get("TUNSTACK_SYSTEM_TRANSPORT", "lean")
"""Which gRPC carries the tunnel, at both ends unless a test says otherwise."""

MANAGER_PORT = 7777

TOOLS = ("ip", "nft", "curl", "ping")

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count(1)


def missing() -> str | None:
    """Say why no lab can be made here, or ``None`` when one can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"needs {tool}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The lab's addresses in one version of IP."""

    family: socket.AddressFamily
    pod: str
    pod_gateway: str
    """The client's, on the link to the pod."""
    client: str
    """On the link to the gateway."""
    gateway: str
    """On the link to the client: where the manager listens."""
    inner: str
    """The gateway's, on the link to the server: where the manager dials from."""
    server: str
    silent: str
    """The server's too, which drops whatever comes for it."""
    dead: str
    """On the server's link, but nobody's."""
    unreachable: str
    """The gateway's route says so: EHOSTUNREACH."""
    routeless: str
    """The gateway has no route: ENETUNREACH."""
    subnets: tuple[str, ...]
    """The networks of the last five."""

    def url(self, path: str) -> str:
        """A page of the server's HTTP server."""
        host = f"[{self.server}]" if self.family == socket.AF_INET6 else self.server
        return f"http://{host}:{HTTP_PORT}{path}"


V4 = Site(
    family=socket.AF_INET,
    pod="10.98.9.2",
    pod_gateway="10.98.9.1",
    client="10.98.1.1",
    gateway="10.98.1.2",
    inner="10.98.2.1",
    server="10.98.2.2",
    silent="10.98.2.9",
    dead="10.98.2.77",
    unreachable="10.98.3.3",
    routeless="10.98.4.4",
    subnets=("10.98.2.0/24", "10.98.3.0/24", "10.98.4.0/24"),
)

V6 = Site(
    family=socket.AF_INET6,
    pod="fd98:9::2",
    pod_gateway="fd98:9::1",
    client="fd98:1::1",
    gateway="fd98:1::2",
    inner="fd98:2::1",
    server="fd98:2::2",
    silent="fd98:2::9",
    dead="fd98:2::77",
    unreachable="fd98:3::3",
    routeless="fd98:4::4",
    subnets=("fd98:2::/64", "fd98:3::/64", "fd98:4::/64"),
)

MANAGER = f"{V4.gateway}:{MANAGER_PORT}"
"""Where :meth:`Lab.manage` starts one."""


class Namespace:
    """A network namespace, gone with everything in it when closed."""

    def __init__(self, name: str, logs: Path) -> None:
        self.name = name
        self._logs = logs
        self._outside: list[int] = []
        self._make()
        self._fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        self.ip("link set lo up")
        for key in ("ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"):
            self.sysctl(key, 0)
        for key in ("ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"):
            self.sysctl(key, 0)
        # The kernel answers each closed port, not one a second.
        self.sysctl("ipv4/icmp_ratelimit", 0)
        self.sysctl("ipv6/icmp/ratelimit", 0)
        self.sysctl("ipv4/ping_group_range", "0 2147483647")
        self.sysctl("ipv4/ip_local_port_range", "10000 65000")

    def _make(self) -> None:
        run("ip", "netns", "add", self.name)

    def __enter__(self) -> Self:
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        _enter(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        outside = self._outside.pop()
        _enter(outside)
        os.close(outside)

    def close(self) -> None:
        """End every process in the namespace and remove it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self._fd)
        run("ip", "netns", "del", self.name)
        shutil.rmtree(self._etc, ignore_errors=True)
        with suppress(OSError):
            self._etc.parent.rmdir()

    @property
    def _etc(self) -> Path:
        return Path("/etc/netns", self.name)

    @property
    def resolv_conf(self) -> Path:
        """What commands in it find at ``/etc/resolv.conf``, see :meth:`resolve_by`."""
        return self._etc / "resolv.conf"

    def resolve_by(self, *name_servers: str, more: str = "") -> None:
        """Give it a resolv.conf of its own; commands that run already see that change."""
        self._etc.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"nameserver {server}\n" for server in name_servers)
        # In place: what is mounted on resolv.conf is the file, not its name.
        self.resolv_conf.write_text(lines + more)

    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(pid) for pid in run("ip", "netns", "pids", self.name).split()]

    def ip(self, command: str) -> str:
        """Run ``ip`` in it; the words of ``command`` hold no spaces."""
        return run("ip", "-n", self.name, *command.split())

    def sysctl(self, key: str, value: object) -> None:
        """Set ``net/KEY``."""
        with self:
            Path("/proc/sys/net", key).write_text(str(value))

    def inside(self, *command: str) -> list[str]:
        """The command that runs ``command`` in it."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a command in it that must succeed; gives its standard output."""
        return run(*self.inside(*command), timeout=timeout)

    def start(
        self,
        *command: str,
        log: str,
        stdout: int | None = None,
        text: bool = True,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[Any]:
        """Start a command in it; the log ``log`` gets what it says."""
        with self.log(log).open("a") as file:
            return subprocess.Popen(
                self.inside(*command),
                stdin=subprocess.DEVNULL,
                stdout=file if stdout is None else stdout,
                stderr=file,
                text=text,
                env=env,
            )

    def log(self, name: str) -> Path:
        """Where the log ``name`` is."""
        return self._logs / name

    @contextmanager
    def firewall(self, *rules: str, hook: str = "prerouting") -> Iterator[str]:
        """Apply nftables rules while the context lasts; gives the table's name."""
        table = f"test{next(_serial)}"
        chain = "; ".join([f"type filter hook {hook} priority -300", *rules])
        self.nft(f"table inet {table} {{ chain packets {{ {chain}; }}; }}")
        try:
            yield table
        finally:
            self.nft(f"delete table inet {table}")

    def counted(self, table: str) -> list[int]:
        """Packets seen by each ``counter`` of a firewall, in the order of its rules."""
        rules = self.run("nft", "list", "table", "inet", table)
        return [int(count) for count in re.findall(r"counter packets (\d+)", rules)]

    def nft(self, ruleset: str) -> None:
        """Apply nftables commands."""
        subprocess.run(self.inside("nft", "-f", "-"), input=ruleset, text=True, check=True)

    def listen(self, site: Site, *, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Make a listening or bound socket on any port of any of its addresses."""
        with self:
            sock = socket.socket(site.family, kind)
        sock.bind(("", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
        sock.settimeout(10)
        return sock

    def new_socket(
        self, site: Site, *, kind: int = socket.SOCK_STREAM, timeout: float = 10
    ) -> socket.socket:
        """Make a socket in it."""
        with self:
            sock = socket.socket(site.family, kind)
        sock.settimeout(timeout)
        return sock

    def connect(self, site: Site, address: str, port: int) -> socket.socket:
        """Open a TCP connection from it."""
        sock = self.new_socket(site)
        sock.connect((address, port))
        return sock

    def state(self) -> str:
        """Everything that a tunnel could leave behind in a kernel, as text."""
        commands = ("link", "address", "route show table all", "-6 route show table all")
        rules = ("rule", "-6 rule")
        shown = [self.ip(f"-o {command}") for command in (*commands, *rules)]
        return "\n".join([*shown, self.run("nft", "list", "ruleset")])


class Lab:
    """The namespaces, and the tunnel's programs in them.

    Nothing of it outlives :meth:`close`, and nothing of it meets the machine's own
    settings, sessions or networks.
    """

    def __init__(self) -> None:
        self.name = f"ts-{os.getpid()}-{next(_serial)}"
        self.manager: subprocess.Popen[str] | None = None
        """The one started last."""
        self.transport = TRANSPORT
        """Of managers and sessions that are started from now on."""
        self._log_places: set[Path] = set()
        with ExitStack() as undo:
            # Not below pytest's directory: an unprivileged engine may not look into it.
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
            undo.callback(shutil.rmtree, self.directory)
            self.directory.chmod(0o711)
            self.logs = self.directory / "logs"
            self.logs.mkdir()
            self.runtime = self.directory / "run"
            self.runtime.mkdir(0o711)
            self.pod, self.client, self.gateway, self.server = (
                self._namespace(undo, place) for place in ("pod", "cl", "gw", "sv")
            )
            self._wire()
            self._close = undo.pop_all().close
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SUDO_", "TUNSTACK_", "XDG_"))
            or name == "TUNSTACK_FASTPATH"
        }
        self.environment = kept | {
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def close(self) -> None:
        """Remove the lab and end whatever runs in it."""
        self._close()
        for log in self.engine_logs():
            log.unlink()

    def engine_logs(self) -> list[Path]:
        """The logs of this lab's sessions, wherever tunstack keeps them."""
        found = (place.glob(f"{self.name}*") for place in self._log_places)
        return [log for logs in found for log in logs]

    def _namespace(self, undo: ExitStack, place: str) -> Namespace:
        namespace = Namespace(f"{self.name}-{place}", self.logs)
        undo.callback(namespace.close)
        return namespace

    def _wire(self) -> None:
        pod, client, gateway, server = self.pod, self.client, self.gateway, self.server
        link(pod, "client", "10.98.9.2 fd98:9::2", client, "pod", "10.98.9.1 fd98:9::1")
        link(
            client, "gateway", "10.98.1.1 fd98:1::1",
            gateway, "client", "10.98.1.2 fd98:1::2",
        )  # fmt: skip
        link(
            gateway, "server", "10.98.2.1 fd98:2::1",
            server, "gateway", "10.98.2.2 fd98:2::2",
        )  # fmt: skip
        # Deprecated, so that the server speaks from the other address.
        server.ip(f"address add {V4.silent}/24 dev gateway")
        server.ip(f"address add {V6.silent}/64 dev gateway nodad preferred_lft 0")
        for site, version, default in ((V4, "-4", "0.0.0.0/0"), (V6, "-6", "::/0")):
            pod.ip(f"{version} route add {default} via {site.pod_gateway}")
            server.ip(f"{version} route add {default} via {site.inner}")
            gateway.ip(f"{version} route add {site.pod} via {site.client}")
            gateway.ip(f"{version} route add unreachable {site.unreachable}")
        places = (pod, client, gateway, server)
        wait_until(
            lambda: not any("state DOWN" in place.ip("link") for place in places),
            10,
            "all links are up",
        )
        _forward(client)
        # Neighbour discovery goes on: without it the address would be dead, not silent.
        server.nft(
            "table inet silent { chain packets { type filter hook prerouting priority -400;"
            f"ip daddr {V4.silent} drop;"
            f"ip6 daddr {V6.silent} meta l4proto != icmpv6 drop;"
            f"ip6 daddr {V6.silent} icmpv6 type echo-request drop; }}; }}"
        )

    def forward(self) -> None:
        """Let the gateway forward, as if there were a tunnel."""
        _forward(self.gateway)
        for site, version in ((V4, "-4"), (V6, "-6")):
            for subnet in site.subnets:
                self.client.ip(f"{version} route add {subnet} via {site.gateway}")

    def serve(self) -> None:
        """Start the HTTP and the echo server."""
        program = Path(__file__).with_name("servers.py")
        server = self.server.start(
            sys.executable, "-P", str(program), log="servers", stdout=subprocess.PIPE
        )
        _await_line(server, "ready")

    def manage(self, *options: str, log: str = "manager") -> subprocess.Popen[str]:
        """Start a manager in the gateway and wait until it is ready.

        Without options it listens on the link to the client and knows of every network
        behind the gateway.
        """
        if not options:
            subnets = (*V4.subnets, *V6.subnets)
            options = ("--insecure", "--listen", MANAGER)
            options += tuple(f"--subnet={subnet}" for subnet in subnets)
        manager = self.gateway.start(
            *tunstack("manager", "--transport", self.transport, *options),
            log=log,
            stdout=subprocess.PIPE,
            env=self.environment,
        )
        _await_line(manager, "ready ")
        self.manager = manager
        return manager

    def connect(
        self,
        *options: str,
        manager: str = MANAGER,
        where: Namespace | None = None,
        name: str | None = None,
        dns: bool = False,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start ``connect --foreground`` in the client and wait until it works.

        Without ``dns`` names stay as they are.
        """
        name = name or self.name
        words = ("connect", "--foreground", "--insecure", "--name", name)
        process = (where or self.client).start(
            *tunstack(*words, *_names(dns), "--manager", manager, *options),
            log=f"connect-{name}",
            env=self._environment(environment),
        )

        def connected() -> bool:
            assert process.poll() is None, f"connect ended: {process.returncode}"
            return bool(self.status(name)["state"] == "connected")

        wait_until(connected, 30, f"session {name} connected")
        return process

    def connect_once(
        self,
        *options: str,
        manager: str = MANAGER,
        timeout: float = 30,
        dns: bool = False,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``connect``, which leaves its daemons running when it works."""
        words = ("connect", "--insecure", "--name", self.name, *_names(dns))
        return self.tunstack(
            *words, "--manager", manager, *options, timeout=timeout, **environment
        )

    def tunstack(
        self, *words: str, timeout: float = 30, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a tunstack command in the client to its end, whatever that is."""
        return subprocess.run(
            self.client.inside(*tunstack(*words)),
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        """Of a tunstack command."""
        return self.environment | {"TUNSTACK_TUNNEL_TRANSPORT": self.transport} | more

    def status(self, name: str | None = None) -> dict[str, Any]:
        """Give the document of ``status --json``; its exit code must agree."""
        result = self.tunstack("status", "--json", "--name", name or self.name)
        document: dict[str, Any] = json.loads(result.stdout)
        if document["log"] is not None:
            self._log_places.add(Path(document["log"]).parent)
        assert (result.returncode == 0) == (document["state"] == "connected")
        return document

    def memory(self) -> list[int]:
        """Octets resident in engine and manager; nothing when there is no tunnel."""
        if self.manager is None:
            return []
        return [rss(self.status()["engine"]["pid"]), rss(self.manager.pid)]

    def quit(self, name: str | None = None) -> None:
        """Disconnect a session."""
        result = self.tunstack("quit", "-s", "--name", name or self.name)
        assert result.returncode == 0, result.stderr


def tunstack(*words: str) -> list[str]:
    """The tunstack command of this Python."""
    script = Path(sys.executable).with_name("tunstack")
    if script.exists():
        return [str(script), *words]
    return [sys.executable, "-m", "tunstack.cli.main", *words]


def _names(dns: bool) -> tuple[str, ...]:
    return () if dns else ("--no-dns",)


def link(
    one: Namespace, device: str, addresses: str,
    other: Namespace, other_device: str, other_addresses: str,
) -> None:  # fmt: skip
    """Join two namespaces; addresses are separated by spaces, /24 and /64."""
    peer = f"peer name {other_device} netns {other.name}"
    run("ip", *f"link add {device} netns {one.name} type veth {peer}".split())
    for end, name, hosts in (
        (one, device, addresses),
        (other, other_device, other_addresses),
    ):
        for host in hosts.split():
            length = 64 if ":" in host else 24
            end.ip(f"address add {host}/{length} dev {name}")
        end.ip(f"link set {name} up")


def rss(pid: int) -> int:
    """Octets of memory that a process has resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_until(condition: Callable[[], T], timeout: float, what: str) -> T:
    """Poll until ``condition`` gives something true; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)
    return value


def _forward(namespace: Namespace) -> None:
    namespace.sysctl("ipv4/conf/all/forwarding", 1)
    namespace.sysctl("ipv6/conf/all/forwarding", 1)


def _await_line(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(start), f"{process.args!r} said {line!r}"


def run(*command: str, timeout: float = 60) -> str:
    """Run a command that must succeed; gives its standard output."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
