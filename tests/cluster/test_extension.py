"""Settings that stand in a kubeconfig."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from tunstack.cluster import extension
from tunstack.cluster.kubeconfig import Entry, KubeconfigError, load
from tunstack.config import DnsConfig, NameMapping, build, defaults

PROMISED = """
clusters:
- name: cluster-001
  cluster:
    server: https://example.com
    extensions:
    - name: telepresence.io
      extension:
        never-proxy: [10.10.8.9/32]
        also-proxy: [10.20.0.0/16]
        dns: {include-suffixes: [.internal], exclude-suffixes: [.com], lookup-timeout: 4s}
        manager: {namespace: tunstack}
"""


def read(*extensions):
    """Read extensions, each a name and what it says."""
    found = [{"name": name, "extension": value} for name, value in extensions]
    cluster = Entry("cluster", "dev", {"extensions": found}, Path("/home/dev/config"))
    return {key: value for key, (_, value) in extension.read(cluster).items()}


def refused(value):
    """Give the error about a cluster's ``extensions``."""
    cluster = Entry("cluster", "dev", {"extensions": value}, Path("/home/dev/config"))
    with pytest.raises(KubeconfigError) as caught:
        extension.read(cluster)
    assert caught.value.exit_code == 3
    assert "/home/dev/config: cluster dev" in str(caught.value)
    return caught.value


def test_what_the_documentation_shows_is_understood(tmp_path):
    file = tmp_path / "config"
    file.write_text(PROMISED)
    found = extension.read(load(file, {}, tmp_path).entries["cluster", "cluster-001"])
    source = f"{file}: cluster cluster-001, extension telepresence.io"
    assert {where for where, _ in found.values()} == {source}
    config = build({key: value for key, (_, value) in found.items()})
    assert config.routing.never_proxy == (ip_network("10.10.8.9/32"),)
    assert config.routing.also_proxy == (ip_network("10.20.0.0/16"),)
    assert config.dns.include_suffixes == (".internal",)
    assert config.dns.exclude_suffixes == (".com",)
    assert config.dns.lookup_timeout == 4.0
    assert config.cluster.manager_namespace == "tunstack"


NAMES = """
clusters:
- name: dev
  cluster:
    extensions:
    - name: telepresence.io
      extension:
        dns:
          excludes: [wrong.default]
          mappings:
          - {name: db.test, alias-for: pg.data}
          - {name: ip.test, aliasFor: 10.0.0.7}
          - c.test=d.test
          search: [svc.cluster.local]
          force-namespaces: [rs]
          local-ip: 192.168.1.1
          lookup-timeout: 500ms
"""


def test_what_names_mean_is_understood(tmp_path):
    file = tmp_path / "config"
    file.write_text(NAMES)
    found = extension.read(load(file, {}, tmp_path).entries["cluster", "dev"])
    assert build({key: value for key, (_, value) in found.items()}).dns == DnsConfig(
        excludes=("wrong.default",),
        mappings=(
            NameMapping("db.test", "pg.data"),
            NameMapping("ip.test", "10.0.0.7"),
            NameMapping("c.test", "d.test"),
        ),
        search=("svc.cluster.local",),
        force_namespaces=("rs",),
        local_ip="192.168.1.1",
        lookup_timeout=0.5,
    )


def test_every_setting_of_names_has_a_key_but_how_this_host_is_told():
    """That is for the computer to say, not for the cluster."""
    settings = {key for key in defaults() if key.startswith("dns.")}
    assert settings - set(extension.KEYS.values()) == {"dns.mode"}
    error = refused([{"name": "tunstack.io", "extension": {"dns": {"mode": "files"}}}])
    assert "there is no key dns.mode" in str(error)


def test_every_key_is_a_setting():
    assert set(extension.KEYS.values()) <= set(defaults())


@pytest.mark.parametrize(
    ("said", "setting"),
    [
        ({"neverProxy": ["10.0.0.0/8"]}, "routing.never_proxy"),
        ({"alsoProxy": ["10.0.0.0/8"]}, "routing.also_proxy"),
        ({"dns": {"includeSuffixes": ["10.0.0.0/8"]}}, "dns.include_suffixes"),
        ({"dns": {"excludeSuffixes": ["10.0.0.0/8"]}}, "dns.exclude_suffixes"),
        ({"dns": {"forceNamespaces": ["10.0.0.0/8"]}}, "dns.force_namespaces"),
        ({"dns": {"localIP": ["10.0.0.0/8"]}}, "dns.local_ip"),
        ({"dns": {"localIp": ["10.0.0.0/8"]}}, "dns.local_ip"),
        ({"dns": {"lookupTimeout": ["10.0.0.0/8"]}}, "dns.lookup_timeout"),
    ],
)
def test_keys_may_be_in_camel_case(said, setting):
    assert read(("telepresence.io", said)) == {setting: ["10.0.0.0/8"]}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_extensions_ours_decides_on_each_key(order):
    theirs = {"also-proxy": ["10.1.0.0/16"], "dns": {"lookup-timeout": "4s"}}
    ours = {"also-proxy": ["10.2.0.0/16"], "dns": {"include-suffixes": [".test"]}}
    both = [("telepresence.io", theirs), ("tunstack.io", ours)]
    assert read(*both[::order]) == {
        "routing.also_proxy": ["10.2.0.0/16"],
        "dns.lookup_timeout": "4s",
        "dns.include_suffixes": [".test"],
    }


@pytest.mark.parametrize(
    "extensions",
    [
        [],
        [("client.authentication.k8s.io/exec", {"audience": "x"})],
        [("tunstack.io", None)],
        [("tunstack.io", {})],
    ],
)
def test_extensions_of_others_and_empty_ones_say_nothing(extensions):
    assert read(*extensions) == {}


@pytest.mark.parametrize(
    ("said", "culprit", "nearest"),
    [
        ({"nevr-proxy": []}, "nevr-proxy", "never-proxy"),
        ({"also_proxy": []}, "also_proxy", "also-proxy"),
        ({"dns": {"include-sufixes": []}}, "dns.include-sufixes", "dns.include-suffixes"),
        ({"manager": {"namespaces": "x"}}, "manager.namespaces", "manager.namespace"),
        ({"lookup-timeout": "4s"}, "lookup-timeout", "dns.lookup-timeout"),
        ({"dns": {"mapping": []}}, "dns.mapping", "dns.mappings"),
        ({"dns": {"exclude": []}}, "dns.exclude", "dns.excludes"),
        ({"dns": {"force-namespace": []}}, "dns.force-namespace", "dns.force-namespaces"),
    ],
)
@pytest.mark.parametrize("name", extension.NAMES)
def test_a_misspelt_key_is_named_with_the_nearest(name, said, culprit, nearest):
    error = refused([{"name": name, "extension": said}])
    assert f"extension {name}: there is no key {culprit}" in str(error)
    assert error.hint == f"did you mean {nearest}?"


@pytest.mark.parametrize("value", ["text", ["never-proxy"], 7])
def test_an_extension_that_has_no_keys_is_named(value):
    error = refused([{"name": "tunstack.io", "extension": value}])
    assert "extension tunstack.io: it has no keys" in str(error)


def test_extensions_that_are_no_list_are_named():
    assert "extensions is not a list" in str(refused({"tunstack.io": {}}))
