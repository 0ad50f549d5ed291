"""A session's hold on this computer: the device, its addresses, the routes into it.

All of it lives as long as the descriptor of the device, so undoing it is closing that.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Self

from tunstack.config import Config, Network
from tunstack.engine.bridge import Bridge
from tunstack.engine.links import Links
from tunstack.engine.reachable import reachable
from tunstack.errors import HostError
from tunstack.host import routes
from tunstack.host.device import Device
from tunstack.host.helper_client import Helper
from tunstack.wire import key as flow_key

_log = logging.getLogger(__name__)

MOST_SUBNETS = 1024
"""Subnets that a manager may name."""


class Attachment:
    """What one session has done to this computer. Made by :meth:`make`."""

    def __init__(
        self,
        links: Links,
        helper: Helper,
        config: Config,
        keep_out: frozenset[routes.Address],
        device: Device,
        own: list[Network],
        on_lost: Callable[[], None],
    ) -> None:
        self.addresses = [f"{subnet[1]}/{subnet.prefixlen}" for subnet in own]
        """Of the device."""
        self.servers = [subnet[2] for subnet in own]
        """Beside them, in the device: what is served there is served by this computer."""
        self.device = device
        self.plan = routes.Plan((), ())
        self.reachable: tuple[Network, ...] = ()
        """Subnets of the cluster that this computer reaches anyway."""
        self._links = links
        self._helper = helper
        self._config = config
        self._keep_out = keep_out
        self._update: asyncio.Task[None] | None = None
        self.bridge = Bridge(
            links,
            device,
            config,
            secret=os.urandom(16),
            on_lost=on_lost,
            local=[subnet[1] for subnet in own],
            own=self.servers,
        )
        self._last_resort: tuple[Network, ...] = ()
        """Routed into the device where nothing else leads there."""
        links.listeners.append(self)

    @classmethod
    async def make(
        cls,
        links: Links,
        helper: Helper,
        config: Config,
        keep_out: frozenset[routes.Address],
        on_lost: Callable[[], None],
    ) -> Self:
        """Open a device, carry its packets, and route the cluster into it.

        Args:
            links: started sessions with managers.
            helper: who may open devices and set routes.
            config: which ones.
            keep_out: addresses that the tunnel itself needs.
            on_lost: called when the device is gone without our doing.

        Raises:
            RouteConflict: before anything is touched.
            HostError: the device or the routes cannot be had; nothing stays.
        """
        settings = config.routing
        reached = await reachable(links.cluster, config.timeouts.reachable)
        existing = await helper.routes()
        wanted = (*links.cluster.subnets, *settings.also_proxy)
        own: list[Network] = [
            routes.free_subnet(settings.device_subnet, 30, existing, wanted),
            routes.free_subnet(settings.device_subnet6, 126, existing, wanted),
        ]
        plan = _plan(links, config, keep_out, existing, reached)
        device = await helper.open_device(
            settings.device,
            mtu=settings.mtu,
            offload=settings.offload,
            txqueuelen=settings.txqueuelen,
            addresses=[f"{subnet[1]}/{subnet.prefixlen}" for subnet in own],
        )
        attachment = cls(links, helper, config, keep_out, device, own, on_lost)
        attachment.reachable = reached
        try:
            await attachment._route(plan)
        except BaseException:
            attachment.close()
            raise
        return attachment

    @property
    def kept_out(self) -> list[str]:
        """What the tunnel itself needs, as networks of one address."""
        return sorted(str(ip_network(address)) for address in self._keep_out)

    def close(self) -> None:
        """Undo it all."""
        if self._update is not None:
            self._update.cancel()
        self._links.listeners.remove(self)
        self.bridge.close()

    async def take_questions_to(self, servers: Iterable[routes.Address]) -> None:
        """See that questions to name servers leave this host, so that we may take them.

        Without a route there the kernel refuses to send, and nothing could be
        redirected. So they get one of last resort, into the device: it counts only
        where no other leads there, and then nobody answers but us.

        Raises:
            HostError: the kernel refused a route.
        """
        wanted = tuple(
            ip_network(server)
            for server in servers
            if server.version == 4 and not server.is_loopback
        )
        if wanted != self._last_resort:
            self._last_resort = wanted
            await self._route(self.plan)

    def keep_out(self, addresses: frozenset[routes.Address]) -> None:
        """Take note of further addresses that the tunnel itself needs."""
        if not addresses <= self._keep_out:
            # Connections to those of before may still be there.
            self._keep_out |= addresses
            self.cluster_changed()

    def cluster_changed(self) -> None:
        """Route what the cluster is now."""
        if self._update is not None:
            self._update.cancel()
        self._update = asyncio.ensure_future(self._reroute())

    def state_changed(self) -> None:
        """Routes stay while the tunnel is away: nothing may leave by another way."""

    def turn_ended(self) -> None:
        """Packets are the bridge's business."""

    async def _reroute(self) -> None:
        try:
            existing = await self._helper.routes()
            await self._route(
                _plan(self._links, self._config, self._keep_out, existing, self.reachable)
            )
        except HostError as error:
            # The session is of use with the routes it has.
            _log.error("the cluster has changed, the routes stay: %s", error)

    async def _route(self, plan: routes.Plan) -> None:
        await self._helper.set_routes(plan.proxied, self._last_resort)
        self.plan = plan
        self.bridge.local.closed = frozenset(
            flow_key.address(network.network_address)
            for network in self._last_resort
            if not any(
                network.version == other.version and network.overlaps(other)
                for other in plan.proxied
            )
        )
        _log.info("routing %s", ", ".join(map(str, plan.proxied)) or "nothing")


def plausible(links: Links) -> list[Network]:
    """Give the cluster's subnets, without those that no cluster can have."""
    subnets = links.cluster.subnets
    found = [net for net in subnets if routes.is_plausible(net)][:MOST_SUBNETS]
    if len(found) < len(subnets):
        odd = ", ".join(map(str, [net for net in subnets if net not in found][:10]))
        _log.warning("not routed, for no cluster is so large or there: %s", odd)
    return found


def _plan(
    links: Links,
    config: Config,
    keep_out: frozenset[routes.Address],
    existing: list[routes.Route],
    reached: tuple[Network, ...],
) -> routes.Plan:
    settings = config.routing
    return routes.plan(
        cluster=[net for net in plausible(links) if net not in reached],
        also_proxy=settings.also_proxy,
        never_proxy=settings.never_proxy,
        keep_out=keep_out,
        existing=existing,
        device=settings.device,
    )
