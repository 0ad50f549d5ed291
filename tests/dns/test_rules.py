"""Whose question is it: one table, and what is told to this host."""

from ipaddress import ip_address, ip_network

import dns.name
import pytest

from tests.support.questions import query
from tunstack.config import DnsConfig, NameMapping
from tunstack.dns.message import parse_question, text
from tunstack.dns.rules import CHECK, MOST_ZONES, Names, Rules, Skipped, reverse_zones

PUBLIC = frozenset(("app", "cloud", "com", "dev", "im", "rs"))

CLUSTER = {
    "domain": "cluster.local",
    "namespaces": (
        *("default", "echo", "kube-system", "local", "team-a"),
        *("app", "cloud", "dev", "im", "rs"),
    ),
    "networks": tuple(
        map(ip_network, ("10.96.0.0/12", "10.244.0.0/16", "fd00:10:96::/112"))
    ),
    "public": PUBLIC,
    "server": ip_address("10.9.0.2"),
}  # fmt: skip

DNS = (
    "mode", "include_suffixes", "exclude_suffixes", "excludes", "mappings", "search",
    "force_namespaces", "local_ip", "lookup_timeout",
)  # fmt: skip


def rules(**settings):
    """Make rules of the cluster above; ``a=b`` is a mapping."""
    config = {key: settings.pop(key) for key in DNS if key in settings}
    pairs = [mapping.split("=") for mapping in config.pop("mappings", ())]
    mappings = tuple(NameMapping(*pair) for pair in pairs)
    names = Names(config=DnsConfig(mappings=mappings, **config), **{**CLUSTER, **settings})
    return Rules(names)


def domains(made):
    """All whose questions come to us."""
    return [*made.domains, *made.zones]


def decide(name, **settings):
    """Decide on a question as it comes from a client."""
    return rules(**settings).decide(parse_question(query(name)).key)


def shown(decision):
    """Show who answers, in order; in front what a failure of the cluster does not stop."""
    if decision.address is not None:
        assert not decision.names
        return f"= {decision.address}"
    if decision.alias is not None:
        assert not decision.names
        return f"-> {text(decision.alias)}"
    ways = [*map(text, decision.names), *["host"] * decision.host]
    return ("either: " if decision.shared else "") + ", ".join(ways)


FULL = "echo.default.svc.cluster.local"
SEARCHED = "either: {0}.default.svc.cluster.local, host"
COM = {"exclude_suffixes": (".com",)}

