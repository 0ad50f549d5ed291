"""How this host comes to ask our name server, and that it goes on doing so.

The modes are tried in order; one counts only if a question that is asked as programs ask
(to the first name server of ``/etc/resolv.conf``) arrives at our server. ``host/`` does
what root is needed for; ``host/resolver.py`` says what each mode is.

==========  ==========================================  ===========================
mode        what reaches us                             the host's own name servers
==========  ==========================================  ===========================
resolved    what systemd-resolved routes to our link    those of its other links
overriding  every question to those of resolv.conf      the same, by marked sockets
files       every question                              those of before
none        nothing
==========  ==========================================  ===========================

Files tell when something has changed: ``/etc/resolv.conf``, and the one that
systemd-resolved writes for itself whenever it starts or a link gets other name servers.
"""

import asyncio
import logging
import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tunstack.config import Config
from tunstack.dns import message as msg
from tunstack.dns.rules import CHECK, Names, Rules
from tunstack.engine.attachment import Attachment, plausible
from tunstack.engine.links import Links
from tunstack.engine.loopback import Loopback
from tunstack.engine.nameserver import NameServer
from tunstack.engine.public_suffixes import single_labels
from tunstack.errors import HostError
from tunstack.host.helper_client import Helper
from tunstack.host.paths import RESOLV_CONF
from tunstack.host.resolved import MOST_DOMAINS
from tunstack.host.resolver_state import ResolverState
from tunstack.host.routes import Address
from tunstack.upstream.upstream import NoAnswer, ResolvConf, Upstream, plain_socket

_log = logging.getLogger(__name__)

