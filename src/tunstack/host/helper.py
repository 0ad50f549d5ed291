"""The helper: the only process that is root, and what root is needed for.

Theory of operation. `tunstack connect` starts the helper and the engine with a socket
between them. The engine, which is not root, asks; the helper opens the device, sets its
address and routes, and hands the descriptor over: device and routes live and die with
the engine's descriptor. What it does to the host's resolver lives in part longer, and
that part is in a journal (``journal.py``) before it is done; ``resolver.py`` says which.

* The engine ends, however it ends: the socket reports end of file. The helper undoes
  what it did to the resolver, removes the session's runtime directory and ends.
* The helper is killed: the engine sees the end of file, closes the device and ends.
* Both are killed: the kernel has removed device and routes; the next `connect` clears
  the directory away, and its helper undoes what the journal tells of.

SIGTERM and SIGINT are what end of file is, but wait for the request in hand.

Nobody else can ask: there is no path to the socket, and the other end must belong to
root or to the engine's user. A request is one JSON object in one message of a
SOCK_SEQPACKET socket, with its number as ``id``; so is the answer, with the same
``id`` and ``{"ok": ...}`` or ``{"error": {"code", "message", "hint"}}``.

==============  ============================================  ======================
verb            arguments                                     answer
==============  ============================================  ======================
hello                                                         version, protocol, pid
routes                                                        network, interface each
open_device     name, mtu, offload, txqueuelen, addresses     vnet; the descriptor
set_routes      networks, last_resort: all that shall be      null
                routed
set_resolver    mode, servers, domains, search, name_servers  by: who does it, or null
                and port: all that is wanted of the resolver
open_sockets    family (4, 6), kind (udp, tcp), count         null; the descriptors,
                                                              with the mark of our server
==============  ============================================  ======================
"""

import argparse
import array
import json
import logging
import os
import shutil
import signal
import socket
import struct
from collections.abc import Callable
from importlib import import_module
from ipaddress import ip_interface, ip_network
from typing import Any

from tunstack._version import HELPER_PROTOCOL, PRODUCT
from tunstack.config import RoutingConfig
from tunstack.errors import HostError, PrivilegeError, TunstackError
from tunstack.host import journal, routes_linux
from tunstack.host.device import open_tun
from tunstack.host.marked import open_marked
from tunstack.host.protocol import MAX_MESSAGE, MAX_SOCKETS
from tunstack.host.resolver import Resolver
from tunstack.host.resolver_state import ResolverState

_UCRED = struct.Struct("3i")

_ENDING = (signal.SIGTERM, signal.SIGINT)

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_KIND = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}

_log = logging.getLogger(__name__)

Answer = tuple[Any, list[int]]
"""What was asked for, and descriptors to pass and then close."""


class Ended(Exception):
    """A signal asked the helper to end."""