TABLE = [
    # The cluster's domain: what it says is the answer.
    (FULL, {}, FULL, "cluster domain"),
    ("Echo.Default.SVC.Cluster.LOCAL", {}, FULL, "cluster domain"),
    ("echo.rs.svc.cluster.local", {}, "echo.rs.svc.cluster.local", "cluster domain"),
    ("a.b.c.d.e.cluster.local", {}, "a.b.c.d.e.cluster.local", "cluster domain"),
    ("10-244-0-7.default.pod.cluster.local", {},
     "10-244-0-7.default.pod.cluster.local", "cluster domain"),
    ("cluster.local", {}, "cluster.local", "cluster domain"),
    ("_http._tcp.echo.default.svc.cluster.local", {},
     "_http._tcp.echo.default.svc.cluster.local", "cluster domain"),
    ("xcluster.local", {}, "host", "namespace local skipped: special-use name"),
    ("cluster.local.example.org", {}, "host", "host"),
    # Another domain than most have, and none.
    ("echo.default.svc.k8s.test", {"domain": "k8s.test"},
     "echo.default.svc.k8s.test", "cluster domain"),
    (FULL, {"domain": "k8s.test", "namespaces": ("default",)}, "host", "host"),
    ("echo.default", {"domain": "k8s.test"},
     "echo.default.svc.k8s.test, host", "namespace default"),
    ("echo.default.svc", {"domain": "Prod.Example.Org"},
     "echo.default.svc.prod.example.org", "services"),
    ("echo", {"domain": "k8s.test"}, "either: echo.default.svc.k8s.test, host", "search"),
    ("echo.default", {"domain": ""}, "host", "host"),
    ("echo.default.svc", {"domain": ""}, "host", "host"),
    (FULL, {"domain": ""}, "host", "host"),
    ("echo", {"domain": ""}, "either: host", "host"),
    ("echo", {"domain": "", "search": ("corp.test",)},
     "either: echo.corp.test, host", "search"),
    # svc.
    ("echo.default.svc", {}, FULL, "services"),
    ("ECHO.DEFAULT.SVC", {}, FULL, "services"),
    ("echo.rs.svc", {}, "echo.rs.svc.cluster.local", "services"),
    ("echo.nowhere.svc", {}, "echo.nowhere.svc.cluster.local", "services"),
    ("_http._tcp.echo.default.svc", {}, f"_http._tcp.{FULL}", "services"),
    ("x.y.echo.default.svc", {}, f"x.y.{FULL}", "services"),
    ("default.svc", {}, "default.svc.cluster.local", "services"),
    ("echo.xsvc", {}, "host", "host"),
    # Namespaces: the host is asked after "no such name".
    ("echo.default", {}, f"{FULL}, host", "namespace default"),
    ("Echo.DEFAULT", {}, f"{FULL}, host", "namespace default"),
    ("kube-dns.kube-system", {},
     "kube-dns.kube-system.svc.cluster.local, host", "namespace kube-system"),
    ("api.team-a", {}, "api.team-a.svc.cluster.local, host", "namespace team-a"),
    ("a.b.default", {}, "a.b.default.svc.cluster.local, host", "namespace default"),
    ("_http._tcp.echo.default", {}, f"_http._tcp.{FULL}, host", "namespace default"),
    ("echo.echo", {}, "echo.echo.svc.cluster.local, host", "namespace echo"),
    ("echo.nowhere", {}, "host", "host"),
    ("echo.default", {"namespaces": ()}, "host", "host"),
    ("echo.default.svc", {"namespaces": ()}, FULL, "services"),
    # Whole labels.
    ("echo.xdefault", {}, "host", "host"),
    ("echo.defaultx", {}, "host", "host"),
    ("foo.bars", {"force_namespaces": ("rs",)}, "host", "host"),
    ("foo.bars", {"include_suffixes": ("rs",)}, "host", "host"),
    ("echo.default.example.org", {}, "host", "host"),
    ("team-a.org", {}, "host", "host"),
    ("a.xteam-a", {}, "host", "host"),
    (dns.name.Name([b"echo.default", b""]), {},
     SEARCHED.format(r"echo\046default"), "search"),
    (dns.name.Name([b"a\7default", b""]), {}, SEARCHED.format(r"a\007default"), "search"),
    # Namespaces that are public suffixes, and special-use names.
    ("docs.rs", {}, "host", "namespace rs skipped: public suffix"),
    ("DOCS.RS", {}, "host", "namespace rs skipped: public suffix"),
    ("a.docs.rs", {}, "host", "namespace rs skipped: public suffix"),
    ("web.dev", {}, "host", "namespace dev skipped: public suffix"),
    ("cash.app", {}, "host", "namespace app skipped: public suffix"),
    ("quay.im", {}, "host", "namespace im skipped: public suffix"),
    ("my.cloud", {}, "host", "namespace cloud skipped: public suffix"),
    ("example.com", {}, "host", "host"),
    ("example.com", {"namespaces": ("com",)},
     "host", "namespace com skipped: public suffix"),
    ("printer.local", {}, "host", "namespace local skipped: special-use name"),
    ("x.onion", {"namespaces": ("onion",)}, "host",
     "namespace onion skipped: special-use name"),
    ("docs.rs", {"public": frozenset()}, "docs.rs.svc.cluster.local, host", "namespace rs"),
    ("docs.rs", {"force_namespaces": ("rs",)},
     "docs.rs.svc.cluster.local, host", "namespace rs"),
    ("web.dev", {"force_namespaces": ("rs",)},
     "host", "namespace dev skipped: public suffix"),
    ("db.local", {"force_namespaces": ("local",)},
     "db.local.svc.cluster.local, host", "namespace local"),
    ("docs.rs", {"force_namespaces": ("rs",), "namespaces": ("default",)}, "host", "host"),
    # Single labels: the session's namespace, then the search domains; both are asked.
    ("echo", {}, SEARCHED.format("echo"), "search"),
    ("ECHO", {}, SEARCHED.format("echo"), "search"),
    ("default", {}, SEARCHED.format("default"), "search"),
    ("rs", {}, SEARCHED.format("rs"), "search"),
    ("svc", {}, SEARCHED.format("svc"), "search"),
    ("echo", {"namespace": "team-a"},
     "either: echo.team-a.svc.cluster.local, host", "search"),
    ("db", {"search": ("svc.cluster.local", ".Corp.Test.")},
     "either: db.default.svc.cluster.local, db.svc.cluster.local, db.corp.test, host",
     "search"),
    ("com", COM, "host", "exclude_suffixes"),
    ("intern", {"include_suffixes": ("intern",)}, "intern, host", "include_suffixes"),
    # Includes and excludes.
    ("a.corp.test", {"include_suffixes": ("corp.test",)}, "a.corp.test, host",
     "include_suffixes"),
    ("A.Corp.Test", {"include_suffixes": (".CORP.test",)}, "a.corp.test, host",
     "include_suffixes"),
    ("corp.test", {"include_suffixes": ("corp.test",)}, "corp.test, host",
     "include_suffixes"),
    ("a.xcorp.test", {"include_suffixes": ("corp.test",)}, "host", "host"),
    ("example.com", COM, "host", "exclude_suffixes"),
    ("a.b.example.COM", COM, "host", "exclude_suffixes"),
    ("a.xcom", COM, "host", "host"),
    ("echo.com", {**COM, "namespaces": ("com",), "public": frozenset()}, "host",
     "exclude_suffixes"),
    ("echo.com", {**COM, "namespaces": ("com",), "force_namespaces": ("com",)}, "host",
     "exclude_suffixes"),
    ("echo.com.svc", {**COM, "namespaces": ("com",)}, "echo.com.svc.cluster.local",
     "services"),
    ("a.example.com", {**COM, "include_suffixes": ("example.com",)},
     "a.example.com, host", "include_suffixes"),
    ("a.b.example.com", {"exclude_suffixes": ("com", "b.example.com"),
                         "include_suffixes": ("example.com",)}, "host", "exclude_suffixes"),
    ("a.b.example.com", {"exclude_suffixes": ("example.com",),
                         "include_suffixes": ("com", "b.example.com")},
     "a.b.example.com, host", "include_suffixes"),
    ("a.example.com", {"exclude_suffixes": ("example.com",),
                       "include_suffixes": ("example.com",)},
     "a.example.com, host", "include_suffixes"),
    ("echo.default", {"exclude_suffixes": ("default",)}, "host", "exclude_suffixes"),
    ("echo.default", {"include_suffixes": ("default",)}, "echo.default, host",
     "include_suffixes"),
    (FULL, {"exclude_suffixes": ("default.svc.cluster.local",)}, "host",
     "exclude_suffixes"),
    (FULL, {"exclude_suffixes": ("local",)}, FULL, "cluster domain"),
    (FULL, {"exclude_suffixes": ("cluster.local",)}, "host", "exclude_suffixes"),
    ("echo.default.svc", {"exclude_suffixes": ("svc",)}, "host", "exclude_suffixes"),
    ("echo.default.svc", {"exclude_suffixes": ("cluster.local",)}, FULL, "services"),
    ("printer.local", {"include_suffixes": ("local",)}, "printer.local, host",
     "include_suffixes"),
    # Names to leave alone, whatever their suffix.
    (FULL, {"excludes": (FULL,)}, "host", "excludes"),
    ("Echo.Default", {"excludes": (".echo.DEFAULT.",)}, "host", "excludes"),
    ("a.echo.default", {"excludes": ("echo.default",)},
     "a.echo.default.svc.cluster.local, host", "namespace default"),
    (FULL, {"excludes": ("echo.default",)}, FULL, "cluster domain"),
    ("echo", {"excludes": ("echo",)}, "host", "excludes"),
    ("a.corp.test", {"excludes": ("a.corp.test",), "include_suffixes": ("corp.test",)},
     "host", "excludes"),
    # What decides on the proxy of browsers.
    ("wpad", {}, "host", "wpad"),
    ("WPAD.default", {}, "host", "wpad"),
    ("wpad.default.svc.cluster.local", {}, "host", "wpad"),
    ("wpad2.default", {}, "host", "wpad"),
    ("wpad.corp.test", {"include_suffixes": ("corp.test",)}, "host", "wpad"),
    ("xwpad.default", {}, "xwpad.default.svc.cluster.local, host", "namespace default"),
    ("wpa.default", {}, "wpa.default.svc.cluster.local, host", "namespace default"),
    ("a.wpad.default", {}, "a.wpad.default.svc.cluster.local, host", "namespace default"),
    # Mappings.
    ("db", {"mappings": ("db=pg.data",)}, "-> pg.data", "mapping"),
    ("DB.Test", {"mappings": (".db.TEST.=PG.data.",)}, "-> pg.data", "mapping"),
    ("db.test", {"mappings": ("db.test=10.0.0.7",)}, "= 10.0.0.7", "mapping"),
    ("db.test", {"mappings": ("db.test=fd00::7",)}, "= fd00::7", "mapping"),
    ("a.db.test", {"mappings": ("db.test=10.0.0.7",)}, "host", "host"),
    ("test", {"mappings": ("db.test=10.0.0.7",)}, SEARCHED.format("test"), "search"),
    (FULL, {"mappings": (f"{FULL}=example.org",)}, "-> example.org", "mapping"),
    ("example.com", {**COM, "mappings": ("example.com=echo.default",)},
     "-> echo.default", "mapping"),
    ("db", {"mappings": ("db=pg",), "excludes": ("db",)}, "-> pg", "mapping"),
    ("a", {"mappings": ("a=b", "b=a")}, "-> b", "mapping"),
    ("b", {"mappings": ("a=b", "b=a")}, "-> a", "mapping"),
    ("a", {"mappings": ("a=a",)}, "-> a", "mapping"),
    ("wpad", {"mappings": ("wpad=10.0.0.7",)}, "= 10.0.0.7", "mapping"),
    # Reverse lookups.
    ("7.0.96.10.in-addr.arpa", {}, "7.0.96.10.in-addr.arpa, host", "reverse lookup"),
    ("7.0.96.10.IN-ADDR.ARPA", {}, "7.0.96.10.in-addr.arpa, host", "reverse lookup"),
    ("255.255.111.10.in-addr.arpa", {}, "255.255.111.10.in-addr.arpa, host",
     "reverse lookup"),
    ("0.0.112.10.in-addr.arpa", {}, "host", "host"),
    ("8.8.8.8.in-addr.arpa", {}, "host", "host"),
    ("10.96.0.7.in-addr.arpa", {}, "host", "host"),
    (ip_address("fd00:10:96::a").reverse_pointer, {},
     f"{ip_address('fd00:10:96::a').reverse_pointer}, host", "reverse lookup"),
    (ip_address("fd00:10:97::a").reverse_pointer, {}, "host", "host"),
    (ip_address("2001:db8::a").reverse_pointer, {}, "host", "host"),
    ("0.96.10.in-addr.arpa", {}, "host", "host"),
    ("9.7.0.96.10.in-addr.arpa", {}, "host", "host"),
    ("07.0.96.10.in-addr.arpa", {}, "host", "host"),
    ("256.0.96.10.in-addr.arpa", {}, "host", "host"),
    ("x.0.96.10.in-addr.arpa", {}, "host", "host"),
    ("7.0.96.10.xin-addr.arpa", {}, "host", "host"),
    ("7.0.96.10.in-addr.example", {}, "host", "host"),
    (ip_address("fd00:10:96::a").reverse_pointer[2:], {}, "host", "host"),
    ("0." + ip_address("fd00:10:96::a").reverse_pointer, {}, "host", "host"),
    ("0" + ip_address("fd00:10:96::a").reverse_pointer, {}, "host", "host"),
    ("g" + ip_address("fd00:10:96::a").reverse_pointer[1:], {}, "host", "host"),
    ("in-addr.arpa", {}, "host", "host"),
    ("ip6.arpa", {}, "host", "host"),
    ("7.0.96.10.in-addr.arpa", {"networks": ()}, "host", "host"),
    ("7.0.96.10.in-addr.arpa", {"exclude_suffixes": ("arpa",)}, "host", "exclude_suffixes"),
    ("7.0.96.10.in-addr.arpa", {"excludes": ("7.0.96.10.in-addr.arpa",)},
     "host", "excludes"),
    ("9.0.0.10.in-addr.arpa", {"include_suffixes": ("0.0.10.in-addr.arpa",)},
     "9.0.0.10.in-addr.arpa, host", "include_suffixes"),
    # Whether questions of this host reach us.
    (CHECK, {}, "= 10.9.0.2", "self-check"),
    (f"x7f.{CHECK}", {}, "= 10.9.0.2", "self-check"),
    (f"X.y.{CHECK.upper()}", {}, "= 10.9.0.2", "self-check"),
    (f"x.{CHECK}", {"domain": "", "server": ip_address("fd00::2")}, "= fd00::2",
     "self-check"),
    (f"x{CHECK}", {}, f"x{CHECK}.cluster.local", "services"),
    # All the rest.
    (".", {}, "host", "root"),
    ("www.example.org", {}, "host", "host"),
    ("a." * 127, {}, "host", "host"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "who", "rule"), TABLE)
