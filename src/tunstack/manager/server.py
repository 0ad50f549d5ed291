"""The traffic manager: settings in, sessions served, and an orderly way out."""

import asyncio
import logging
import os
from collections.abc import Awaitable
from functools import partial

from tunstack._version import PRODUCT, PROTOCOL, PROTOCOL_MINIMUM
from tunstack.cluster import kubeconfig
from tunstack.cluster.access import Access, resolve
from tunstack.cluster.discovery import Found
from tunstack.errors import ConfigError, TunstackError
from tunstack.manager import limits
from tunstack.manager.auth import Tokens
from tunstack.manager.cluster import Kubernetes, View
from tunstack.manager.config import ManagerConfig
from tunstack.manager.dialer import Dialer
from tunstack.manager.health import Health
from tunstack.manager.metrics import Metrics
from tunstack.manager.poller import Poller
from tunstack.manager.session import Reception, Session, Shared, Verdict
from tunstack.rpc import transport
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import Channel, Keys, Server
from tunstack.upstream.upstream import ResolvConf, Upstream

_log = logging.getLogger(__name__)

STRANGERS = 64
"""Streams that have not said hello yet. More are turned away."""

GOING_AWAY = "the manager is going away"


class Manager:
    """Serves sessions until it is told to go.

    Raises:
        ConfigError: the token file is of no use.
    """

    def __init__(self, config: ManagerConfig) -> None:
        self._config = config
        self._tokens = None if config.token_file is None else Tokens(config.token_file)
        self._sessions: dict[bytes, Session] = {}
        self._strangers: set[Reception] = set()
        self._draining = False
        self._gone = asyncio.Event()
        self._server: Server | None = None
        self._network: Server | None = None
        self._shared: Shared | None = None
        self._metrics: Metrics | None = None
        self._view: View | None = None
        self._kubernetes: Kubernetes | None = None
        self._health: Health | None = None

    async def start(self) -> tuple[str, int]:
        """Begin to accept sessions; returns where.

        Raises:
            HostError: an address cannot be listened on.
            ConfigError: the certificate or its key is of no use; or there is no account
                of a pod.
        """
        config = self._config
        loop = asyncio.get_running_loop()
        limit = limits.flow_limit(config.flows, limits.raise_open_files())
        self._shared = Shared(
            config=config,
            loop=loop,
            poller=Poller(loop),
            dialer=Dialer(limit, config.dial),
            resolver=Upstream(
                ResolvConf(config.resolv_conf).name_servers,
                chase=True,
                where=str(config.resolv_conf),
            ),
        )
        if config.metrics is not None:
            dialer = self._shared.dialer
            self._metrics = Metrics(
                *config.metrics,
                sessions=lambda: self.session_count,
                flows=lambda: dialer.targets,
                opened=lambda: dialer.opened,
            )
        self._view = View(config, icmp=self._shared.dialer.icmp)
        view = self._view
        if config.health is not None:
            self._health = Health(self._ready, lambda: view.identity)
            await self._health.start(*config.health)
        if config.kubernetes:
            self._kubernetes = Kubernetes(_own_access, config, self._cluster_changed)
            view.namespace = self._kubernetes.namespace
            await self._kubernetes.start()
        guarded = config.network is None
        self._server = await self._listen(config.host, config.port, guarded=guarded)
        if config.network is not None:
            self._network = await self._listen(*config.network, guarded=True)
        return config.host, self._server.port

    async def _listen(self, host: str, port: int, *, guarded: bool) -> Server:
        """Accept sessions at an address; of bearers of a token only, if it is guarded."""
        accept = partial(self._accept, guarded=guarded)
        server: Server = await transport.load(self._config.transport).serve(
            host,
            port,
            accept,
            keys=_keys(self._config) if guarded else None,
            keepalive=self._config.keepalive,
        )
        return server

    @property
    def network_port(self) -> int | None:
        """The port that it listens on as well; ``None`` when on none."""
        return None if self._network is None else self._network.port

    @property
    def session_count(self) -> int:
        """Sessions, those whose client is away included."""
        return len(self._sessions)

    @property
    def metrics_port(self) -> int | None:
        """The port that metrics are served on; ``None`` when they are not."""
        return None if self._metrics is None else self._metrics.port

    @property
    def health_port(self) -> int | None:
        """The port that probes ask; ``None`` when there is none."""
        return None if self._health is None else self._health.port

    async def run(self) -> None:
        """Wait until the manager has gone, by :meth:`drain`."""
        await self._gone.wait()

    async def drain(self, seconds: float) -> None:
        """Go away in order: no new sessions and flows, then none at all.

        Returns when it is gone, whoever asked first.

        Args:
            seconds: what connections have to end by themselves. Associations and echoes
                have no end of their own, and nobody waits for them.
        """
        assert self._server is not None
        assert self._shared is not None
        if self._draining:
            await self.run()
            return
        self._draining = True
        servers = [self._server] if self._network is None else [self._server, self._network]
        for server in servers:
            server.set_serving(False)
        for session in list(self._sessions.values()):
            session.drain(seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._shared.dialer.quiet.wait()
        except TimeoutError:
            _log.info("%d flows did not end in time", self._shared.dialer.targets)
        for session in list(self._sessions.values()):
            session.end(pb.CODE_DRAINING, GOING_AWAY)
        await asyncio.gather(*(server.close() for server in servers))
        self._shared.poller.close()
        if self._kubernetes is not None:
            await self._kubernetes.close()
        if self._health is not None:
            await self._health.close()
        if self._metrics is not None:
            self._metrics.close()
        self._gone.set()

    def _ready(self) -> bool:
        return self._server is not None and not self._draining

    def _cluster_changed(self, found: Found) -> None:
        assert self._view is not None
        news = self._view.take(found)
        for session in list(self._sessions.values()):
            session.tell(news)

    def _accept(self, channel: Channel, *, guarded: bool) -> Reception:
        reception = Reception(
            channel,
            partial(self._examine, guarded=guarded),
            self._admit,
            self._strangers.discard,
            self._config.hello,
        )
        self._strangers.add(reception)
        if len(self._strangers) > STRANGERS:
            reception.refuse(pb.CODE_LIMIT, "too many streams have not said hello")
        return reception

    async def _review(self, token: str) -> pb.Goodbye | None:
        """Ask the API server about a token; gives why its bearer is not let in."""
        assert self._kubernetes is not None
        try:
            user = await self._kubernetes.knows(token)
        except TunstackError as error:
            return pb.Goodbye(code=pb.CODE_INTERNAL, reason=str(error))
        if user is None:
            reason = "the API server does not know the token as one made out to tunstack"
            return pb.Goodbye(code=pb.CODE_UNAUTHENTICATED, reason=reason)
        _log.info("the token is that of %s", user)
        return None

    def _examine(self, hello: pb.Hello, *, guarded: bool) -> Verdict | Awaitable[Verdict]:
        """Decide whether who says this hello is let in."""
        version = min(hello.protocol, PROTOCOL)
        if version < max(hello.protocol_minimum, PROTOCOL_MINIMUM):
            return pb.Goodbye(
                code=pb.CODE_VERSION,
                reason=(
                    f"the client speaks protocol {hello.protocol_minimum} to"
                    f" {hello.protocol}, the manager {PROTOCOL_MINIMUM} to {PROTOCOL}"
                ),
            )
        if not guarded:
            return None
        if self._tokens is not None and self._tokens.accept(hello.token):
            return None
        if self._config.token_review and hello.token:
            return self._review(hello.token)
        if self._tokens is not None or self._config.token_review:
            reason = "the token is wrong" if hello.token else "a token is needed"
            return pb.Goodbye(code=pb.CODE_UNAUTHENTICATED, reason=reason)
        return None

    def _admit(self, hello: pb.Hello, channel: Channel) -> Session | pb.Goodbye:
        """Give the session that a hello leads to, of somebody who is let in."""
        assert self._shared is not None
        assert self._view is not None
        version = min(hello.protocol, PROTOCOL)
        welcome = pb.Welcome(
            protocol=version,
            product_version=PRODUCT,
            flow_limit=self._config.flows_per_session,
            cluster=self._view.info,
        )
        session = self._sessions.get(hello.resume.session)
        if session is not None and session.resumable(hello.resume):
            welcome.resumed = True
        elif self._draining:
            return pb.Goodbye(code=pb.CODE_DRAINING, reason=GOING_AWAY)
        elif len(self._sessions) >= self._config.sessions:
            reason = f"this manager serves {self._config.sessions} sessions and no more"
            return pb.Goodbye(code=pb.CODE_LIMIT, reason=reason)
        else:
            session = Session(self._shared, self._ended)
            self._sessions[session.id] = session
        session.attach(channel, welcome)
        return session

    def _ended(self, session: Session) -> None:
        del self._sessions[session.id]


def _own_access() -> Access:
    """Give the access of the pod's own service account.

    Raises:
        ConfigError: this is no pod.
    """
    own = kubeconfig.in_cluster(os.environ)
    if own is None:
        raise ConfigError(
            "--kubernetes: this is not a pod with a service account",
            hint="`tunstack install` puts a manager into a cluster",
        )
    return resolve(own, {}, interactive=False, plugin_timeout=0)


def _keys(config: ManagerConfig) -> Keys | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Keys(certificate=config.tls_cert, key=config.tls_key)
