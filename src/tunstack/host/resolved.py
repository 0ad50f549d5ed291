"""Resolver mode ``resolved``: systemd-resolved asks us for our domains.

It is told by D-Bus, per link (org.freedesktop.resolve1(5)), and forgets it with the
link. D-Bus, though, knows nothing of network namespaces: an interface index of ours may
be another device of the resolved that answers. So first its process is looked at, whose
network namespace must be this one.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunstack.errors import HostError

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

MOST_DOMAINS = 256
"""Domains, search domains included, that resolved takes for a link.

``LINK_SEARCH_DOMAINS_MAX``; systemd 252 refuses 257 with E2BIG.
"""

TIMEOUT = 3.0
"""Seconds for all of a change: resolved may be stuck."""

_NAME = "org.freedesktop.resolve1"
_COMMAND = "systemd-resolve"  # of 15 octets, as proc_pid_comm(5) cuts it
_REVERT_WITHIN = 0.5


def set_link(
    device: str,
    servers: Sequence[str],
    domains: Sequence[str],
    search: Sequence[str],
    timeout: float = TIMEOUT,
) -> None:
    """Have names below some domains, and only those, asked of our server.

    What resolved knew from before is forgotten, for it may be that a name is not.

    Args:
        device: the name of our device.
        servers: our addresses.
        domains: names below them are asked of us.
        search: the same, and names without dots are completed with them.
        timeout: seconds for all of it.

    Raises:
        HostError: resolved is not there, is not of this network namespace, or refuses;
            it has nothing of ours.
    """
    calls: list[tuple[str, str, Any]] = [
        ("SetLinkDNS", "a(iay)", [_address(server) for server in servers]),
        (
            "SetLinkDomains",
            "a(sb)",
            [[name, True] for name in domains] + [[name, False] for name in search],
        ),
        ("SetLinkDefaultRoute", "b", False),
        ("SetLinkDNSSEC", "s", "no"),
        ("SetLinkDNSOverTLS", "s", "no"),
        ("SetLinkLLMNR", "s", "no"),
        ("SetLinkMulticastDNS", "s", "no"),
    ]

    async def change(resolved: _Resolved, index: int) -> None:
        try:
            for member, signature, argument in calls:
                await resolved.call(member, f"i{signature}", index, argument)
            await resolved.call("FlushCaches", "")
        except BaseException:
            # Waits for the answer: resolved refuses a sender that has gone.
            with suppress(HostError, TimeoutError):
                async with asyncio.timeout(_REVERT_WITHIN):
                    await resolved.call("RevertLink", "i", index)
            raise

    _run(device, change, timeout)


def revert_link(device: str, timeout: float = TIMEOUT) -> None:
    """Have resolved forget what it was told of a device, as it does when that ends.

    Raises:
        HostError: it did not; nothing where the device is gone.
    """

    async def change(resolved: _Resolved, index: int) -> None:
        await resolved.call("RevertLink", "i", index)

    try:
        _run(device, change, timeout)
    except HostError:
        if _index(device) is not None:
            raise


class _Resolved:
    """The resolved of this network namespace, on a connection to the bus."""

    def __init__(self, bus: "MessageBus", owner: str) -> None:
        self._bus = bus
        self._owner = owner

    async def call(self, member: str, signature: str, *arguments: Any) -> None:
        """Have one method done.

        Raises:
            HostError: it was refused.
        """
        answer = await self._bus.call(self._message(member, signature, arguments))
        _check(answer, f"systemd-resolved refused {member}")

    def _message(self, member: str, signature: str, arguments: Sequence[Any]) -> "Message":
        return _message(self._owner, f"{_NAME}.Manager", member, signature, arguments)


def _run(
    device: str, change: Callable[[_Resolved, int], Awaitable[None]], timeout: float
) -> None:
    index = _index(device)
    if index is None:
        raise HostError(f"there is no device {device}")

    async def run() -> None:
        async with asyncio.timeout(timeout), _connected() as bus:
            await change(_Resolved(bus, await _find(bus)), index)

    try:
        asyncio.run(run())
    except TimeoutError as exc:
        raise HostError(f"systemd-resolved did not answer in {timeout:g} s") from exc


@asynccontextmanager
async def _connected() -> AsyncIterator["MessageBus"]:
    from dbus_fast import AuthError, BusType, InvalidAddressError
    from dbus_fast.aio import MessageBus

    try:
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    except (OSError, EOFError, AuthError, InvalidAddressError) as exc:
        raise HostError(f"there is no D-Bus to ask systemd-resolved by: {exc}") from exc
    try:
        yield bus
    except EOFError as exc:
        raise HostError("D-Bus has hung up") from exc
    finally:
        bus.disconnect()


async def _find(bus: "MessageBus") -> str:
    """Give resolved's own name on the bus, which nobody else can get.

    Raises:
        HostError: there is none, or it is not of our network namespace.
    """
    (owner,) = await _ask_bus(bus, "GetNameOwner", _NAME)
    (pid,) = await _ask_bus(bus, "GetConnectionUnixProcessID", owner)
    process = Path(f"/proc/{pid}")
    try:
        command = (process / "comm").read_text().strip()
        ours = (process / "ns/net").samefile("/proc/self/ns/net")
    except OSError as exc:
        raise HostError(
            f"whose systemd-resolved this is cannot be told: {exc.strerror}"
        ) from exc
    if command != _COMMAND or not ours:
        raise HostError("systemd-resolved is not of this network namespace")
    return str(owner)


async def _ask_bus(bus: "MessageBus", member: str, argument: str) -> list[Any]:
    name = "org.freedesktop.DBus"
    answer = await bus.call(_message(name, name, member, "s", (argument,)))
    _check(answer, "systemd-resolved is not there")
    return answer.body


def _message(
    destination: str, interface: str, member: str, signature: str, arguments: Sequence[Any]
) -> "Message":
    from dbus_fast import Message, MessageFlag

    return Message(
        destination=destination,
        path="/" + interface.removesuffix(".Manager").replace(".", "/"),
        interface=interface,
        member=member,
        signature=signature,
        body=list(arguments),
        flags=MessageFlag.NO_AUTOSTART,
    )


def _check(answer: "Message", what: str) -> None:
    from dbus_fast import MessageType

    if answer.message_type is MessageType.ERROR:
        why = answer.body[0] if answer.body else answer.error_name
        raise HostError(f"{what}: {why}")


def _address(server: str) -> list[Any]:
    address = ip_address(server)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return [int(family), address.packed]


def _index(device: str) -> int | None:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None