def test_a_name_is_decided_by_its_longest_suffix(name, settings, who, rule):
    decision = decide(name, **settings)
    assert shown(decision) == who
    assert decision.rule == rule


@pytest.mark.parametrize("mode", ["auto", "resolved", "overriding", "files", "none"])
def test_how_this_host_is_told_decides_nothing(mode):
    for name in ("echo", "echo.default", FULL, "docs.rs", "www.example.org"):
        assert decide(name, mode=mode) == decide(name)


def dotted(length):
    """Make a name of so many letters and dots."""
    return ".".join(["a" * 48] * 6)[-length:]


@pytest.mark.parametrize(
    ("suffix", "too_long"), [("default", "host"), ("default.svc", "{}.default.svc")]
)
def test_a_completed_name_is_a_name_still(suffix, too_long):
    """RFC 1035, section 2.3.4: it has at most 255 octets.

    Below ``svc`` the cluster is asked for the name as it is, which there is nowhere.
    """
    room = 253 - len(".default.svc.cluster.local")
    fits, exceeds = dotted(room), f"{dotted(room - 2)}.bb"
    assert len(decide(f"{fits}.{suffix}").names[0]) == 255
    assert shown(decide(f"{exceeds}.{suffix}")) == too_long.format(exceeds)


def test_a_single_label_is_searched_only_where_that_is_a_name():
    longest = ".".join(["a" * 61] * 4)
    decision = decide("b" * 63, search=(longest, "corp.test"))
    searched = f"{'b' * 63}.default.svc.cluster.local, {'b' * 63}.corp.test"
    assert shown(decision) == f"either: {searched}, host"