UPLINKS = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved writes the name servers of all links (its manual's FILES)."""

MODES = ("resolved", "overriding", "files")

WATCH = 1.0
"""Seconds between two looks at the files."""

_HOST_PATIENCE = 2.0
"""Seconds that one of the host's name servers has before the next is asked."""

_CHECKS = 4
_CHECK_PATIENCE = 0.5
"""Questions of our own until a mode is given up, and seconds that each has."""

_REFILL, _LOW = 32, 8
"""Sockets that are fetched from the helper at once, and when."""


class Resolution:
    """A session's hold on the names of this host. Made by :meth:`make`.

    Args:
        links: sessions with managers.
        helper: who may change the resolver.
        attachment: the device, with addresses for a server.
        config: the settings.
        namespace: the session's.
    """

    def __init__(
        self,
        links: Links,
        helper: Helper,
        attachment: Attachment,
        config: Config,
        namespace: str,
    ) -> None:
        self.mode = "none"
        self.by: str | None = None
        """What asks us: ``systemd-resolved``, ``nftables`` …"""
        self._links = links
        self._helper = helper
        self._attachment = attachment
        self._config = config
        self._namespace = namespace
        self._host: list[str] = []
        """The host's own name servers."""
        self._sockets = _MarkedSockets(helper)
        self._rules = self._make_rules()
        self._told: ResolverState | None = None
        self._seen: object = None
        self._loopback: Loopback | None = None
        self._changing = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._update: asyncio.Task[None] | None = None
        upstream = Upstream(
            lambda: self._host, patience=_HOST_PATIENCE, make_socket=self._make_socket
        )
        local = attachment.bridge.local
        self.server = NameServer(links, config.dns, self._rules, upstream, local.flush)
        local.server = self.server
        links.listeners.append(self)

    @classmethod
    async def make(
        cls,
        links: Links,
        helper: Helper,
        attachment: Attachment,
        config: Config,
        namespace: str,
        progress: Callable[[str], None],
    ) -> "Resolution":
        """Have this host ask us.

        Raises:
            HostError: no mode works here; its resolver is as it was.
        """
        made = cls(links, helper, attachment, config, namespace)
        try:
            await made._choose(made._modes())
        except BaseException:
            made.close()
            raise
        progress(f"names: {made.mode}, by {made.by}")
        made._watcher = asyncio.ensure_future(made._watch())
        return made

    def close(self) -> None:
        """Answer no more. The host's resolver is given back when the helper ends."""
        for task in (self._watcher, self._update):
            if task is not None:
                task.cancel()
        if self in self._links.listeners:
            self._links.listeners.remove(self)
        if self._loopback is not None:
            self._loopback.close()
        self._sockets.close()
        self.server.close()
        self._attachment.bridge.local.server = None

    def status(self) -> dict[str, Any]:
        """Make its part of the status document."""
        skipped = [
            {"namespace": each.namespace, "reason": each.reason}
            for each in self._rules.skipped
        ]
        return {
            "mode": self.mode,
            "by": self.by,
            "server": None if self.mode == "none" else str(self._attachment.servers[0]),
            "domains": [f"~{each}" for each in (*self._rules.domains, *self._rules.zones)],
            "search": self._rules.search,
            "skipped": skipped,
            "name_servers": self._host,
            "resolver": self.server.health.document(),
            "questions": dict(self.server.machine.counts),
            "cached": len(self.server.machine.cache),
        }

    # What a link tells

    def cluster_changed(self) -> None:
        """Follow the namespaces."""
        self._rules = self._make_rules()
        self.server.machine.follow(self._rules)
        if _by_domain(self.mode):
            if self._update is not None:
                self._update.cancel()
            self._update = asyncio.ensure_future(self._apply_again())

    def state_changed(self) -> None:
        """Names stay the cluster's while the tunnel is away."""

    def turn_ended(self) -> None:
        """Packets are the bridge's business."""

    # Modes

    def _modes(self) -> Sequence[str]:
        """Give those that may be tried."""
        wanted = self._config.dns.mode
        return MODES if wanted == "auto" else (wanted,)

    async def _choose(self, modes: Sequence[str]) -> None:
        """Take the first mode that works.

        Raises:
            HostError: none does; the host's resolver is as it was.
        """
        reasons = []
        for mode in modes:
            try:
                await self._enter(mode)
            except HostError as error:
                reasons.append(f"{mode}: {error}")
                _log.info("names are not resolved by mode %s: %s", mode, error)
                await self._helper.set_resolver(ResolverState(mode="none"))
            else:
                _log.info("names are resolved by mode %s, %s", mode, self.by)
                return
        self.mode, self.by, self._told = "none", None, None
        raise HostError(
            "this host's resolver cannot be told of the cluster's names: "
            + "; ".join(reasons),
            hint="connect with --no-dns to do without names",
        )

    async def _enter(self, mode: str) -> None:
        """Set a mode up, or again, and see that it works."""
        name_servers = self._read_name_servers(mode)
        if mode == "resolved" and not UPLINKS.exists():
            raise HostError("systemd-resolved does not run here")
        given = self._config.dns.local_ip
        taken = _addresses(name_servers) if mode == "overriding" else ()
        await self._attachment.take_questions_to(taken)
        if any(each.is_loopback for each in taken):
            self._loopback = self._loopback or await Loopback.start(self.server)
        self._host = name_servers if given is None else [given]
        self.server.machine.has_host = bool(self._host)
        self.mode = mode
        state = self._state(mode, name_servers)
        self.by = await self._helper.set_resolver(state)
        self._told = state
        if not await self._check():
            raise HostError("questions of this host do not arrive at our name server")
        self._seen = _fingerprint()

    def _read_name_servers(self, mode: str) -> list[str]:
        """Give the addresses of the host's own name servers, as they are now."""
        ours = {str(address) for address in self._attachment.servers}
        if mode == "files" and self.mode == "files":
            return self._host  # the file has ours now
        path = UPLINKS if mode == "resolved" else RESOLV_CONF
        named = [each for each in ResolvConf(path).name_servers() if each not in ours]
        if mode == "resolved":
            return named
        # Without any, resolv.conf(5) has programs ask the one of this host.
        return named or ["127.0.0.1"]

    def _state(self, mode: str, name_servers: list[str]) -> ResolverState:
        return ResolverState(
            mode=mode,
            servers=tuple(self._attachment.servers),
            domains=self._domains() if _by_domain(mode) else (),
            search=tuple(self._rules.search),
            name_servers=_addresses(name_servers) if mode == "overriding" else (),
            port=self._loopback.port if mode == "overriding" and self._loopback else None,
        )

    def _domains(self) -> tuple[str, ...]:
        """Give what systemd-resolved is told: where not all fits, no reverse lookups."""
        domains = self._rules.domains
        room = max(MOST_DOMAINS - len(domains) - len(self._rules.search), 0)
        return (*domains, *self._rules.zones[:room])

    async def _apply_again(self) -> None:
        """Have the host follow what the cluster is now."""
        async with self._changing:
            state = self._state(self.mode, [])
            if not _by_domain(self.mode) or state == self._told:
                return
            try:
                await self._helper.set_resolver(state)
                self._told = state
                self._seen = _fingerprint()
            except HostError as error:
                _log.warning("the new names are not taken: %s", error)
                await self._follow_host()

    async def _check(self) -> bool:
        """Ask as programs do, and see whether it arrives here."""
        asked = ResolvConf(RESOLV_CONF).name_servers()
        programs = Upstream(lambda: asked[:1] or ["127.0.0.1"], patience=_CHECK_PATIENCE)
        for _ in range(_CHECKS):
            name = msg.wire(f"{secrets.token_hex(6)}.{CHECK}")
            question = msg.make_question(name, 1, dnssec=False, checking=0, edns=False)
            try:
                answered = await programs.ask(question, 2 * _CHECK_PATIENCE)
                if self._attachment.servers[0].packed in answered.message:
                    return True
            except NoAnswer as exc:
                _log.debug("self-check: %s", exc)
            await asyncio.sleep(0.05)
        return False

    # What else happens on this host

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH)
            if _fingerprint() == self._seen:
                continue
            _log.info("the host's resolver has changed")
            async with self._changing:
                await self._follow_host()

    async def _follow_host(self) -> None:
        # The one that there is comes first.
        modes = sorted(self._modes(), key=lambda mode: mode != self.mode)
        try:
            if self.mode == "files":
                # Somebody else has written the file: what it names now is the host's.
                await self._helper.set_resolver(ResolverState(mode="none"))
                self.mode = "none"
            await self._choose(modes)
        except HostError as error:
            _log.error("%s", error)
            self._seen = _fingerprint()

    async def _make_socket(self, family: int, kind: int) -> socket.socket:
        if self.mode == "overriding":
            return await self._sockets.take(family, kind)
        return await plain_socket(family, kind)

    def _make_rules(self) -> Rules:
        cluster = self._links.cluster
        return Rules(
            Names(
                config=self._config.dns,
                domain=cluster.domain,
                namespaces=cluster.namespaces,
                namespace=self._namespace,
                networks=tuple(plausible(self._links)),
                public=single_labels(),
                server=self._attachment.servers[0],
            )
        )


