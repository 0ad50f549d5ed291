"""The world of a real device, a real engine and real sockets.

The peers live behind a TUN device of the test's own in the client's namespace. The kernel
there only forwards between it and the session's device, so no TCP but the engine's has
an opinion on what they send::

    peers -- [client] -- engine ~ manager -- server
"""

import errno
import itertools
import os
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.support.host import make_key
from tests.support.lab import Lab, Namespace, Site
from tests.support.packetdrill.notation import Call, Script
from tests.support.packetdrill.play import play
from tests.support.packetdrill.wire import ICMP, text
from tunstack.host.device import open_tun

NETWORKS = {4: "10.97.0.0/24", 6: "fd97::/64"}
"""Where the peers are."""

_PEERS = {4: "10.97.0.2", 6: "fd97::2"}
_RESET = struct.pack("ii", 1, 0)
"""A ``struct linger`` with which ``close`` resets."""


class Peers:
    """The device that peers send and receive by; packets go to whom they are for.

    Args:
        lab: its client gets the device.
        mtu: of the device.
    """

    def __init__(self, lab: Lab, mtu: int) -> None:
        client = lab.client
        self._inboxes: dict[int, queue.Queue[tuple[float, bytes]]] = {}
        self._ports = itertools.count(20_000)
        with client:
            self._device, _ = open_tun("peers", offload=False)
        client.ip("link set peers addrgenmode none")
        client.ip(f"link set peers mtu {mtu} up")
        for version, network in NETWORKS.items():
            client.ip(f"-{version} route add {network} dev peers")
        self._wake, self._woken = os.pipe()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        """Remove the device."""
        os.close(self._woken)
        self._reader.join()
        os.close(self._wake)
        os.close(self._device)

    def add(self) -> tuple[int, queue.Queue[tuple[float, bytes]]]:
        """Give a new peer its port, and where what comes for it will be."""
        port = next(self._ports)
        inbox = self._inboxes[port] = queue.Queue()
        return port, inbox

    def remove(self, port: int) -> None:
        """Forget a peer: from now on nobody takes what comes for it."""
        del self._inboxes[port]

    def send(self, packet: bytes) -> None:
        """Send a packet of any peer."""
        os.write(self._device, packet)

    def _read(self) -> None:
        while self._wake not in select.select([self._device, self._wake], [], [])[0]:
            packet = os.read(self._device, 65_536)
            came = time.monotonic()
            inbox = self._inboxes.get(_port(packet))
            if inbox is not None:
                inbox.put((came, packet))


def _port(packet: bytes) -> int:
    """The port of the peer that a packet is for, or that it quotes a packet of."""
    head, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    if protocol in ICMP.values():
        return int.from_bytes(packet[2 * head + 8 : 2 * head + 10], "big")
    return int.from_bytes(packet[head + 2 : head + 4], "big")


def run(script: Script, lab: Lab, site: Site, peers: Peers) -> None:
    """Play a script through the tunnel of ``lab``.

    Raises:
        Mismatch: see :func:`tests.support.packetdrill.play.play`.
    """
    with ExitStack() as undo:
        world = Tunnel(script, lab.server, site, peers, undo)
        play(script, world, world.key)


class Tunnel:
    """One flow through the tunnel, and the target's sockets.

    Real time passes while packets are on their way, so a packet may be a little early by
    our clock, and late by as much as this computer has to do.
    """

    early = 0.1
    late = 2.0
    ticks = 5_000
    settle = 0.1

    def __init__(
        self, script: Script, server: Namespace, site: Site, peers: Peers, undo: ExitStack
    ) -> None:
        calls = [event.what.name for event in script.events if isinstance(event.what, Call)]
        self._datagrams = "SOCK_DGRAM" in script.events[0].text
        kind = socket.SOCK_DGRAM if self._datagrams else socket.SOCK_STREAM
        with server:
            self._socket = undo.enter_context(socket.socket(site.family, kind))
        target = script.directives.get("target", "refused")
        address = {
            "refused": site.server,
            "host unreachable": site.unreachable,
            "network unreachable": site.routeless,
        }[target]
        self._socket.bind((site.server, 0))
        self._socket.settimeout(self.late)
        number = self._socket.getsockname()[1]
        if self._datagrams and "bind" not in calls:
            self._socket.close()  # nobody else takes the port as soon as that
        self._undo = undo
        self._peers = peers
        port, self._inbox = peers.add()
        undo.callback(peers.remove, port)
        version = 4 if site.family == socket.AF_INET else 6
        self.key = make_key(6, _PEERS[version], port, address, number)
        self._accepted: dict[str, _Accepted] = {}
        self._asker: Any = None

    def now(self) -> float:
        return time.monotonic()

    def take(self, until: float) -> tuple[float, bytes] | None:
        try:
            return self._inbox.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def send(self, packet: bytes) -> None:
        self._peers.send(packet)

    def call(self, call: Call) -> int | str:
        try:
            made: Callable[[Call], int] = getattr(self, f"_call_{call.name}")
            return made(call)
        except OSError as exc:
            return errno.errorcode.get(exc.errno or errno.EAGAIN, str(exc))

    def _call_true(self, _call: Call) -> int:
        return 0

    def _call_socket(self, _call: Call) -> int:
        return 3

    def _call_bind(self, _call: Call) -> int:
        return 0

    def _call_listen(self, _call: Call) -> int:
        self._socket.listen()
        return 0

    def _call_setsockopt(self, call: Call) -> int:
        assert call.arguments[2] == "SO_LINGER", "the buffer is the kernel's"
        self._accepted[call.arguments[0]].reset_on_close()
        return 0

    def _call_accept(self, _call: Call) -> int:
        connection, _ = self._socket.accept()
        accepted = _Accepted(connection, self.late)
        # Whatever is left when the script ends, is reset: the engine forgets it.
        self._undo.callback(accepted.close)
        self._undo.callback(accepted.reset_on_close)
        number = 4 + len(self._accepted)
        self._accepted[str(number)] = accepted
        return number

    def _call_write(self, call: Call) -> int:
        return self._accepted[call.arguments[0]].write(int(call.arguments[2]))

    def _call_read(self, call: Call) -> int:
        return self._accepted[call.arguments[0]].read(int(call.arguments[2]), call.result)

    def _call_shutdown(self, call: Call) -> int:
        self._accepted[call.arguments[0]].connection.shutdown(socket.SHUT_WR)
        return 0

    def _call_close(self, call: Call) -> int:
        self._accepted[call.arguments[0]].close()
        return 0

    def _call_sendto(self, call: Call) -> int:
        return self._socket.sendto(text(0, int(call.arguments[2])), self._asker)

    def _call_recvfrom(self, call: Call) -> int:
        payload, self._asker = self._socket.recvfrom(int(call.arguments[2]))
        assert payload == text(0, len(payload)), "a datagram is not what was sent"
        return len(payload)


class _Accepted:
    """A connection of the target."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        connection.settimeout(timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._read = 0
        self._written = 0

    def reset_on_close(self) -> None:
        if self.connection.fileno() >= 0:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def close(self) -> None:
        self.connection.close()

    def write(self, octets: int) -> int:
        self.connection.sendall(text(self._written, octets))
        self._written += octets
        return octets

    def read(self, most: int, expected: int) -> int:
        """Read ``expected`` octets, which may come in pieces, or find out what is wrong."""
        came = self.connection.recv(most)
        while came and len(came) < expected and (more := self.connection.recv(most)):
            came += more
        assert came == text(self._read, len(came)), "text is not what was sent"
        self._read += len(came)
        return len(came)