# What this host is told


def test_the_domains_are_those_of_the_cluster():
    made = rules(
        include_suffixes=(".Corp.Test", "com"),
        exclude_suffixes=("team-a", "example.com"),
        mappings=("db=pg.data", "x.y=10.0.0.7", "echo.default=a.b"),
        force_namespaces=("rs",),
        networks=(ip_network("10.96.0.0/16"),),
    )
    assert sorted(domains(made)) == sorted([
        "cluster.local", "svc", "default", "echo", "kube-system", "rs",
        "corp.test", "com", "db", "x.y", "echo.default", "96.10.in-addr.arpa",
    ])  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "force_namespaces": ("rs",),
            "mappings": ("db=a.b",),
            "include_suffixes": ("x.y",),
        },
    ],
)
def test_what_the_cluster_knows_lies_in_the_domains_and_nothing_else(settings):
    """What does not come to us cannot be answered; what comes needlessly is slower."""
    made = rules(**settings)
    ours = tuple(f".{domain}" for domain in domains(made))
    for name, more, _, _ in TABLE:
        if more or isinstance(name, dns.name.Name) or "." not in name.strip("."):
            continue
        decision = made.decide(parse_question(query(name)).key)
        asked = decision.names or decision.alias or decision.address
        if asked:
            assert f".{name}".lower().endswith(ours), name
        elif decision.rule in ("host", "root"):
            assert not f".{name}".lower().endswith(ours) or name.endswith("arpa"), name