class Helper:
    """Does what the engine at the other end of a socket may ask for.

    Args:
        engine: the socket.
        session: its name.
    """

    def __init__(self, engine: socket.socket, session: str) -> None:
        self._engine = engine
        self._device: str | None = None
        self._resolver = Resolver(session)
        self._verbs: dict[str, Callable[..., Answer]] = {
            "hello": self._hello,
            "routes": self._routes,
            "open_device": self._open_device,
            "set_routes": self._set_routes,
            "set_resolver": self._set_resolver,
            "open_sockets": self._open_sockets,
        }

    def serve(self) -> None:
        """Answer until the engine is gone."""
        while True:
            try:
                request = self._engine.recv(MAX_MESSAGE)
            except ConnectionError:
                return
            if not request:
                return
            # An event loop, which some of it runs in, would swallow the exception.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
            descriptors: list[int] = []
            answer: dict[str, Any] = {"id": None}
            try:
                arguments = self._understand(request)
                answer["id"] = arguments.pop("id", None)
                answer["ok"], descriptors = self._obey(arguments)
            except TunstackError as error:
                answer["error"] = {
                    "code": error.exit_code,
                    "message": str(error),
                    "hint": error.hint,
                }
            rights = array.array("i", descriptors).tobytes()
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
            try:
                self._engine.sendmsg([json.dumps(answer).encode()], control)
            except ConnectionError:
                return
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    def undo(self) -> None:
        """Undo what does not end with the device."""
        self._resolver.undo()

    def _understand(self, request: bytes) -> dict[str, Any]:
        try:
            return dict(json.loads(request))
        except (ValueError, TypeError) as exc:
            raise HostError("the helper was sent what is no JSON object") from exc

    def _obey(self, arguments: dict[str, Any]) -> Answer:
        try:
            verb = self._verbs[arguments.pop("verb")]
            return verb(**arguments)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise HostError(f"the helper does not understand a request: {exc!r}") from exc

    def _hello(self) -> Answer:
        identity = {"version": PRODUCT, "protocol": HELPER_PROTOCOL, "pid": os.getpid()}
        return identity, []

    def _routes(self) -> Answer:
        # The engine may read them as well, but would have to wait for the kernel.
        found = routes_linux.read_routes()
        return [[str(route.network), route.interface] for route in found], []

    def _open_device(
        self, name: str, mtu: int, offload: bool, txqueuelen: int, addresses: list[str]
    ) -> Answer:
        if self._device is not None:
            raise HostError(f"this session has the device {self._device} already")
        # The settings' own checks hold for what comes from the engine, too.
        RoutingConfig(device=name, mtu=mtu, txqueuelen=txqueuelen)
        checked = [str(ip_interface(text)) for text in addresses]
        for line in journal.replay():
            _log.warning("%s", line)
        fd, vnet = open_tun(name, offload=bool(offload))
        try:
            routes_linux.configure(name, mtu=mtu, txqueuelen=txqueuelen, addresses=checked)
        except BaseException:
            os.close(fd)
            raise
        self._device = name
        return {"vnet": vnet}, [fd]

    def _set_routes(self, networks: list[str], last_resort: list[str]) -> Answer:
        if self._device is None:
            raise HostError("this session has no device to route to")
        routes_linux.set_routes(
            self._device, map(ip_network, networks), map(ip_network, last_resort)
        )
        return None, []

    def _set_resolver(self, **arguments: Any) -> Answer:
        state = ResolverState.from_request(**arguments)
        if self._device is None:
            raise HostError("this session has no device for a resolver")
        return {"by": self._resolver.set(state, self._device)}, []

    def _open_sockets(self, family: int, kind: str, count: int) -> Answer:
        if not 1 <= count <= MAX_SOCKETS:
            raise ValueError(f"want 1 to {MAX_SOCKETS} sockets, not {count}")
        version, wanted = _FAMILY[family], _KIND[kind]
        sockets: list[socket.socket] = []
        try:
            sockets.extend(open_marked(version, wanted) for _ in range(count))
        except HostError:
            for made in sockets:
                made.close()
            raise
        return None, [made.detach() for made in sockets]


def _check_peer(engine: socket.socket, uid: int) -> None:
    """Refuse to serve anybody but root and the engine's user (unix(7), SO_PEERCRED)."""
    credentials = engine.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    peer = _UCRED.unpack(credentials)[1]
    if peer not in (0, uid):
        raise PrivilegeError(f"the helper does not serve uid {peer}")


def _end(*_: object) -> None:
    raise Ended


def main() -> None:
    """Be the helper."""
    parser = argparse.ArgumentParser(prog="tunstack.host.helper")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--runtime-dir", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--names", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.names:
        # Now, while the engine loads, which takes longer.
        import_module("tunstack.host.resolved")
    os.chdir("/")
    os.umask(0o077)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("tunstack").setLevel(logging.INFO)
    engine = socket.socket(fileno=arguments.fd)
    _check_peer(engine, arguments.uid)
    helper = Helper(engine, arguments.name)
    for number in _ENDING:
        signal.signal(number, _end)
    try:
        helper.serve()
    except Ended:
        pass
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        helper.undo()
        # The engine learns it from the end of file, and lets the device go.
        engine.close()
        shutil.rmtree(arguments.runtime_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
