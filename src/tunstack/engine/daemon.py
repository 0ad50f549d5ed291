"""The engine as a process of its own: one session, from `connect` to its end.

`tunstack connect` starts it as root with three sockets: to the command itself (the
*owner*), to the helper, and the listening control socket of the session. The engine
loads all its code, because the interpreter may live where only root reads, gives up
root for good, and then listens to the owner, who sends one line::

    {"settings": {...}, "token": ..., "ca": ..., "insecure": ..., "hold": ...,
     "kubernetes": {"access": {...}, "environment": {...}, "uid": ...}}

with plain settings (``config.py``), the bearer token, the PEM of authorities, and
whether the session ends when the owner hangs up. ``kubernetes`` is null for a manager
reached directly; else it has the access to the API server (``cluster/access.py``), and
whose kubeconfig that is of. Credentials come this way and not as files, which the
engine may not be able to read. The owner gets progress, then the status document or an
error; with ``hold`` it gets ``{"ok": null}`` or an error once more when the session ends.
If it hangs up before the session works, there will be none.

Credentials for the API server expire. While there is an owner it is asked for new ones,
``{"renew": true}``, and answers ``{"access": ...}`` or ``{"error": ...}``. Later the engine
reads the kubeconfig itself, if it runs as the user whose that is.

The engine ends when told to, by the owner, by ``quit`` or by a signal, and when the
helper or the device is gone. It undoes nothing: device and routes die with its last
descriptor, the rest is the helper's, which sees the end of file. So `kill -9` of either
leaves nothing behind that the next `connect` would not clear away.
"""

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunstack import _fastpath
from tunstack._version import PRODUCT, PROTOCOL
from tunstack.config import Config, build
from tunstack.engine.attachment import Attachment
from tunstack.engine.control import Document, blank_status, error_document, no_names
from tunstack.engine.control_server import ControlServer, Conversation, Verb
from tunstack.engine.link import parse_endpoint
from tunstack.engine.links import Links
from tunstack.engine.way import Direct, Way
from tunstack.errors import AuthError, HostError, TunstackError, UsageError, from_code
from tunstack.host.helper_client import Helper
from tunstack.rpc import transport
from tunstack.rpc.loop import run

if TYPE_CHECKING:
    from tunstack.engine.kubernetes import ThroughKubernetes
    from tunstack.engine.nameserver import NameServer
    from tunstack.engine.resolution import Resolution

_log = logging.getLogger("tunstack.engine")

GOODBYE = 1.0
"""Seconds that the manager may take to hear that the session is over."""

_LATER = ("concurrent.futures.thread", "encodings.idna", "linecache", "traceback")
"""What Python imports on first use, when we may no longer be able to read it."""

_LATER_KUBERNETES = ("tunstack.engine.kubernetes", "tunstack.engine.renewal")
"""The same, when there is a cluster."""

_LATER_NAMES = ("tunstack.engine.resolution",)
"""The same, when names are resolved."""

FOLLOW = 30.0
"""Seconds after which the names of the way to the manager are looked up again."""

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


