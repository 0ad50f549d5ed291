"""Whose question is it: the cluster's, this host's, or answered from the settings.

A name is looked at from its end: of the suffixes that it has, the longest decides.

=====================  ===============================  ==========================
suffix                 the cluster is asked for         after "no such name"
=====================  ===============================  ==========================
the cluster's domain   the name                         that is the answer
``svc``                NAME.DOMAIN                      that is the answer
a namespace            NAME.svc.DOMAIN                  the host is asked
``include_suffixes``   the name                         the host is asked
``exclude_suffixes``   nothing: the host is asked
=====================  ===============================  ==========================

So are names for an address of the cluster (reverse lookups). A single label is looked for
in the search domains, then by the host. All other names are the host's alone.

A name of the cluster whose resolver fails is not looked up elsewhere: "no such name" from
somebody who cannot know would be a lie. Single labels are, as they are the host's too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from tunstack.config import LABEL, DnsConfig, Network
from tunstack.dns.message import text, wire

Address = IPv4Address | IPv6Address
CHECK = "tunstack-check.svc"
"""Names below it are answered by our server itself, so that it can be found out whether
questions of this host reach it."""

SPECIAL = frozenset(("alt", "arpa", "invalid", "local", "localhost", "onion"))
"""Names with a meaning of their own (RFC 6761, RFC 6762, RFC 9476)."""

MOST_ZONES = 64
"""Reverse zones that become routing domains; networks beyond have none."""

_REVERSE = {4: wire("in-addr.arpa"), 6: wire("ip6.arpa")}


@dataclass(frozen=True, slots=True)
class Decision:
    """Who answers a question. In this order, each if the one before has no such name."""

    rule: str
    """Why, for people."""
    names: tuple[bytes, ...] = ()
    """What the cluster is asked for, in wire format."""
    host: bool = False
    """This host's own name servers are asked."""
    alias: bytes | None = None
    """The question is for this name instead."""
    address: Address | None = None
    """This is the answer."""
    shared: bool = False
    """The name is as much the host's: when the cluster fails, the host is asked."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A namespace whose short names are not the cluster's."""

    namespace: str
    reason: str


class _Kind(Enum):
    DOMAIN = 0
    SERVICES = 1
    NAMESPACE = 2
    INCLUDED = 3
    HOST = 4
    CHECK = 5


@dataclass(slots=True, kw_only=True)
class Names:
    """What the names of a session are.

    Args:
        config: the settings.
        domain: of the cluster (``cluster.local``); empty when there is none.
        namespaces: of the cluster.
        namespace: the session's: single labels are its services.
        networks: whose addresses have their names in the cluster.
        public: single labels that are public suffixes (``rs``, ``dev``).
        server: our own address, for questions below :data:`CHECK`.
    """

    config: DnsConfig = field(default_factory=DnsConfig)
    domain: str = ""
    namespaces: tuple[str, ...] = ()
    namespace: str = "default"
    networks: tuple[Network, ...] = ()
    public: frozenset[str] = frozenset()
    server: Address | None = None


