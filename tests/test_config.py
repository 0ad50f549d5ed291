"""Settings out of plain values, and back: table ``[dns]``."""

import json

import pytest

from tunstack.config import DNS_MODES, DnsConfig, NameMapping, build, defaults, plain
from tunstack.errors import ConfigError

MAPPINGS = (NameMapping("db.test", "pg.data"), NameMapping("ip.test", "fd00::7"))


def dns(**values):
    return build({f"dns.{key}": value for key, value in values.items()}).dns


def test_nothing_said_means_the_cluster_s_own_names_only():
    assert dns() == DnsConfig()
    assert DnsConfig().mode == "auto"
    assert DnsConfig().lookup_timeout == 4.0
    for key in ("include_suffixes", "exclude_suffixes", "excludes", "mappings", "search"):
        assert getattr(DnsConfig(), key) == ()


@pytest.mark.parametrize("mode", DNS_MODES)
def test_every_mode_is_one(mode):
    assert dns(mode=mode).mode == mode


@pytest.mark.parametrize(
    "said",
    [
        "db.test=pg.data,ip.test=fd00::7",
        " db.test = pg.data , ip.test=fd00::7,",
        "db.test=pg.data, ip.test=fd00::7, ",
        ["db.test=pg.data", "ip.test = fd00::7"],
        ("db.test=pg.data", "", "ip.test=fd00::7"),
        [
            {"name": "db.test", "alias-for": "pg.data"},
            {"name": "ip.test", "aliasFor": "fd00::7"},
        ],
        [{"Name": "db.test", "alias_for": "pg.data"}, "ip.test=fd00::7"],
    ],
)
def test_mappings_are_understood_in_every_form(said):
    assert dns(mappings=said).mappings == MAPPINGS


@pytest.mark.parametrize(
    "key",
    ["include_suffixes", "exclude_suffixes", "excludes", "search", "force_namespaces"],
)
def test_names_are_a_list_or_text_with_commas(key):
    for said in ("a, b-c,", ["a", "b-c"], (" a ", "b-c", "")):
        assert getattr(dns(**{key: said}), key) == ("a", "b-c")
    assert getattr(dns(**{key: ""}), key) == ()


@pytest.mark.parametrize("name", [".internal", "a.b.c.", "_tcp.X-1.test", "a" * 63 + ".b"])
def test_dots_around_a_name_and_odd_labels_are_fine(name):
    for key in ("include_suffixes", "exclude_suffixes", "excludes", "search"):
        assert getattr(dns(**{key: [name]}), key) == (name,)
    assert dns(mappings=[f"{name}={name}"]).mappings == (NameMapping(name, name),)


@pytest.mark.parametrize("address", ["127.0.0.53", "fd00::53", "fe80::1%eth0", None])
def test_a_name_server_is_an_address(address):
    assert dns(local_ip=address).local_ip == address


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(4, 4.0), (0.25, 0.25), ("250ms", 0.25), ("4s", 4.0), ("30", 30.0)],
)
def test_the_timeout_has_a_unit_or_is_in_seconds(said, seconds):
    assert dns(lookup_timeout=said).lookup_timeout == seconds


LONG = ".".join(["a" * 50] * 6)


@pytest.mark.parametrize(
    ("key", "said", "culprit"),
    [
        ("mode", "systemd", "'systemd'"),
        ("mode", "", "''"),
        ("mode", 1, "1"),
        *[
            (key, [name], repr(name))
            for key in ("include_suffixes", "exclude_suffixes", "excludes", "search")
            for name in ("*.corp.test", "a..b", ".", "a b", "é.test", "a" * 64, LONG)
        ],
        ("include_suffixes", 7, "7"),
        ("excludes", [7], "7"),
        ("search", {"a": "b"}, "{'a': 'b'}"),
        ("force_namespaces", ["Team_A"], "'Team_A'"),
        ("force_namespaces", ["team.a"], "'team.a'"),
        ("mappings", 7, "7"),
        ("mappings", "db.test", "'db.test'"),
        ("mappings", ["db.test:pg.data"], "'db.test:pg.data'"),
        ("mappings", ["db.test="], "''"),
        ("mappings", ["=pg.data"], "''"),
        ("mappings", ["*.test=pg.data"], "'*.test'"),
        ("mappings", ["db.test=10.0.0.0/8"], "'10.0.0.0/8'"),
        ("mappings", ["db.test=a=b"], "'a=b'"),
        ("mappings", [f"{LONG}=a"], LONG),
        ("mappings", [7], "7"),
        ("mappings", [["db.test", "pg.data"]], "['db.test', 'pg.data']"),
        ("mappings", [{"name": "db.test"}], "{'name': 'db.test'}"),
        ("mappings", [{"name": "db.test", "alias": "a"}], "alias-for"),
        ("mappings", [{"name": "a", "alias-for": "b", "ttl": 5}], "'ttl': 5"),
        ("mappings", [{"name": "a", "alias-for": 7}], "7"),
        ("mappings", {"name": "a", "alias-for": "b"}, "want a list"),
        ("local_ip", "localhost", "'localhost'"),
        ("local_ip", "10.0.0.1:53", "'10.0.0.1:53'"),
        ("local_ip", "", "''"),
        ("local_ip", 7, "7"),
        ("lookup_timeout", 0, "0.01"),
        ("lookup_timeout", 31, "30"),
        ("lookup_timeout", -1, "-1"),
        ("lookup_timeout", "soon", "'soon'"),
        ("lookup_timeout", "nan", "'nan'"),
        ("lookup_timeout", True, "True"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(key, said, culprit):
    with pytest.raises(ConfigError) as caught:
        dns(**{key: said})
    assert str(caught.value).startswith(f"dns.{key}: ")
    assert culprit in str(caught.value)


def test_what_was_built_is_plain_again():
    said = {
        "dns.mode": "files",
        "dns.include_suffixes": [".internal"],
        "dns.exclude_suffixes": [".com"],
        "dns.excludes": ["a.test"],
        "dns.mappings": ["db.test=pg.data", "ip.test=fd00::7"],
        "dns.search": ["corp.test"],
        "dns.force_namespaces": ["rs"],
        "dns.local_ip": "127.0.0.53",
        "dns.lookup_timeout": 2.5,
    }
    config = build(said)
    values = plain(config)
    assert {key: value for key, value in values.items() if key.startswith("dns.")} == said
    assert build(json.loads(json.dumps(values))) == config
    assert build(defaults()) == build({})
