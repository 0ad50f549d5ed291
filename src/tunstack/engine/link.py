"""A client's life with a manager: one session over as many streams as it takes.

While a stream lasts, what arrives goes to the owners of the flows, in one turn per
message. When it breaks, the link reconnects with back-off and asks to go on where it
was (:mod:`tunstack.mux.replay`); flows only pause. When the manager has lost the
session, or nothing came back within ``tunnel.keepalive``, its flows are lost: each owner
gets RESET with ``Refusal.LOST``. TCP flows that were still to open are not lost: they
wait for the next session, as do those opened meanwhile.
"""

import asyncio
import ipaddress
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from tunstack._version import PRODUCT, PROTOCOL, PROTOCOL_MINIMUM
from tunstack.config import Config, Network
from tunstack.engine.stream import Stream, ViolationError
from tunstack.engine.way import Way
from tunstack.errors import ConfigError, TunnelError, TunstackError, UsageError
from tunstack.mux.session import TCP, Flow, Mux
from tunstack.rpc import transport
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import Channel, Endpoint
from tunstack.upstream.upstream import Answered
from tunstack.wire.frame import Kind, Refusal

_log = logging.getLogger(__name__)

_OPEN, _REFUSED = Kind.OPEN, Kind.REFUSED
"""To name a member through its class is a call in Python 3.11."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the manager says of the cluster."""

    subnets: tuple[Network, ...] = ()
    """Networks whose addresses mean something there."""
    namespaces: tuple[str, ...] = ()
    domain: str = ""
    """Behind the names of services: ``cluster.local``."""
    icmp: bool = False
    """The manager can send ICMP echo requests."""
    probes: tuple[tuple[str, int], ...] = ()
    """Addresses and ports of the manager that answer whoever is in the cluster anyway."""
    identity: str = ""
    """What they answer."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who is at the other end."""

    version: str
    """Of the product."""
    protocol: int
    """The version spoken."""
    address: str
    """``HOST:PORT``."""
    namespace: str
    """Where it runs; empty outside Kubernetes."""


class ResolverError(TunnelError):
    """The cluster's resolver did not answer.

    Args:
        why: for people.
        server: who was asked; empty when that is not known.
    """

    def __init__(self, why: str, server: str = "") -> None:
        super().__init__(
            f"the cluster's resolver: {why}", hint="see the health of the cluster's DNS"
        )
        self.why = why
        self.server = server


class Listener(Protocol):
    """Whoever wants to know how a session is, or several are."""

    def state_changed(self) -> None:
        """:attr:`Link.state` is another."""

    def cluster_changed(self) -> None:
        """:attr:`Link.cluster` is another."""

    def turn_ended(self) -> None:
        """All events of the messages that came together have been dispatched."""


class Observer(Listener, Protocol):
    """Whoever has a stand-in for a manager that goes."""

    def drained(self, reason: str) -> None:
        """The manager is about to go."""

    def refused(self, flow: Flow, refusal: Refusal) -> bool:
        """A flow was refused; returns whether it was opened elsewhere instead."""

    def over(self) -> None:
        """The manager has ended the session."""


def parse_endpoint(manager: str, *, tls_ca: bytes | str | None, insecure: bool) -> Endpoint:
    """Say how a manager is to be reached.

    Plaintext goes to loopback, and elsewhere only when asked for by hand.

    Args:
        manager: ``HOST:PORT``, an IPv6 address in brackets.
        tls_ca: PEM of the authorities to trust, instead of the system's. With it even
            loopback is reached by TLS.
        insecure: plaintext wherever it is.

    Raises:
        ConfigError: that is not ``HOST:PORT``.
        UsageError: plaintext and authorities at once.
    """
    host, colon, port = manager.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and colon and port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError(
            f"tunnel.manager: {manager!r} is not HOST:PORT",
            hint="for example --manager 10.0.0.1:7777, or [fd00::1]:7777",
        )
    if insecure and tls_ca is not None:
        raise UsageError("--insecure and --tls-ca exclude each other")
    ca = tls_ca.encode() if isinstance(tls_ca, str) else tls_ca
    tls = not insecure and (ca is not None or not _is_loopback(host))
    return Endpoint(host=host, port=int(port), tls=tls, ca=ca)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def backoff(first: float, most: float, uniform: Callable[[], float]) -> Iterator[float]:
    """Give the seconds to wait before each attempt, without end.

    Args:
        first: the bound of the first wait; doubled each time.
        most: the bound of all.
        uniform: random numbers in [0, 1). A wait is half its bound at least; the rest
            is by chance, so that clients which lost their manager together do not come
            back together.
    """
    bound = first
    while True:
        yield bound * (0.5 + uniform() / 2)
        bound = min(2 * bound, most)


