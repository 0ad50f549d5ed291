"""The sessions of this computer with one cluster: one, or several to share the load.

Each :class:`~.link.Link` is a session over a connection of its own, and a flow stays with
the one that opened it. There are as many as ``cluster.port_forwards`` says, and for a
while one more when a manager is about to go: it takes no new flows, so a new session
with another manager does, and the old one lasts until its flows have ended.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from tunstack.config import Config
from tunstack.engine.link import Cluster, Link, Listener, Manager
from tunstack.engine.way import Way
from tunstack.errors import TunnelError, TunstackError
from tunstack.mux.session import TCP, Flow
from tunstack.upstream.upstream import Answered
from tunstack.wire.frame import Refusal

_log = logging.getLogger(__name__)


class Links:
    """Keeps sessions up until :meth:`close`, and spreads flows over them.

    Args:
        way: to the managers; :meth:`close` closes it.
        token: proves who we are; ``None`` without.
        config: of the tunnel and its timeouts.
        count: how many sessions.
        progress: told of each step while it starts.
    """

    def __init__(
        self,
        way: Way,
        *,
        token: str | None,
        config: Config,
        count: int = 1,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._way = way
        self._make = partial(Link, way, token=token, config=config, progress=progress)
        self._count = count
        self._links: list[Link] = []
        """Those that take new flows."""
        self._leaving: list[Link] = []
        """Those whose manager is about to go."""
        self._closing: set[asyncio.Task[None]] = set()
        self._dropped_datagrams = 0
        """Of sessions that are over."""
        self._closed = False
        self.listeners: list[Listener] = []
        self.state = "disconnected"
        """``connected`` when any is, ``reconnecting`` or ``disconnected``."""
        self.cluster = Cluster()
        self.manager: Manager
        """Of one that is connected; known once :meth:`start` has returned."""

    @property
    def all(self) -> list[Link]:
        """Every session, those that end included."""
        return [*self._links, *self._leaving]

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip to a manager; ``None`` when not known yet."""
        return next((link.rtt for link in self._links if link.rtt is not None), None)

    @property
    def flows(self) -> list[Flow]:
        """Every flow."""
        return [flow for link in self.all for flow in link.mux.flows.values()]

    @property
    def dropped_datagrams(self) -> int:
        """Datagrams that found their flow's queue full."""
        return self._dropped_datagrams + sum(
            link.mux.dropped_datagrams for link in self.all
        )

    async def start(self) -> None:
        """Begin the first session, and have the others follow.

        Raises:
            TunstackError: there is no way to a manager, or no manager, or it is silent,
                or speaks another protocol, or one of both ends does not trust the other.
        """
        first = self._add()
        try:
            await first.start()
        except BaseException:
            self._links.remove(first)
            raise
        for _ in range(self._count - 1):
            self._add().start_later()

    def open(self, protocol: int, address: bytes, port: int, credit: int) -> Flow:
        """Begin a flow, on the session with the fewest; see :meth:`.Mux.open`."""
        link = self._best()
        flow = link.mux.open(protocol, address, port, credit)
        flow.link = link
        return flow

    def wake(self) -> None:
        """Say that the muxes may have something to send."""
        for link in self._links:
            link.wake()
        for link in self._leaving:
            link.wake()

    async def ask(self, message: bytes, timeout: float) -> Answered:
        """Ask the cluster's resolver; see :meth:`.link.Link.ask`.

        A question whose session is replaced is asked again in the next.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        link = self._best()
        while True:
            try:
                return await link.ask(message, timeout)
            except TunnelError:
                if link in self.all:
                    raise
            link = self._best()
            timeout = max(deadline - loop.time(), 0)

    async def close(self) -> None:
        """Say goodbye everywhere. Flows that are left are lost."""
        self._closed = True
        links = self.all
        try:
            await asyncio.gather(
                *(link.close() for link in links), *self._closing, return_exceptions=True
            )
        finally:
            await self._way.close()
            self._refresh()

    def _best(self) -> Link:
        if len(self._links) == 1:
            return self._links[0]
        connected = [link for link in self._links if link.state == "connected"]
        return min(connected or self._links, key=lambda link: len(link.mux.flows))

    def _add(self) -> Link:
        link = self._make()
        self._links.append(link)
        link.listeners.append(_Observer(self, link))
        return link

    # What a link tells

    def _refresh(self) -> None:
        """Take note that a session is in another state."""
        links = self.all
        connected = [link for link in links if link.state == "connected"]
        if connected:
            self.manager = connected[0].manager
            state = "connected"
        elif not self._closed and any(link.state == "reconnecting" for link in links):
            state = "reconnecting"
        else:
            state = "disconnected"
        if state != self.state:
            self.state = state
            for listener in tuple(self.listeners):
                listener.state_changed()

    def _cluster_changed(self, link: Link) -> None:
        if link.cluster != self.cluster:
            self.cluster = link.cluster
            for listener in tuple(self.listeners):
                listener.cluster_changed()

    def _turn_ended(self) -> None:
        for listener in tuple(self.listeners):
            listener.turn_ended()
        if self._leaving:
            for link in [link for link in self._leaving if not link.mux.flows]:
                self._retire(link, "its flows have ended")

    def _drained(self, link: Link, reason: str) -> None:
        """A manager is about to go: have another session for what is new."""
        if self._closed or link not in self._links or not self._way.elsewhere:
            return
        _log.info("%s will go: %s; new flows go elsewhere", link.manager.address, reason)
        self._links.remove(link)
        self._leaving.append(link)
        self._add().start_later()
        for flow in link.mux.take_unsent():
            self._adopt(flow)
        self._turn_ended()

    def _refused(self, link: Link, flow: Flow, refusal: Refusal) -> bool:
        """Whether a refused flow was only refused because that manager is about to go."""
        if flow.protocol == TCP and refusal is Refusal.LIMIT and link in self._leaving:
            self._adopt(flow)
            return True
        return False

    def _over(self, link: Link) -> None:
        """A session was ended by its manager."""
        if link in self._leaving:
            self._retire(link, "the manager has gone")

    def _adopt(self, flow: Flow) -> None:
        link = self._best()
        flow.link = link
        link.mux.adopt(flow)
        link.wake()

    def _retire(self, link: Link, why: str) -> None:
        _log.info("the session with %s ends: %s", link.manager.address, why)
        self._leaving.remove(link)
        self._dropped_datagrams += link.mux.dropped_datagrams
        task = asyncio.ensure_future(_close(link))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._refresh()


class _Observer:
    """Tells :class:`Links` which link it is that something happened to."""

    def __init__(self, links: Links, link: Link) -> None:
        self.turn_ended = links._turn_ended
        self.state_changed = links._refresh
        self.cluster_changed = partial(links._cluster_changed, link)
        self.drained = partial(links._drained, link)
        self.refused = partial(links._refused, link)
        self.over = partial(links._over, link)


async def _close(link: Link) -> None:
    try:
        async with asyncio.timeout(2):
            await link.close()
    except (TimeoutError, TunstackError) as error:
        _log.info("a session did not end in order: %s", error)