class Daemon:
    """One session on this computer, and who may ask about it.

    Args:
        name: the session's.
        log: where this process's log goes, for people.
        helper: connected to the helper.
    """

    def __init__(self, name: str, log: str, helper: socket.socket) -> None:
        self._name = name
        self._log_path = log
        self._helper_socket = helper
        self._helper: Helper | None = None
        self._links: Links | None = None
        self._kubernetes: ThroughKubernetes | None = None
        self._renews_itself = False
        self._owner: _Owner | None = None
        self._attachment: Attachment | None = None
        self._resolution: Resolution | None = None
        self._config = Config()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, owner_socket: socket.socket, listener: socket.socket) -> None:
        """Live the session.

        Args:
            owner_socket: connected to the `connect` command.
            listener: the session's control socket.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        verbs: dict[str, Verb] = {
            "status": self.status,
            "quit": lambda: self.stop(),
            "dns_query": self._dns_query,
            "dns_log": self._dns_log,
        }
        server = ControlServer(verbs, frozenset({0, os.getuid()}))
        await server.start(listener)
        owner = await Conversation.on(owner_socket)
        try:
            async with AsyncExitStack() as undo:
                await self._live(owner, undo)
            owner.write({"ok": None})
        except TunstackError as error:
            _log.error("the session ends: %s", error)
            owner.write(error_document(error))
        except Exception as error:  # noqa: BLE001 - the owner has to hear of it
            _log.exception("the session ends by a bug")
            owner.write(error_document(TunstackError(f"the engine failed: {error!r}")))
        finally:
            server.close()
            owner.close()

    def stop(self, error: TunstackError | None = None) -> None:
        """End the session: in order, or because of an error that the owner is told."""
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)

    async def _live(self, conversation: Conversation, undo: AsyncExitStack) -> None:
        request = await conversation.read()
        if request is None:
            return
        owner = self._owner = _Owner(conversation)
        undo.callback(owner.close)
        attempt = asyncio.ensure_future(self._connect(request, owner, undo))
        await _first(attempt, owner.gone, self._end)
        if not attempt.done():
            attempt.cancel()
            with suppress(asyncio.CancelledError):
                await attempt
            if self._end.done():
                self._end.result()
            return
        attempt.result()
        _log.info("connected")
        owner.write({"ok": self.status()})
        if request["hold"]:
            await _first(owner.gone, self._end)
            self.stop()
        else:
            owner.close()
            self._owner = None
            conversation.close()
        await self._end
        _log.info("the session ends as asked")

    async def _connect(
        self, request: Document, owner: "_Owner", undo: AsyncExitStack
    ) -> None:
        """Do what makes a session, each step with its undoing."""

        def progress(text: str) -> None:
            _log.info("%s", text)
            owner.write({"progress": text})

        config = self._config = build(request["settings"])
        logging.getLogger("tunstack").setLevel(config.log.level.upper())
        helper = Helper(
            self._helper_socket,
            on_lost=self._helper_lost,
            timeout=config.timeouts.helper,
        )
        undo.callback(helper.close)
        await helper.hello()
        self._helper = helper

        way = self._way(request, progress)
        links = Links(
            way,
            token=request["token"],
            config=config,
            count=way.sessions,
            progress=progress,
        )
        undo.push_async_callback(_say_goodbye, links)
        keep_out = await way.addresses()
        await links.start()
        self._links = links

        progress(f"opening {config.routing.device} and routing the cluster into it")
        self._attachment = await Attachment.make(
            links,
            helper,
            config,
            keep_out,
            on_lost=lambda: self.stop(
                HostError(f"the device {config.routing.device} is gone")
            ),
        )
        undo.callback(self._attachment.close)
        if config.dns.mode != "none":
            from tunstack.engine.resolution import Resolution

            self._resolution = await Resolution.make(
                links, helper, self._attachment, config, self._namespace(), progress
            )
            undo.callback(self._resolution.close)
        follower = asyncio.ensure_future(self._follow(way))
        undo.callback(follower.cancel)

    def _way(self, request: Document, progress: Callable[[str], None]) -> Way:
        config, said = self._config, request["kubernetes"]
        if said is None:
            assert config.tunnel.manager is not None  # the command line saw to it
            return Direct(
                parse_endpoint(
                    config.tunnel.manager,
                    tls_ca=request["ca"],
                    insecure=request["insecure"],
                )
            )
        # Here, because a manager reached directly needs neither HTTP nor YAML.
        from tunstack.cluster.access import Access
        from tunstack.engine.kubernetes import ThroughKubernetes
        from tunstack.engine.renewal import Renewal

        itself: Renewal | None = None
        if said["uid"] == os.getuid():
            itself = Renewal(config, said["environment"])
            self._renews_itself = True

        async def renew() -> Access:
            if self._owner is not None:
                return Access.build(await self._owner.renew())
            if itself is None:
                raise AuthError(
                    "new ones need a new connect: the engine may not read that kubeconfig",
                    hint="`tunstack quit`, then connect again",
                )
            return await itself()

        access = Access.build(said["access"])
        progress(f"asking the API server at {access.server}")
        self._kubernetes = ThroughKubernetes(access, renew, config, progress)
        return self._kubernetes

    async def _follow(self, way: Way) -> None:
        """Have the tunnel spare what its own way needs, whatever addresses that gets."""
        assert self._attachment is not None
        while True:
            await asyncio.sleep(FOLLOW)
            try:
                self._attachment.keep_out(await way.addresses())
            except TunstackError as error:
                _log.warning("what stays out of the tunnel is as before: %s", error)

    def _kubernetes_status(self, links: Links) -> Document | None:
        if self._kubernetes is None:
            return None
        from tunstack.cluster.access import without_password

        access = self._kubernetes.access
        renews = self._owner is not None or self._renews_itself
        return {
            "context": access.context,
            "server": access.server,
            "namespace": access.namespace,
            "namespaces": list(links.cluster.namespaces),
            "proxy": access.proxy and without_password(access.proxy),
            "credentials": {
                "expires": access.expires,
                "expired": self._kubernetes.expired,
                "renewal": (renews and access.renewable) or "connect again",
            },
        }

    def _namespace(self) -> str:
        """Give the session's namespace; without Kubernetes, kubectl's default."""
        if self._kubernetes is not None:
            return self._kubernetes.access.namespace
        return self._config.cluster.namespace or "default"

    def _name_server(self) -> "NameServer":
        if self._resolution is None:
            raise HostError(
                "this session does not resolve names",
                hint="`tunstack quit`, then connect without --no-dns",
            )
        return self._resolution.server

    async def _dns_query(self, name: str, type: int) -> Document:
        try:
            return await self._name_server().query(name, type)
        except (ValueError, struct.error) as exc:
            raise UsageError(f"{name!r}, type {type}: {exc}") from exc

    def _dns_log(self) -> AsyncIterator[Document]:
        return self._name_server().log()

    def _helper_lost(self) -> None:
        # Whoever started it knows whether it was killed or told to end.
        _log.warning("the helper has ended")
        self.stop()

    def status(self) -> Document:
        """Make the document of `tunstack status --json`."""
        document = blank_status(self._name)
        document["engine"] = {
            "version": PRODUCT,
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "rss": _resident_octets(),
        }
        document["fastpath"] = _fastpath.NAME
        document["log"] = self._log_path
        if self._helper is not None:
            document["helper"] = {
                "version": self._helper.version,
                "protocol": self._helper.protocol,
                "pid": self._helper.pid,
            }
        links, attachment = self._links, self._attachment
        if links is None or attachment is None:
            return document
        settings = self._config.routing
        document |= {
            "state": links.state,
            "manager": {
                "version": links.manager.version,
                "protocol": links.manager.protocol,
                "address": links.manager.address,
                "namespace": links.manager.namespace,
                "rtt": links.rtt,
                "icmp": links.cluster.icmp,
            },
            "kubernetes": self._kubernetes_status(links),
            "device": {
                "name": attachment.device.name,
                "mtu": attachment.device.mtu,
                "offload": attachment.device.vnet > 0,
                "addresses": attachment.addresses,
            },
            "routes": {
                "proxied": [str(network) for network in attachment.plan.proxied],
                "also_proxy": [str(network) for network in settings.also_proxy],
                "never_proxy": [str(network) for network in settings.never_proxy],
                "api_server": attachment.kept_out if self._kubernetes else [],
                "reachable": [str(network) for network in attachment.reachable],
                "overlaps": [
                    {
                        "network": str(ours),
                        "existing": str(theirs.network),
                        "interface": theirs.interface,
                    }
                    for ours, theirs in attachment.plan.overlaps
                ],
            },
            "dns": no_names() if self._resolution is None else self._resolution.status(),
            "flows": attachment.bridge.flows(),
            "traffic": attachment.bridge.traffic(),
            "drops": attachment.bridge.drops(),
        }
        return document


class _Owner:
    """Whoever waits for the session: hears of it, and can be asked for credentials."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.write = conversation.write
        self.gone = asyncio.ensure_future(self._listen())
        """Done when there will be no owner any more."""
        self._answer: asyncio.Future[Document] | None = None

    async def renew(self) -> Document:
        """Ask for access to the API server with new credentials.

        Raises:
            TunstackError: why there are none.
        """
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self.write({"renew": True})
        answer = await asyncio.shield(self._answer)
        error = answer.get("error")
        if error is not None:
            raise from_code(error["code"], error["message"], error["hint"])
        access: Document = answer["access"]
        return access

    def close(self) -> None:
        """Listen no more."""
        self.gone.cancel()

    async def _listen(self) -> None:
        while (said := await self._conversation.read()) is not None:
            if self._answer is not None:
                self._answer.set_result(said)
                self._answer = None
        if self._answer is not None:
            error = AuthError("whoever has the kubeconfig is gone")
            self._answer.set_result(error_document(error))


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _say_goodbye(links: Links) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE):
            await links.close()