def test_without_a_cluster_only_what_people_said_is_ours():
    made = rules(domain="", networks=(), include_suffixes=("corp.test",), mappings=("a=b",))
    assert domains(made) == ["corp.test", "tunstack-check.svc", "a"]
    assert (made.search, made.skipped) == ([], [])


def test_search_domains_are_the_session_s_namespace_and_what_people_said():
    made = rules(namespace="team-a", search=(".Svc.Cluster.Local", "corp.test."))
    assert made.search == ["team-a.svc.cluster.local", "svc.cluster.local", "corp.test"]


def test_skipped_namespaces_are_named_with_the_reason():
    made = rules(
        namespaces=("com", "default", "docs", "local", "rs", "svc", "dev", "echo"),
        exclude_suffixes=(".com", "docs"),
        include_suffixes=("echo",),
        force_namespaces=("dev",),
        public=PUBLIC - {"com"},
    )
    assert made.skipped == [
        Skipped("com", "exclude_suffixes"),
        Skipped("docs", "exclude_suffixes"),
        Skipped("echo", "include_suffixes"),
        Skipped("local", "special-use name"),
        Skipped("rs", "public suffix"),
        Skipped("svc", "services"),
    ]
    assert not {"com", "docs", "local", "rs"} & set(domains(made))


@pytest.mark.parametrize(
    ("network", "want"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("10.96.0.0/16", ["96.10.in-addr.arpa"]),
        ("10.96.0.0/14", [f"{n}.10.in-addr.arpa" for n in range(96, 100)]),
        ("10.96.0.0/12", [f"{n}.10.in-addr.arpa" for n in range(96, 112)]),
        ("10.96.1.0/24", ["1.96.10.in-addr.arpa"]),
        ("10.96.2.0/23", ["2.96.10.in-addr.arpa", "3.96.10.in-addr.arpa"]),
        ("10.96.1.128/25", ["1.96.10.in-addr.arpa"]),
        ("10.96.1.7/32", ["1.96.10.in-addr.arpa"]),
        ("fd00::/8", ["d.f.ip6.arpa"]),
        ("fd00::/7", [f"{d}.f.ip6.arpa" for d in "cd"]),
        ("fd00:10:96::/48", ["6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa"]),
        ("fd00::/126", ["0." * 29 + "d.f.ip6.arpa"]),
        ("fd00::7/128", ["0." * 29 + "d.f.ip6.arpa"]),
    ],
)
def test_a_network_s_reverse_zones_are_cut_at_labels(network, want):
    assert list(reverse_zones(ip_network(network, strict=False))) == want


