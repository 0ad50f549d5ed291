"""The engine's side of the conversation with the helper."""

import array
import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any

from tunstack._version import HELPER_PROTOCOL
from tunstack.config import Network
from tunstack.errors import HostError, from_code
from tunstack.host.device import Device
from tunstack.host.protocol import MAX_MESSAGE, MAX_SOCKETS
from tunstack.host.resolver_state import ResolverState
from tunstack.host.routes import Route


class Helper:
    """Asks the helper; one request at a time.

    Args:
        connection: SOCK_SEQPACKET, connected to a helper; belongs to this object.
        on_lost: called once when the helper is gone.
        timeout: seconds for one request (``timeouts.helper``).
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_lost: Callable[[], None],
        timeout: float = 10.0,
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._on_lost = on_lost
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[tuple[Any, list[int]]] | None = None
        self._id = 0
        self._turn = asyncio.Lock()
        self.version: str | None = None
        self.protocol: int | None = None
        self.pid: int | None = None
        self._loop.add_reader(connection.fileno(), self._readable)

    async def hello(self) -> None:
        """Learn who the helper is.

        Raises:
            HostError: it speaks another protocol, or none.
        """
        identity, _ = await self._ask("hello")
        self.version = identity["version"]
        self.protocol = identity["protocol"]
        self.pid = identity["pid"]
        if self.protocol != HELPER_PROTOCOL:
            raise HostError(
                f"the helper {self.version} speaks protocol {self.protocol}, this engine "
                f"{HELPER_PROTOCOL}",
                hint="end both with `tunstack quit -s`, then connect again",
            )

    async def routes(self) -> list[Route]:
        """Read the routes of this host.

        Raises:
            HostError: they cannot be read.
        """
        found, _ = await self._ask("routes")
        return [Route(ip_network(network), interface) for network, interface in found]

    async def open_device(
        self, name: str, *, mtu: int, offload: bool, txqueuelen: int, addresses: list[str]
    ) -> Device:
        """Open a device with these addresses (``ADDRESS/LENGTH``), and take it over.

        Raises:
            HostError, PrivilegeError: it cannot be had; nothing stays.
        """
        result, descriptors = await self._ask(
            "open_device",
            name=name,
            mtu=mtu,
            offload=offload,
            txqueuelen=txqueuelen,
            addresses=addresses,
        )
        (fd,) = descriptors
        return Device(fd, name=name, mtu=mtu, vnet=result["vnet"])

    async def set_routes(
        self, networks: Iterable[Network], last_resort: Iterable[Network] = ()
    ) -> None:
        """Route exactly these networks into the device.

        Args:
            networks: whose packets shall go there.
            last_resort: those that shall when no other route leads to them.

        Raises:
            HostError: the kernel refused one.
        """
        await self._ask(
            "set_routes",
            networks=[str(network) for network in networks],
            last_resort=[str(network) for network in last_resort],
        )

    async def set_resolver(self, state: ResolverState) -> str | None:
        """Make the host's resolver what is wanted.

        Returns who does it, as :meth:`tunstack.host.resolver.Resolver.set`.

        Raises:
            HostError: it cannot be had; nothing of ours is left.
        """
        answer, _ = await self._ask("set_resolver", **state.as_request())
        by: str | None = answer["by"]
        return by

    async def open_sockets(self, family: int, kind: str, count: int) -> list[socket.socket]:
        """Open sockets whose questions are not overridden: they have our mark.

        Args:
            family: 4 or 6.
            kind: ``udp`` or ``tcp``.
            count: 1 to :data:`~tunstack.host.protocol.MAX_SOCKETS`.

        Raises:
            HostError: they cannot be had.
        """
        _, descriptors = await self._ask(
            "open_sockets", family=family, kind=kind, count=count
        )
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for made in sockets:
            made.setblocking(False)  # they are, but the objects do not know
        return sockets

    def close(self) -> None:
        """Hang up: the helper undoes what is its, and ends."""
        if self._socket.fileno() != -1:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    async def _ask(self, verb: str, **arguments: Any) -> tuple[Any, list[int]]:
        async with self._turn:
            if self._socket.fileno() == -1:
                raise HostError("the helper has ended")
            self._answer = self._loop.create_future()
            self._id += 1
            request = json.dumps({"id": self._id, "verb": verb, **arguments}).encode()
            if len(request) > MAX_MESSAGE:
                raise HostError(
                    f"{verb}: {len(request)} octets are more than the helper takes",
                    hint="give it fewer networks or domains",
                )
            try:
                self._socket.send(request)
                async with asyncio.timeout(self._timeout):
                    return await self._answer
            except asyncio.CancelledError:
                self._close_descriptors()
                raise
            except TimeoutError as exc:
                self._close_descriptors()
                raise HostError(
                    f"the helper did not answer {verb} in {self._timeout:g} s "
                    "(timeouts.helper)"
                ) from exc
            except ConnectionError as exc:
                raise HostError("the helper has ended") from exc

    def _close_descriptors(self) -> None:
        """Close what came just when whoever asked had given up."""
        answer = self._answer
        if answer and answer.done() and not answer.cancelled() and not answer.exception():
            for descriptor in answer.result()[1]:
                os.close(descriptor)

    def _readable(self) -> None:
        descriptors = array.array("i")
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                MAX_MESSAGE,
                socket.CMSG_SPACE(descriptors.itemsize * MAX_SOCKETS),
                # The device must not outlive us in a process that we start.
                socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return
        except ConnectionError:
            data, ancillary = b"", []
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(rights)
        if not data:
            self._lose()
            return
        answer = json.loads(data)
        waiting = self._answer
        if waiting is None or waiting.done() or answer["id"] != self._id:
            for descriptor in descriptors:
                os.close(descriptor)  # it came too late for whoever asked
        elif "error" in answer:
            error = answer["error"]
            waiting.set_exception(from_code(error["code"], error["message"], error["hint"]))
        else:
            waiting.set_result((answer["ok"], list(descriptors)))

    def _lose(self) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(HostError("the helper has ended"))
        self._on_lost()