def _resident_octets() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def become(uid: int, gid: int) -> None:
    """Give up root, for good.

    Raises:
        OSError: the kernel would not have it.
    """
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def main() -> None:
    """Be the engine."""
    parser = argparse.ArgumentParser(prog="tunstack.engine")
    for name in ("owner-fd", "control-fd", "helper-fd", "uid", "gid"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--transport", required=True)
    parser.add_argument("--kubernetes", type=int, required=True)
    parser.add_argument("--names", type=int, required=True)
    arguments = parser.parse_args()

    later = _LATER_KUBERNETES * arguments.kubernetes + _LATER_NAMES * arguments.names
    for module in _LATER + later:
        import_module(module)
    transport.load(arguments.transport)
    if arguments.names:
        from tunstack.engine.public_suffixes import single_labels

        single_labels()  # a file of a package, like the modules
    os.chdir("/")
    os.umask(0o077)
    become(arguments.uid, arguments.gid)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("tunstack").setLevel(logging.INFO)

    async def serve() -> None:
        daemon = Daemon(
            arguments.name, arguments.log, socket.socket(fileno=arguments.helper_fd)
        )
        await daemon.run(
            socket.socket(fileno=arguments.owner_fd),
            socket.socket(fileno=arguments.control_fd),
        )

    gc.freeze()  # what is loaded stays
    gc.enable()
    run(serve())
