"""What a manager may be told, and when it refuses to listen."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from tunstack.config import MiB, Network, check_transport
from tunstack.errors import ConfigError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """Every setting of a manager.

    Raises:
        UsageError: it would listen where strangers are, unprotected; or half a key.
        ConfigError: a limit or a time that cannot be.
    """

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = 7777
    """Port to listen on; 0 picks one."""

    network: tuple[str, int] | None = None
    """Address and port to listen on as well, with TLS, for bearers of a token. Whoever
    comes by ``host``, which has to be loopback then, is let in without."""

    metrics: tuple[str, int] | None = None
    """Address and port for Prometheus; nothing listens without."""

    transport: str = "lean"
    """Which gRPC serves: ``lean`` is tunstack's, ``stock`` is grpcio."""

    insecure: bool = False
    """Listen anywhere without TLS and token."""

    token_file: Path | None = None
    """Tokens that let clients in, one a line; without it everybody is let in."""

    tls_cert: Path | None = None
    """PEM of the certificate, with its chain."""

    tls_key: Path | None = None
    """PEM of its key."""

    subnets: tuple[Network, ...] = ()
    """Networks of the cluster, for the clients to route."""

    namespaces: tuple[str, ...] = ()
    """Namespaces of the cluster, for the clients to resolve."""

    cluster_domain: str = "cluster.local"
    """Domain behind the names of services."""

    namespace: str = ""
    """Namespace the manager runs in; empty outside Kubernetes."""

    kubernetes: bool = False
    """Find out about the cluster from the API server, with the pod's own account."""

    token_review: bool = False
    """Let in whoever has a token that the API server knows, made out to ``tunstack``."""

    health: tuple[str, int] | None = None
    """Address and port that probes ask; nothing listens without."""

    pod_addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    """Of the pod that this runs in."""

    api_request: float = 10.0
    """Seconds for one request to the API server."""

    resolv_conf: Path = Path("/etc/resolv.conf")
    """Where the addresses of the cluster's resolver stand."""

    sessions: int = 256
    """Sessions at once, those that wait for their client to come back included."""

    flows: int = 65_536
    """Flows at once of all sessions; less when the open files do not suffice."""

    flows_per_session: int = 16_384
    """Flows at once of one session."""

    questions_per_session: int = 256
    """DNS questions of one session that may be unanswered."""

    flow_buffer: int = 2 * MiB
    """Octets per flow that wait for a slow target: the credit given to clients."""

    unacknowledged: int = 16 * MiB
    """Octets per session kept for a resumed stream. Beyond it sending waits."""

    hello: float = 10.0
    """Seconds that a new stream has for its hello."""

    resume: float = 30.0
    """Seconds that a session outlives its stream."""

    dial: float = 60.0
    """Seconds that a target has to take a connection."""

    idle: float = 180.0
    """Seconds without a datagram or echo that end a flow (RFC 4787: at least 120)."""

    keepalive: float = 10.0
    """Seconds of silence after which a client is asked, and then given up."""

    def __post_init__(self) -> None:
        check_transport("transport", self.transport)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both a certificate and its key")
        if self.token_review and not self.kubernetes:
            raise UsageError("--token-review asks the API server: it needs --kubernetes")
        tokens = self.token_file is not None or self.token_review
        protected = self.tls_cert is not None and tokens
        if self.network is not None and not (protected and is_loopback(self.host)):
            raise UsageError(
                "--network needs TLS and tokens, and --listen on loopback",
                hint="give --tls-cert, --tls-key, and --token-file or --token-review",
            )
        if not (protected or self.insecure or is_loopback(self.host)):
            raise UsageError(
                f"refusing to listen on {self.host} without TLS and a token",
                hint="give --tls-cert, --tls-key and --token-file or --token-review, or say"
                " --insecure",
            )
        for name in ("sessions", "flows", "flows_per_session", "questions_per_session"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: want 1 or more")
        if not 64 * 1024 <= self.flow_buffer <= 1 << 30:
            raise ConfigError("flow_buffer: want 64 KiB to 1 GiB")
        for name in ("hello", "dial", "idle", "keepalive"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: want more than 0 seconds")


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches what listens on ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