class Rules:
    """Decides; see the table above. Made anew when the names are others."""

    def __init__(self, names: Names) -> None:
        config = names.config
        self._names = names
        self._suffixes: dict[bytes, tuple[_Kind, str]] = {}
        domain = _cluster_domain(names)
        self._domain = wire(domain)
        self._services = wire(f"svc.{domain}")
        self.skipped: list[Skipped] = []
        """Namespaces without short names."""
        self.search: list[str] = []
        """Where single labels are looked for."""
        # The first that names a suffix has it: what people said goes before what we know.
        for suffix in config.include_suffixes:
            self._add(suffix, _Kind.INCLUDED, "include_suffixes")
        for suffix in config.exclude_suffixes:
            self._add(suffix, _Kind.HOST, "exclude_suffixes")
        self._add(CHECK, _Kind.CHECK, "self-check")
        if domain:
            self._add(domain, _Kind.DOMAIN, "cluster domain")
            self._add("svc", _Kind.SERVICES, "services")
            for namespace in sorted(filter(_is_label, names.namespaces)):
                self._add_namespace(namespace)
            if _is_label(names.namespace):
                self.search.append(f"{names.namespace}.svc.{domain}")
        self.search += [domain.strip(".").lower() for domain in config.search]
        self._searched = [wire(domain) for domain in self.search]
        self._excluded = {wire(name) for name in config.excludes}
        self._mapped = {wire(each.name): each.target for each in config.mappings}

    def _add(self, suffix: str, kind: _Kind, rule: str) -> bool:
        key = wire(suffix)
        return self._suffixes.setdefault(key, (kind, rule)) == (kind, rule)

    def _add_namespace(self, namespace: str) -> None:
        names = self._names
        forced = namespace in names.config.force_namespaces
        if namespace in names.public and not forced:
            reason = "public suffix"
        elif namespace in SPECIAL and not forced:
            reason = "special-use name"
        elif not self._add(namespace, _Kind.NAMESPACE, f"namespace {namespace}"):
            reason = self._suffixes[wire(namespace)][1]
        else:
            return
        self.skipped.append(Skipped(namespace, reason))
        self._add(namespace, _Kind.HOST, f"namespace {namespace} skipped: {reason}")

    @property
    def domains(self) -> list[str]:
        """Give the domains whose questions have to come to us, without ``~``."""
        ours = [
            suffix for suffix, (kind, _) in self._suffixes.items() if kind is not _Kind.HOST
        ]
        ours += [key for key in self._mapped if key not in self._suffixes]
        found = [text(suffix) for suffix in ours]
        if "svc" in found:
            found.remove(CHECK)
        return found

    @property
    def zones(self) -> list[str]:
        """Give the domains of reverse lookups, that have to come to us as well."""
        zones: list[str] = []
        for network in self._names.networks:
            more = list(reverse_zones(network))
            if len(zones) + len(more) <= MOST_ZONES:
                zones += more
        return list(dict.fromkeys(zones))

    def decide(self, key: bytes) -> Decision:
        """Say who answers questions for a name.

        Args:
            key: the name in wire format, in small letters.
        """
        if target := self._mapped.get(key):
            try:
                return Decision("mapping", address=ip_address(target))
            except ValueError:
                return Decision("mapping", alias=wire(target))
        if key in self._excluded:
            return Decision("excludes", host=True)
        if key[1:5] == b"wpad":
            # Whoever answers it decides what proxy browsers use.
            return Decision("wpad", host=True)
        at = key[0] + 1
        if at == 1:
            return Decision("root", host=True)
        if not key[at]:
            return self._decide_label(key)
        at, kind, rule = 0, None, ""
        while kind is None and key[at]:
            kind, rule = self._suffixes.get(key[at:], (None, ""))
            at += key[at] + 1
        if kind is None:
            return self._decide_foreign(key)
        if kind is _Kind.HOST:
            return Decision(rule, host=True)
        if kind is _Kind.DOMAIN:
            return Decision(rule, (key,))
        if kind is _Kind.SERVICES:
            return Decision(rule, _within(key, self._domain) or (key,))
        if kind is _Kind.NAMESPACE:
            return Decision(rule, _within(key, self._services), host=True)
        if kind is _Kind.CHECK:
            return Decision(rule, address=self._names.server)
        return Decision(rule, (key,), host=True)

    def _decide_label(self, key: bytes) -> Decision:
        kind, rule = self._suffixes.get(key, (None, ""))
        if kind is _Kind.INCLUDED:
            return Decision(rule, (key,), host=True)
        if kind is _Kind.HOST and rule == "exclude_suffixes":
            return Decision(rule, host=True)
        if text(key) in SPECIAL:
            return Decision("special-use name", host=True)
        names = _within(key, *self._searched)
        return Decision("search" if names else "host", names, host=True, shared=True)

    def _decide_foreign(self, key: bytes) -> Decision:
        address = _reverse_address(key)
        if address is not None and any(address in net for net in self._names.networks):
            return Decision("reverse lookup", (key,), host=True)
        return Decision("host", host=True)


def _is_label(name: str) -> bool:
    """Whether that can be a namespace: what is none must not become a domain."""
    return LABEL.fullmatch(name) is not None


def _cluster_domain(names: Names) -> str:
    """Give the cluster's domain, unless it is one that no cluster can have.

    A manager that says ``com`` would have the questions for half of the Internet.
    """
    domain = names.domain.strip(".").lower()
    labels = domain.split(".")
    single = len(labels) == 1 and (domain in names.public or domain in SPECIAL)
    return (
        domain if all(map(_is_label, labels)) and len(domain) < 200 and not single else ""
    )


def _within(key: bytes, *domains: bytes) -> tuple[bytes, ...]:
    """Put a name before domains, where that is a name still (RFC 1035, section 2.3.4)."""
    names = (key[:-1] + domain for domain in domains)
    return tuple(name for name in names if len(name) <= 255)


def _reverse_address(key: bytes) -> Address | None:
    """Give the address whose name is asked for (RFC 1035, 3.5; RFC 3596, 2.5)."""
    if not key.endswith(b"\4arpa\0"):
        return None
    labels = text(key).split(".")[::-1]
    try:
        if key.endswith(_REVERSE[4]) and len(labels) == 6:
            return IPv4Address(".".join(labels[2:]))
        digits = "".join(labels[2:])
        if key.endswith(_REVERSE[6]) and len(labels) == 34 and len(digits) == 32:
            return IPv6Address(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    except ValueError:
        pass
    return None


def reverse_zones(network: Network) -> Iterable[str]:
    """Give the zones of the names of a network's addresses, cut at whole labels."""
    bits = 8 if network.version == 4 else 4
    length = max(-(-network.prefixlen // bits), 1) * bits
    if length > network.max_prefixlen - bits:
        length = network.max_prefixlen - bits
        network = network.supernet(new_prefix=min(length, network.prefixlen))
    for part in network.subnets(new_prefix=length):
        labels = part.network_address.reverse_pointer.split(".")
        yield ".".join(labels[(network.max_prefixlen - length) // bits :])
