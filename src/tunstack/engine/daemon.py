"""The engine as a process of its own: one session, from `connect` to its end.

`tunstack connect` starts it as root with three sockets: to the command itself (the
*owner*), to the helper, and the listening control socket of the session. The engine
loads all its code, because the interpreter may live where only root reads, gives up
root for good, and then listens to the owner, who sends one line::

    {"settings": {...}, "token": ..., "ca": ..., "insecure": ..., "hold": ...}

with plain settings (``config.py``), the bearer token, the PEM of authorities, and
whether the session ends when the owner hangs up. Credentials come this way and not as
files, which the engine may not be able to read. The owner gets progress, then the
status document or an error; with ``hold`` it gets ``{"ok": null}`` or an error once
more when the session ends. If it hangs up before the session works, there will be none.

The engine ends when told to, by the owner, by ``quit`` or by a signal, and when the
helper or the device is gone. It undoes nothing: device and routes die with its last
descriptor, the rest is the helper's, which sees the end of file. So `kill -9` of either
leaves nothing behind that the next `connect` would not clear away.
"""

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from tunstack import _fastpath
from tunstack._version import PRODUCT, PROTOCOL
from tunstack.config import Config, build
from tunstack.engine.attachment import Attachment
from tunstack.engine.control import Document, blank_status, error_document
from tunstack.engine.control_server import ControlServer, Conversation, Verb
from tunstack.engine.link import Link, parse_endpoint
from tunstack.errors import HostError, TunnelError, TunstackError
from tunstack.host.helper_client import Helper
from tunstack.host.routes import Address
from tunstack.rpc import transport
from tunstack.rpc.loop import run

_log = logging.getLogger("tunstack.engine")

GOODBYE = 1.0
"""Seconds that the manager may take to hear that the session is over."""

_LATER = ("concurrent.futures.thread", "encodings.idna", "linecache", "traceback")
"""What Python imports on first use, when we may no longer be able to read it."""

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
        self._link: Link | None = None
        self._attachment: Attachment | None = None
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
        verbs: dict[str, Verb] = {"status": self.status, "quit": self.stop}
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

    async def _live(self, owner: Conversation, undo: AsyncExitStack) -> None:
        request = await owner.read()
        if request is None:
            return
        departure = asyncio.ensure_future(owner.read())
        attempt = asyncio.ensure_future(self._connect(request, owner, undo))
        await _first(attempt, departure, self._end)
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
            await _first(departure, self._end)
            self.stop()
        else:
            departure.cancel()
            owner.close()
        await self._end
        _log.info("the session ends as asked")

    async def _connect(
        self, request: Document, owner: Conversation, undo: AsyncExitStack
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

        assert config.tunnel.manager is not None  # the command line saw to it
        endpoint = parse_endpoint(
            config.tunnel.manager, tls_ca=request["ca"], insecure=request["insecure"]
        )
        progress(f"finding {endpoint.host}")
        keep_out = await _addresses(endpoint.host, endpoint.port)
        progress(f"reaching the manager at {config.tunnel.manager}")
        link = Link(endpoint, token=request["token"], config=config)
        undo.push_async_callback(_say_goodbye, link)
        await link.start()
        self._link = link

        progress(f"opening {config.routing.device} and routing the cluster into it")
        self._attachment = await Attachment.make(
            link,
            helper,
            config,
            keep_out,
            on_lost=lambda: self.stop(
                HostError(f"the device {config.routing.device} is gone")
            ),
        )
        undo.callback(self._attachment.close)

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
        link, attachment = self._link, self._attachment
        if link is None or attachment is None:
            return document
        settings = self._config.routing
        document |= {
            "state": link.state,
            "manager": {
                "version": link.manager.version,
                "protocol": link.manager.protocol,
                "address": link.manager.address,
                "namespace": link.manager.namespace,
                "rtt": link.rtt,
                "icmp": link.cluster.icmp,
            },
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
                "api_server": [],
                "overlaps": [
                    {
                        "network": str(ours),
                        "existing": str(theirs.network),
                        "interface": theirs.interface,
                    }
                    for ours, theirs in attachment.plan.overlaps
                ],
            },
            "dns": {
                "mode": "none",
                "server": None,
                "domains": [],
                "search": [],
                "skipped": [],
            },
            "flows": attachment.bridge.flows(),
            "traffic": attachment.bridge.traffic(),
            "drops": attachment.bridge.drops(),
        }
        return document


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _addresses(host: str, port: int) -> frozenset[Address]:
    """Find every address of the manager: the tunnel must not swallow itself.

    Raises:
        TunnelError: it has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
    except OSError as exc:
        raise TunnelError(f"the manager's host {host} has no address: {exc}") from exc
    # A link-local address carries its zone behind a percent sign.
    return frozenset(ip_address(str(a[4][0]).partition("%")[0]) for a in found)


async def _say_goodbye(link: Link) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE):
            await link.close()


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
    parser = argparse.ArgumentParser(prog="tunstack.engine.daemon")
    for name in ("owner-fd", "control-fd", "helper-fd", "uid", "gid"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--transport", required=True)
    arguments = parser.parse_args()

    for module in _LATER:
        import_module(module)
    transport.load(arguments.transport)
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

    run(serve())


if __name__ == "__main__":
    main()