@pytest.mark.parametrize("network", ["10.96.0.0/12", "10.96.1.128/25", "fd00:10:96::/112"])
def test_reverse_lookups_lie_in_the_zones(network):
    network = ip_network(network)
    made = rules(networks=(network,), domain="")
    for address in (network[0], network[7], network[-1]):
        assert shown(made.decide(parse_question(query(address.reverse_pointer)).key)) == (
            f"{address.reverse_pointer}, host"
        )
        assert address.reverse_pointer.endswith(tuple(f".{d}" for d in domains(made)))


def test_the_number_of_reverse_zones_is_bounded():
    """A large network has none; others still do."""
    networks = ("0.0.0.0/0", "10.0.0.0/10", "10.128.0.0/16", "::/0")
    made = rules(domain="", networks=tuple(map(ip_network, networks)))
    zones = [domain for domain in domains(made) if domain.endswith("arpa")]
    assert len(zones) == MOST_ZONES == 64
    assert {zone.split(".", 1)[1] for zone in zones} == {"10.in-addr.arpa"}
    # Their names are the cluster's all the same, if the question comes.
    assert shown(made.decide(parse_question(query("7.0.128.10.in-addr.arpa")).key)) == (
        "7.0.128.10.in-addr.arpa, host"
    )


def test_networks_that_overlap_have_their_zones_once():
    networks = tuple(map(ip_network, ("10.96.1.0/25", "10.96.1.128/25", "10.96.1.0/24")))
    assert domains(rules(domain="", networks=networks))[1:] == ["1.96.10.in-addr.arpa"]


@pytest.mark.parametrize("domain", ["com", "COM.", "local", "a..b", "é.local", "-x.y", "*"])
def test_what_no_cluster_can_have_as_its_domain_is_not_believed(domain):
    made = rules(domain=domain, networks=(), public=frozenset({"com"}))
    assert (domains(made), made.search) == (["tunstack-check.svc"], [])


@pytest.mark.parametrize(
    "namespace", ["example.com", "a..b", "é", "", "-", "A", "x" * 64, "a b", "*"]
)
def test_what_is_no_label_is_no_namespace(namespace):
    made = rules(namespaces=(namespace,), namespace=namespace, networks=())
    assert domains(made) == ["cluster.local", "svc"]
    assert (made.search, made.skipped) == ([], [])