def _by_domain(mode: str) -> bool:
    """Whether a mode has us asked for our domains only."""
    return mode == "resolved" or (mode == "files" and sys.platform == "darwin")


def _addresses(servers: Sequence[str]) -> tuple[Address, ...]:
    return tuple(ip_address(each.partition("%")[0]) for each in servers)


class _MarkedSockets:
    """Sockets whose packets pass by our own rules, from the helper, some in advance."""

    def __init__(self, helper: Helper) -> None:
        self._helper = helper
        self._stock: dict[tuple[int, int], deque[socket.socket]] = {}
        self._refilling: dict[tuple[int, int], asyncio.Task[None]] = {}

    async def take(self, family: int, kind: int) -> socket.socket:
        """Give one.

        Raises:
            OSError: the helper gives none.
        """
        key = family, kind
        stock = self._stock.setdefault(key, deque())
        while True:
            if len(stock) <= _LOW and key not in self._refilling:
                task = asyncio.ensure_future(self._refill(key))
                self._refilling[key] = task
                task.add_done_callback(lambda _: self._refilling.pop(key, None))
            if stock:
                return stock.popleft()
            try:
                await asyncio.shield(self._refilling[key])
            except HostError as exc:
                raise OSError(0, str(exc)) from exc

    async def _refill(self, key: tuple[int, int]) -> None:
        family, kind = key
        version = 4 if family == socket.AF_INET else 6
        name = "udp" if kind == socket.SOCK_DGRAM else "tcp"
        made = await self._helper.open_sockets(version, name, _REFILL)
        self._stock[key].extend(made)

    def close(self) -> None:
        """Close those that are left."""
        for task in self._refilling.values():
            task.cancel()
        for stock in self._stock.values():
            while stock:
                stock.pop().close()


def _fingerprint() -> object:
    """Give what changes when the host's resolver does."""

    def state(path: Path) -> object:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_dev

    return state(RESOLV_CONF), state(UPLINKS)
