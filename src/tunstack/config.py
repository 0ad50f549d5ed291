"""Settings: one frozen dataclass a table, with unit, default and reason.

This module says what settings exist and what they may be. ``cli/settings.py`` reads
them from the places where people put them.

Outside this process a setting is a *plain* value under a dotted key: what TOML, JSON
and a line of text can hold. :func:`build` and :func:`plain` go between the two.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from tunstack.errors import ConfigError

KiB = 1024
MiB = 1024 * KiB

Network = IPv4Network | IPv6Network


def _between(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} is not between {low} and {high} {unit}")


TRANSPORTS = ("lean", "stock")
"""Implementations of gRPC; each is a module of ``rpc``."""


def check_transport(name: str, value: str) -> None:
    """Raise :class:`ConfigError` when there is no such transport."""
    if value not in TRANSPORTS:
        raise ConfigError(f"{name}: {value!r}: want {' or '.join(TRANSPORTS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConfig:
    """Which addresses go through the tunnel. Table ``[routing]``."""

    also_proxy: tuple[Network, ...] = ()
    """Networks beside the cluster's own."""

    never_proxy: tuple[Network, ...] = ()
    """Networks that stay out. At equal length this one wins."""

    device: str = "ts0"
    """Name of the TUN device."""

    device_subnet: IPv4Network = IPv4Network("198.18.0.0/15")
    """A free /30 of it becomes the device's own (RFC 2544; nobody routes it)."""

    device_subnet6: IPv6Network = IPv6Network("fd74:756e:7374::/48")
    """The same for IPv6, a free /126 of it (RFC 4193)."""

    mtu: int = 65_520
    """Octets in one IP packet. The kernel cuts larger pieces, so large is fast."""

    offload: bool = True
    """Let the kernel leave checksums and cutting to the other side of the device."""

    txqueuelen: int = 4096
    """Packets that may wait for us in the device. Its default of 500 overflows."""

    def __post_init__(self) -> None:
        # 1280 is the least that IPv6 works with: RFC 8200, section 5.
        _between("routing.mtu", self.mtu, 1280, 65_535, "octets")
        _between("routing.txqueuelen", self.txqueuelen, 1, 1_000_000, "packets")
        if not 1 <= len(self.device.encode()) <= 15 or "/" in self.device:
            raise ConfigError(f"routing.device: {self.device!r} is not a device name")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpConfig:
    """How connections from this computer are terminated. Table ``[tcp]``."""

    accept: str = "truthful"
    """``truthful``: SYN-ACK once the target answered. ``eager``: at once."""

    receive_buffer: int = 2 * MiB
    """Octets in flight per connection towards the cluster: the most RCV.WND opens to."""

    send_buffer: int = 2 * MiB
    """Octets held per connection for this computer: the credit the manager gets."""

    time_wait: float = 2.0
    """Seconds in TIME-WAIT. RFC 9293 asks for 2 MSL; a TUN link has no old segments."""

    max_connections: int = 65_536
    """Connections at once. More are not answered, and counted."""

    max_pending: int = 4096
    """Connections being opened at once. More are not answered, and counted."""

    def __post_init__(self) -> None:
        if self.accept not in ("truthful", "eager"):
            raise ConfigError(f"tcp.accept: {self.accept!r}: want truthful or eager")
        for name in ("receive_buffer", "send_buffer"):
            # RFC 7323, section 2.3 bounds the window.
            _between(f"tcp.{name}", getattr(self, name), 64 * KiB, 1 << 30, "octets")
        _between("tcp.time_wait", self.time_wait, 0.01, 240, "seconds")
        for name in ("max_connections", "max_pending"):
            _between(f"tcp.{name}", getattr(self, name), 1, 1 << 20, "connections")


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpConfig:
    """How datagrams from this computer are carried. Table ``[udp]``."""

    max_associations: int = 8192
    """Associations at once, half of the flows that a manager gives a session. Beyond it
    the one idle longest ends. The manager ends those that have been idle for 180 s."""

    queue: int = 1 * MiB
    """Octets of datagrams per association that may wait. More are dropped, counted."""

    def __post_init__(self) -> None:
        _between("udp.max_associations", self.max_associations, 1, 1 << 20, "flows")
        # One datagram has to fit.
        _between("udp.queue", self.queue, 64 * KiB, 1 << 30, "octets")


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelConfig:
    """The stream to the manager. Table ``[tunnel]``."""

    manager: str | None = None
    """``HOST:PORT`` of a manager reached directly."""

    transport: str = "lean"
    """Which gRPC carries the stream: ``lean`` is tunstack's, ``stock`` is grpcio."""

    keepalive: float = 10.0
    """Seconds of silence after which the other end is asked, and then given up."""

    reconnect_first: float = 0.1
    """Seconds before the first attempt to reconnect; doubled each time."""

    reconnect_most: float = 2.0
    """The most seconds between two attempts."""

    unacknowledged: int = 16 * MiB
    """Octets of frames kept for a resumed stream. Beyond it sending waits."""

    def __post_init__(self) -> None:
        check_transport("tunnel.transport", self.transport)
        for name in ("keepalive", "reconnect_first", "reconnect_most"):
            _between(f"tunnel.{name}", getattr(self, name), 0.01, 3600, "seconds")
        _between("tunnel.unacknowledged", self.unacknowledged, MiB, 1 << 30, "octets")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsConfig:
    """How long anything may take. Table ``[timeouts]``. Seconds."""

    manager_connect: float = 20.0
    """From the first packet to a connection with the manager; the same for a
    port-forward."""

    manager_welcome: float = 10.0
    """From the connection to the manager's welcome."""

    api_request: float = 10.0
    """One request to the API server."""

    exec_plugin: float = 60.0
    """What a kubeconfig's exec plugin has to give credentials. People may log in there."""

    pod_ready: float = 20.0
    """What a pod of the manager has to become ready."""

    reachable: float = 0.5
    """What the cluster has to answer beside the tunnel. When it does, the addresses it
    answered from are not routed."""

    helper: float = 10.0
    """One request to the privileged helper."""

    def __post_init__(self) -> None:
        for key in fields(self):
            _between(f"timeouts.{key.name}", getattr(self, key.name), 0.01, 3600, "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Which Kubernetes cluster. Table ``[cluster]``."""

    kubeconfig: str | None = None
    """The one kubeconfig to read, instead of ``KUBECONFIG`` and ``~/.kube/config``."""

    context: str | None = None
    """Context of the kubeconfig, instead of the current one."""

    namespace: str | None = None
    """Namespace to be in, instead of the context's."""

    manager_namespace: str = "tunstack"
    """Where the traffic manager is installed."""

    port_forwards: int = 2
    """Port-forwards that share the load. Each carries whole connections."""

    def __post_init__(self) -> None:
        for name in ("namespace", "manager_namespace"):
            check_namespace(f"cluster.{name}", getattr(self, name))
        _between("cluster.port_forwards", self.port_forwards, 1, 16, "port-forwards")


LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""The name of a namespace: a label of RFC 1123, as Kubernetes has it."""


def check_namespace(what: str, name: str | None) -> None:
    """Raise :class:`ConfigError` when that is no name of a namespace (RFC 1123 label)."""
    if name is not None and not LABEL.fullmatch(name):
        raise ConfigError(
            f"{what}: {name!r} is not the name of a namespace",
            hint="small letters, digits and - inside, at most 63",
        )


@dataclass(frozen=True, slots=True)
class NameMapping:
    """A name that stands for another name, or for an address."""

    name: str
    target: str

    def __str__(self) -> str:
        return f"{self.name}={self.target}"


DNS_MODES = ("auto", "resolved", "overriding", "files", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """Which names are the cluster's. Table ``[dns]``.

    Names are whole names, suffixes are whole labels at their end: ``rs`` is no suffix of
    ``foo.bars``. A dot in front or behind means nothing.
    """

    mode: str = "auto"
    """How this host is told: ``auto`` takes the first that works of ``resolved``,
    ``overriding`` and ``files``; ``none`` leaves its resolver alone."""

    include_suffixes: tuple[str, ...] = ()
    """Names that end so are looked up in the cluster, beside its own."""

    exclude_suffixes: tuple[str, ...] = ()
    """Names that end so are looked up by this host. The longest suffix decides."""

    excludes: tuple[str, ...] = ()
    """Names that are looked up by this host, whatever their suffix."""

    mappings: tuple[NameMapping, ...] = ()
    """``NAME=TARGET``: names that stand for another name, or for an address."""

    search: tuple[str, ...] = ()
    """Where single labels are looked for, beside the session's namespace."""

    force_namespaces: tuple[str, ...] = ()
    """Namespaces whose short names are the cluster's though they are public suffixes."""

    local_ip: str | None = None
    """This host's own name server, instead of those of ``/etc/resolv.conf``."""

    lookup_timeout: float = 4.0
    """Seconds that the cluster's resolver has for one question."""

    def __post_init__(self) -> None:
        if self.mode not in DNS_MODES:
            raise ConfigError(f"dns.mode: {self.mode!r}: want {', '.join(DNS_MODES)}")
        for key in ("include_suffixes", "exclude_suffixes", "excludes", "search"):
            for name in getattr(self, key):
                _check_name(f"dns.{key}", name)
        for mapping in self.mappings:
            _check_name("dns.mappings", mapping.name)
            if _address(mapping.target) is None:
                _check_name("dns.mappings", mapping.target)
        for namespace in self.force_namespaces:
            check_namespace("dns.force_namespaces", namespace)
        if self.local_ip is not None and _address(self.local_ip) is None:
            raise ConfigError(f"dns.local_ip: {self.local_ip!r} is not an address")
        _between("dns.lookup_timeout", self.lookup_timeout, 0.01, 30, "seconds")


def _check_name(what: str, name: str) -> None:
    """Raise :class:`ConfigError` when that is no DNS name (RFC 1035, section 2.3.4)."""
    labels = name.strip(".").split(".")
    if len(name) > 253 or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", x) for x in labels):
        raise ConfigError(f"{what}: {name!r} is not a name")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Table ``[log]``."""

    level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""

    def __post_init__(self) -> None:
        if self.level not in ("debug", "info", "warning", "error"):
            raise ConfigError(
                f"log.level: {self.level!r}: want debug, info, warning or error"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting in force."""

    routing: RoutingConfig = field(default_factory=RoutingConfig)
    tcp: TcpConfig = field(default_factory=TcpConfig)
    udp: UdpConfig = field(default_factory=UdpConfig)
    tunnel: TunnelConfig = field(default_factory=TunnelConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dns: DnsConfig = field(default_factory=DnsConfig)
    log: LogConfig = field(default_factory=LogConfig)


Plain = str | int | float | bool | list[str] | None
"""What TOML, JSON and text can hold of a setting."""


def defaults() -> dict[str, Plain]:
    """Give every setting there is, as ``table.key``, with the plain default."""
    return plain(Config())


def plain(config: Config) -> dict[str, Plain]:
    """Give every setting in ``config``, as ``table.key``, with its plain value."""
    return {
        f"{table.name}.{key.name}": _plain(getattr(getattr(config, table.name), key.name))
        for table in fields(Config)
        for key in fields(table.type)  # type: ignore[arg-type]
    }


def build(values: Mapping[str, object]) -> Config:
    """Make settings out of plain values; what is not named keeps its default.

    Args:
        values: plain values by ``table.key``. Text is understood for every type:
            ``yes``, ``2 MiB``, ``1.5s``, networks separated by commas.

    Raises:
        ConfigError: a value is of the wrong type or out of range; names the key.
        KeyError: there is no such setting.
    """
    tables: dict[str, dict[str, object]] = {table.name: {} for table in fields(Config)}
    for key, value in values.items():
        table, _, name = key.partition(".")
        try:
            tables[table][name] = _READERS[_TYPES[key]](value)
        except ValueError as exc:
            raise ConfigError(f"{key}: {exc}") from exc
    return Config(
        **{
            table.name: table.type(**tables[table.name])  # type: ignore[operator]
            for table in fields(Config)
        }
    )


def _plain(value: object) -> Plain:
    if isinstance(value, tuple):
        return [str(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _boolean(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"want true or false, not {value!r}")


def _integer(value: object) -> int:
    match = re.fullmatch(r"(\d+) ?(KiB|MiB)?", str(value).strip())
    if match is None:
        raise ValueError(f"want a whole number, KiB or MiB behind it or not, not {value!r}")
    return int(match[1]) * {None: 1, "KiB": KiB, "MiB": MiB}[match[2]]


def _seconds(value: object) -> float:
    match = re.fullmatch(r"(\d+|\d*\.\d+) ?(ms|s|m)?", str(value).strip())
    if match is None:
        raise ValueError(f"want seconds, as 4, 0.5, 4s, 500ms or 2m, not {value!r}")
    return float(match[1]) * {None: 1, "ms": 0.001, "s": 1, "m": 60}[match[2]]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"want text, not {value!r}")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _networks(value: object) -> tuple[Network, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"want a list of networks, not {value!r}")
    return tuple(ip_network(str(item).strip()) for item in items if str(item).strip())


def _texts(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"want a list of names, not {value!r}")
    return tuple(_text(item).strip() for item in items if _text(item).strip())


def _mappings(value: object) -> tuple[NameMapping, ...]:
    """Read ``a=b`` in a list or with commas, or a list of ``{name, alias-for}``."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"want a list of NAME=TARGET, not {value!r}")
    given = [item for item in items if not isinstance(item, str) or item.strip()]
    return tuple(map(_mapping, given))


def _mapping(item: object) -> NameMapping:
    if isinstance(item, dict):
        keys = {re.sub(r"[-_]", "", str(key)).lower(): value for key, value in item.items()}
        if keys.keys() == {"name", "aliasfor"}:
            return NameMapping(_text(keys["name"]), _text(keys["aliasfor"]))
        raise ValueError(f"want the keys name and alias-for, not {item!r}")
    name, equals, target = _text(item).partition("=")
    if not equals:
        raise ValueError(f"want NAME=TARGET, not {item!r}")
    return NameMapping(name.strip(), target.strip())


_TYPES: dict[str, object] = {
    f"{table.name}.{key.name}": key.type
    for table in fields(Config)
    for key in fields(table.type)  # type: ignore[arg-type]
}

_READERS: dict[object, Callable[[object], object]] = {
    bool: _boolean,
    int: _integer,
    float: _seconds,
    str: _text,
    str | None: _text_or_none,
    IPv4Network: lambda value: IPv4Network(_text(value)),
    IPv6Network: lambda value: IPv6Network(_text(value)),
    tuple[Network, ...]: _networks,
    tuple[str, ...]: _texts,
    tuple[NameMapping, ...]: _mappings,
}