class Link:
    """A session with a manager, kept up until :meth:`close`.

    Args:
        way: to the manager.
        token: proves who we are; ``None`` without.
        config: of the tunnel and its timeouts.
        progress: told of each step while it starts.
        uniform: random numbers in [0, 1).
    """

    def __init__(
        self,
        way: Way,
        *,
        token: str | None,
        config: Config,
        progress: Callable[[str], None] = lambda _: None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._way = way
        self._progress = progress
        self._token = token
        self._config = config
        self._uniform = uniform
        self._stream: Stream | None = None
        self._life: asyncio.Task[None] | None = None
        self._identity: tuple[bytes, bytes] | None = None
        """Session and secret; ``None`` when there is none to go on with."""
        self._questions: dict[int, tuple[pb.FromClient, asyncio.Future[Answered]]] = {}
        self._next_question = 0
        self.listeners: list[Observer] = []
        self.mux = self._new_mux()
        """Of this session: another object after the manager has lost it."""
        self.state = "disconnected"
        """``connected``, ``reconnecting`` or ``disconnected``."""
        self.cluster = Cluster()
        self.manager: Manager
        """Known once :meth:`start` has returned."""

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip to the manager; ``None`` when not known yet."""
        return None if self._stream is None else self._stream.rtt

    async def start(self) -> None:
        """Begin the session.

        Raises:
            TunnelError: there is no manager, or it is silent, or speaks another protocol.
            AuthError: one of both ends does not trust the other.
            TunstackError: there is no way to it.
        """
        timeouts = self._config.timeouts
        await self._connect(timeouts.manager_connect, timeouts.manager_welcome)
        self._life = asyncio.create_task(self._keep_up())

    def start_later(self) -> None:
        """Begin the session as soon as there is a manager; returns at once."""
        self._set_state("reconnecting")
        self._life = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        await self._reconnect(self._waits())
        await self._keep_up()

    def wake(self) -> None:
        """Say that the mux may have something to send."""
        if self.state == "connected" and self.mux.pending:
            assert self._stream is not None
            self._stream.wake()

    async def ask(self, message: bytes, timeout: float) -> Answered:
        """Ask the cluster's resolver.

        A question survives its stream: it is asked again on the next.

        Args:
            message: DNS query, RFC 1035 section 4.
            timeout: seconds to wait for the answer.

        Returns:
            The resolver's message, as the manager got it.

        Raises:
            ResolverError: no answer in time, or the manager says why there is none.
            TunnelError: the session is closed.
        """
        if self.state == "disconnected":
            raise TunnelError("the session is closed")
        self._next_question = self._next_question + 1 & 0xFFFF_FFFF
        number = self._next_question
        question = pb.FromClient(
            dns_question=pb.DnsQuestion(
                # The manager, who knows whom it asked, is to be the first to give up.
                id=number,
                message=message,
                timeout=int(timeout * 900),
            )
        )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answered] = loop.create_future()
        self._questions[number] = question, answer
        if self.state == "connected":
            assert self._stream is not None
            self._stream.say(question)

        def give_up() -> None:
            if not answer.done():
                why = f"the manager did not answer within {timeout:g} s"
                answer.set_exception(ResolverError(f"{why} (dns.lookup_timeout)"))

        timer = loop.call_later(timeout, give_up)
        try:
            return await answer
        finally:
            timer.cancel()
            del self._questions[number]

    async def close(self) -> None:
        """Say goodbye, and wait until the stream is gone. Flows that are left are lost."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait((self._life,))
        try:
            await self._leave()
        finally:
            self._set_state("disconnected")
            self._lose(list(self.mux.flows.values()))
            for _, answer in self._questions.values():
                if not answer.done():
                    answer.set_exception(TunnelError("the session is closed"))

    async def _leave(self) -> None:
        stream = self._stream
        if stream is None or stream.gone.done():
            return
        stream.leave(pb.CODE_CLOSED, "the session is closed")
        try:
            await asyncio.shield(stream.gone)
        except asyncio.CancelledError:
            stream.abort(TunnelError("the goodbye took too long"))
            raise

    # The life of the session

    async def _connect(self, connect: float, welcome: float) -> None:
        """Open a stream and wait for the welcome.

        Args:
            connect: seconds for the connection.
            welcome: seconds from then on.
        """
        keepalive = self._config.tunnel.keepalive
        # Whoever has no patience with the connection has none with the welcome.
        setting = "manager_welcome" if welcome < connect else "manager_connect"
        welcome = min(connect, welcome)

        def attach(channel: Channel) -> Stream:
            self._stream = Stream(channel, self, self._hello(), keepalive)
            return self._stream

        last = None if self._stream is None else self._stream.peer
        target = await self._way.open(last)
        self._progress(f"reaching the manager at {target.peer}")
        link = transport.load(self._config.tunnel.transport)
        await link.connect(target, attach, keepalive=keepalive, timeout=connect)
        stream = self._stream
        assert stream is not None
        stream.wake()
        try:
            async with asyncio.timeout(welcome):
                await asyncio.shield(stream.welcomed)
        except TimeoutError:
            error = TunnelError(
                f"the manager at {stream.peer} said no welcome within {welcome:g} s"
                f" (timeouts.{setting})"
            )
            stream.abort(error)
            raise error from None
        except asyncio.CancelledError:
            stream.abort(TunnelError("nobody waits for the welcome any more"))
            raise

    def _hello(self) -> pb.Hello:
        hello = pb.Hello(
            protocol=PROTOCOL,
            protocol_minimum=PROTOCOL_MINIMUM,
            product_version=PRODUCT,
            token=self._token or "",
        )
        if self._identity is not None:
            hello.resume.session, hello.resume.secret = self._identity
            hello.resume.received = self.mux.received
        return hello

    def _waits(self) -> Iterator[float]:
        tunnel = self._config.tunnel
        return backoff(tunnel.reconnect_first, tunnel.reconnect_most, self._uniform)

    async def _keep_up(self) -> None:
        """Find a stream after each one that is gone."""
        loop = asyncio.get_running_loop()
        tunnel = self._config.tunnel
        waits = self._waits()
        while True:
            assert self._stream is not None
            began = loop.time()
            await asyncio.shield(self._stream.gone)
            _log.warning("reconnecting: %s", self._stream.reason)
            self._set_state("reconnecting")
            if loop.time() - began > tunnel.reconnect_most:
                # It was of use; one that comes and goes at once is not.
                waits = self._waits()
            patience = loop.call_later(tunnel.keepalive, self._give_up)
            try:
                await self._reconnect(waits)
            finally:
                patience.cancel()
            _log.info("connected again")

    async def _reconnect(self, waits: Iterator[float]) -> None:
        timeouts, most = self._config.timeouts, self._config.tunnel.keepalive
        said = ""
        for wait in waits:
            await asyncio.sleep(wait)
            try:
                await self._connect(
                    min(timeouts.manager_connect, most),
                    min(timeouts.manager_welcome, most),
                )
            except TunstackError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("still reconnecting: %s", said)
            else:
                return

    def _give_up(self) -> None:
        """Wait no longer for the session: those on flows want to know."""
        if self._stream is not None:
            # It may just be asking to go on with what is given up here.
            self._stream.abort(TunnelError("the session was given up"))
        self._renew()

    def _renew(self) -> None:
        """The session is lost: begin the next, with what was still to open."""
        flows = self.mux.flows.values()
        dropped = self.mux.dropped_datagrams
        self.mux = self._new_mux()
        self.mux.dropped_datagrams = dropped
        self._identity = None
        lost = []
        for flow in flows:
            if flow.protocol == TCP and not (flow.open or flow.finished):
                self.mux.adopt(flow)
            else:
                lost.append(flow)
        self._lose(lost)

    def _lose(self, flows: list[Flow]) -> None:
        for flow in flows:  # before anybody acts on the loss of another
            flow.gone = True
        for flow in flows:
            if flow.owner is not None:
                flow.owner.flow_event(Kind.RESET, flow, Refusal.LOST)
        self._end_turn()

    def _new_mux(self) -> Mux:
        return Mux(
            client=True,
            unacknowledged=self._config.tunnel.unacknowledged,
            datagram_queue=self._config.udp.queue,
        )

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            for listener in tuple(self.listeners):
                listener.state_changed()

    def _end_turn(self) -> None:
        for listener in tuple(self.listeners):
            listener.turn_ended()

    # What a stream tells

    def welcomed(self, stream: Stream, welcome: pb.Welcome) -> None:
        """Go on with a stream, where we were or anew."""
        cluster = _cluster(welcome.cluster)
        if not welcome.resumed:
            if self._identity is not None:
                self._renew()
            self._identity = welcome.session, welcome.secret
        elif self._identity is None or not self.mux.resume(welcome.received):
            raise ViolationError("a session is resumed that does not fit ours")
        self.manager = Manager(
            version=welcome.product_version,
            protocol=welcome.protocol,
            address=stream.peer,
            namespace=welcome.cluster.manager_namespace,
        )
        for question, _ in self._questions.values():
            stream.say(question)
        self._set_state("connected")
        self._set_cluster(cluster)

    def frames_received(self, frames: bytes | memoryview) -> None:
        """Give each frame to the owner of its flow."""
        mux = self.mux
        for kind, flow, value in mux.receive(frames):
            if kind is _REFUSED and self._opened_elsewhere(flow, value[0]):
                continue
            if flow.owner is not None:
                flow.owner.flow_event(kind, flow, value)
            elif kind is _OPEN:
                mux.refuse(flow, Refusal.UNAVAILABLE, "this client takes no flows")
        if mux.violation is not None:
            raise ViolationError(mux.violation)

    def turn_ended(self) -> None:
        """All frames that came together have been given to their owners."""
        self._end_turn()
        self.wake()

    def _opened_elsewhere(self, flow: Flow, refusal: Refusal) -> bool:
        return any(listener.refused(flow, refusal) for listener in tuple(self.listeners))

    def drain_received(self, reason: str) -> None:
        """Take note that the manager is about to go."""
        for listener in tuple(self.listeners):
            listener.drained(reason)

    def cluster_received(self, info: pb.ClusterInfo) -> None:
        """Take what the cluster is now."""
        self._set_cluster(_cluster(info))

    def namespaces_changed(self, change: pb.NamespacesChange) -> None:
        """Take what namespaces there are now."""
        names = set(self.cluster.namespaces).difference(change.removed)
        names.update(change.added)
        self._set_cluster(replace(self.cluster, namespaces=tuple(sorted(names))))

    def _set_cluster(self, cluster: Cluster) -> None:
        if cluster != self.cluster:
            self.cluster = cluster
            for listener in tuple(self.listeners):
                listener.cluster_changed()

    def answer_received(self, answer: pb.DnsAnswer) -> None:
        """Give an answer to whoever asked, if somebody still waits."""
        _, waiting = self._questions.get(answer.id, (None, None))
        if waiting is None or waiting.done():
            return
        if answer.message:
            seconds = answer.elapsed / 1e6
            waiting.set_result(Answered(answer.message, answer.server, seconds))
        else:
            waiting.set_exception(ResolverError(answer.error, answer.server))

    def over(self) -> None:
        """The stream has ended the session, not only itself."""
        self._set_state("reconnecting")
        self._renew()
        for listener in tuple(self.listeners):
            listener.over()


def _cluster(info: pb.ClusterInfo) -> Cluster:
    return Cluster(
        subnets=tuple(map(_network, info.subnets)),
        namespaces=tuple(info.namespaces),
        domain=info.cluster_domain,
        icmp=info.icmp,
        probes=tuple((str(_address(probe.address)), probe.port) for probe in info.probes),
        identity=info.identity,
    )


def _address(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(packed)
    except ValueError:
        raise ViolationError(f"{packed.hex()} is not an address") from None


def _network(subnet: pb.Subnet) -> Network:
    address, prefix = subnet.address, subnet.prefix_length
    try:
        if len(address) == 4:
            return ipaddress.IPv4Network((address, prefix), strict=False)
        return ipaddress.IPv6Network((address, prefix), strict=False)
    except ValueError:
        raise ViolationError(f"{address.hex()}/{prefix} is not a subnet") from None
