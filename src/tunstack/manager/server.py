"""The traffic manager: settings in, sessions served, and an orderly way out."""

import asyncio
import logging

from tunstack._version import PRODUCT, PROTOCOL, PROTOCOL_MINIMUM
from tunstack.manager import limits
from tunstack.manager.auth import Tokens
from tunstack.manager.config import ManagerConfig
from tunstack.manager.dialer import Dialer
from tunstack.manager.metrics import Metrics
from tunstack.manager.poller import Poller
from tunstack.manager.resolver import Resolver
from tunstack.manager.session import Reception, Session, Shared
from tunstack.rpc import transport
from tunstack.rpc import tunnel_pb2 as pb
from tunstack.rpc.channel import Channel, Keys, Server

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
        self._shared: Shared | None = None
        self._metrics: Metrics | None = None

    async def start(self) -> tuple[str, int]:
        """Begin to accept sessions; returns where.

        Raises:
            HostError: the address cannot be listened on.
            ConfigError: the certificate or its key is of no use.
        """
        config = self._config
        loop = asyncio.get_running_loop()
        limit = limits.flow_limit(config.flows, limits.raise_open_files())
        self._shared = Shared(
            config=config,
            loop=loop,
            poller=Poller(loop),
            dialer=Dialer(limit),
            resolver=Resolver(config.resolv_conf),
        )
        if config.metrics is not None:
            dialer = self._shared.dialer
            self._metrics = Metrics(
                *config.metrics,
                sessions=lambda: self.session_count,
                flows=lambda: dialer.targets,
                opened=lambda: dialer.opened,
            )
        self._server = await transport.load(config.transport).serve(
            config.host,
            config.port,
            self._accept,
            keys=_keys(config),
            keepalive=config.keepalive,
        )
        return config.host, self._server.port

    @property
    def session_count(self) -> int:
        """Sessions, those whose client is away included."""
        return len(self._sessions)

    @property
    def metrics_port(self) -> int | None:
        """The port that metrics are served on; ``None`` when they are not."""
        return None if self._metrics is None else self._metrics.port

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
        self._server.set_serving(False)
        for session in list(self._sessions.values()):
            session.drain(seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._shared.dialer.quiet.wait()
        except TimeoutError:
            _log.info("%d flows did not end in time", self._shared.dialer.targets)
        for session in list(self._sessions.values()):
            session.end(pb.CODE_DRAINING, GOING_AWAY)
        await self._server.close()
        self._shared.poller.close()
        if self._metrics is not None:
            self._metrics.close()
        self._gone.set()

    def _accept(self, channel: Channel) -> Reception:
        reception = Reception(
            channel, self._admit, self._strangers.discard, self._config.hello
        )
        self._strangers.add(reception)
        if len(self._strangers) > STRANGERS:
            reception.refuse(pb.CODE_LIMIT, "too many streams have not said hello")
        return reception

    def _admit(self, hello: pb.Hello, channel: Channel) -> Session | pb.Goodbye:
        """Decide what a hello leads to."""
        assert self._shared is not None
        version = min(hello.protocol, PROTOCOL)
        if version < max(hello.protocol_minimum, PROTOCOL_MINIMUM):
            return pb.Goodbye(
                code=pb.CODE_VERSION,
                reason=(
                    f"the client speaks protocol {hello.protocol_minimum} to"
                    f" {hello.protocol}, the manager {PROTOCOL_MINIMUM} to {PROTOCOL}"
                ),
            )
        if self._tokens is not None and not self._tokens.accept(hello.token):
            reason = "the token is wrong" if hello.token else "a token is needed"
            return pb.Goodbye(code=pb.CODE_UNAUTHENTICATED, reason=reason)
        welcome = pb.Welcome(
            protocol=version,
            product_version=PRODUCT,
            flow_limit=self._config.flows_per_session,
            cluster=self._cluster(),
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

    def _cluster(self) -> pb.ClusterInfo:
        assert self._shared is not None
        config = self._config
        return pb.ClusterInfo(
            subnets=[
                pb.Subnet(
                    address=subnet.network_address.packed, prefix_length=subnet.prefixlen
                )
                for subnet in config.subnets
            ],
            namespaces=config.namespaces,
            cluster_domain=config.cluster_domain,
            manager_namespace=config.namespace,
            icmp=self._shared.dialer.icmp,
        )


def _keys(config: ManagerConfig) -> Keys | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Keys(certificate=config.tls_cert, key=config.tls_key)
