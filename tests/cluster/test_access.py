"""What a context comes to: files by value, who to be, and the proxy on the way."""

import base64
import json
from pathlib import Path

import pytest

from tunstack.cluster.access import (
    Access,
    proxy_of,
    resolve,
    token_expiry,
    without_password,
)
from tunstack.cluster.kubeconfig import Context, Entry, KubeconfigError

SERVER = "https://blue.example:6443"


def encode(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def find(tmp_path):
    """Resolve the context of a cluster and a user, said in a file in ``tmp_path``."""

    def find(cluster=None, user=None, environment=None):
        file = tmp_path / "config"
        context = Context(
            "dev",
            "shop",
            Entry("cluster", "blue", {"server": SERVER} | (cluster or {}), file),
            Entry("user", "ann", user or {}, file),
        )
        return resolve(context, environment or {}, interactive=False, plugin_timeout=10)

    return find


@pytest.fixture
def refused(find, tmp_path):
    """Resolve what cannot be; gives the error's text, which names the file."""

    def refused(cluster=None, user=None, environment=None):
        with pytest.raises(KubeconfigError) as caught:
            find(cluster, user, environment)
        assert caught.value.exit_code == 3
        assert caught.value.hint
        return str(caught.value)

    return refused


@pytest.fixture
def pems(tmp_path, keys):
    """Files ``cert`` and ``key`` beside the kubeconfig; gives what is in them."""
    texts = keys.certificate.read_text(), keys.key.read_text()
    for name, text in zip(("cert", "key"), texts, strict=True):
        (tmp_path / name).write_text(text)
    return texts


# The server


def test_what_a_context_says_is_kept(find, tmp_path):
    access = find()
    assert (access.context, access.namespace, access.server) == ("dev", "shop", SERVER)
    assert access.source == f"{tmp_path / 'config'}, cluster blue"
    assert (access.ca, access.insecure, access.tls_server_name) == (None, False, None)
    assert (access.headers, access.certificate, access.key) == ((), None, None)
    assert (access.proxy, access.expires, access.renewable) == (None, None, None)


@pytest.mark.parametrize(
    ("said", "server"),
    [
        ("https://blue.example", "https://blue.example"),
        ("https://blue.example/", "https://blue.example"),
        ("https://blue.example/k8s/clusters/c-1/", "https://blue.example/k8s/clusters/c-1"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("https://[fd00::1]:6443", "https://[fd00::1]:6443"),
        ("blue.example:6443", "https://blue.example:6443"),
        ("10.0.0.1", "https://10.0.0.1"),
    ],
)
def test_a_server_is_a_url_or_a_name(find, said, server):
    assert find({"server": said}).server == server


@pytest.mark.parametrize(
    "said",
    [
        "ftp://blue.example",
        "unix:///run/api",
        "https://",
        "https://blue.example:port",
        "https://blue.example:65536",
        "https://[fd00::1",
    ],
)
def test_a_server_that_is_no_url_is_named(refused, said, tmp_path):
    text = refused({"server": said})
    assert f"{tmp_path}/config: cluster blue: server {said!r} is no http" in text


@pytest.mark.parametrize("said", [None, ""])
def test_a_cluster_without_a_server_is_named(refused, said):
    assert "config: cluster blue has no server" in refused({"server": said})


@pytest.mark.parametrize(
    ("server", "proxy", "endpoint"),
    [
        ("https://blue.example", None, ("blue.example", 443)),
        ("http://blue.example", None, ("blue.example", 80)),
        ("https://[fd00::1]:6443/x", None, ("fd00::1", 6443)),
        (SERVER, "http://proxy.example:3128", ("proxy.example", 3128)),
        (SERVER, "http://ann:secret@proxy.example", ("proxy.example", 80)),
        (SERVER, "https://proxy.example", ("proxy.example", 443)),
        (SERVER, "socks5://10.0.0.9", ("10.0.0.9", 1080)),
    ],
)
def test_connections_go_to_the_server_or_its_proxy(find, server, proxy, endpoint):
    assert find({"server": server, "proxy-url": proxy}).endpoint == endpoint


def test_a_server_may_be_known_under_another_name(find):
    assert find({"tls-server-name": "api.internal"}).tls_server_name == "api.internal"


# Authorities


def test_authorities_are_read_from_a_file_beside_the_kubeconfig(find, pems):
    assert find({"certificate-authority": "cert"}).ca == pems[0]


def test_authorities_as_data_win_over_a_file(find, pems):
    said = {
        "certificate-authority": "missing",
        "certificate-authority-data": encode(pems[0]),
    }
    assert find(said).ca == pems[0]


def test_authorities_may_have_comments(find, pems):
    text = f"# Zertifizierungsstelle f\u00fcr alle\n{pems[0]}# und noch eine\n{pems[0]}"
    assert find({"certificate-authority-data": encode(text)}).ca == 2 * pems[0]


def test_base64_may_have_line_breaks(find, pems):
    data = base64.encodebytes(pems[0].encode()).decode().replace("\n", "\r\n")
    assert find({"certificate-authority-data": data}).ca == pems[0]


@pytest.mark.parametrize("said", ["false", "true", 0, []])
def test_trusting_any_is_true_or_false(refused, said):
    text = refused({"insecure-skip-tls-verify": said})
    assert "cluster blue: insecure-skip-tls-verify is neither true nor false" in text


def test_any_certificate_may_be_trusted(find):
    assert find({"insecure-skip-tls-verify": True}).insecure
    assert not find({"insecure-skip-tls-verify": False}).insecure
    assert not find({"insecure-skip-tls-verify": None}).insecure


def test_trusting_any_and_authorities_exclude_each_other(refused, pems):
    said = {"insecure-skip-tls-verify": True, "certificate-authority": "cert"}
    assert "exclude each other" in refused(said)


JUNK = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
HALF = "-----BEGIN CERTIFICATE-----\nAAAA\n"


@pytest.mark.parametrize(
    ("cluster", "parts"),
    [
        ({"certificate-authority": "missing"}, ["missing", "No such file"]),
        ({"certificate-authority": "."}, ["certificate-authority", "Is a directory"]),
        ({"certificate-authority": "noise"}, ["noise is not text"]),
        ({"certificate-authority": "key"}, ["is not PEM of a certificate"]),
        ({"certificate-authority": 7}, ["certificate-authority is not text: 7"]),
        ({"certificate-authority-data": "%%%"}, ["is not base64 of PEM"]),
        ({"certificate-authority-data": "AAA"}, ["is not base64 of PEM"]),
        ({"certificate-authority-data": "/w=="}, ["is not base64 of PEM"]),
        ({"certificate-authority-data": encode("no")}, ["is not PEM of a certificate"]),
        ({"certificate-authority-data": encode(JUNK)}, ["no certificate that can be read"]),
        ({"certificate-authority-data": encode(HALF)}, ["no certificate that can be read"]),
    ],
)
def test_authorities_that_are_none_are_named(refused, pems, tmp_path, cluster, parts):
    (tmp_path / "noise").write_bytes(b"\xff\xfe")
    text = refused(cluster)
    for part in (f"{tmp_path}/config: cluster blue", *parts):
        assert part in text


# Who to be


def test_a_token_is_a_bearers(find):
    access = find(user={"token": "secret"})
    assert access.headers == (("Authorization", "Bearer secret"),)
    assert access.renewable is None


def test_a_token_file_wins_over_a_token_and_is_stripped(find, tmp_path):
    (tmp_path / "token").write_text("\n fresh \n")
    access = find(user={"token": "stale", "tokenFile": "token"})
    assert access.headers == (("Authorization", "Bearer fresh"),)
    assert access.renewable == "token file"


def test_a_token_says_when_it_expires(find):
    assert find(user={"token": jwt({"exp": 1_800_000_000})}).expires == 1_800_000_000


def test_a_password_is_said_as_basic_authentication(find):
    access = find(user={"username": "ann", "password": "s:e"})
    assert access.headers == (("Authorization", f"Basic {encode('ann:s:e')}"),)
    lone = find(user={"username": "ann"})
    assert lone.headers == (("Authorization", f"Basic {encode('ann:')}"),)


def test_a_token_wins_over_a_password(find):
    access = find(user={"username": "ann", "password": "x", "token": "secret"})
    assert access.headers == (("Authorization", "Bearer secret"),)


def test_somebody_else_may_be_impersonated(find):
    access = find(
        user={
            "token": "secret",
            "as": "bob",
            "as-uid": "7",
            "as-groups": ["ops", "dev"],
            "as-user-extra": {"reason": ["a", "b"], "acme.com/project%": ["c"], "d": None},
        }
    )
    assert sorted(access.headers) == [
        ("Authorization", "Bearer secret"),
        ("Impersonate-Extra-acme.com%2Fproject%25", "c"),
        ("Impersonate-Extra-reason", "a"),
        ("Impersonate-Extra-reason", "b"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-User", "bob"),
    ]


def test_what_is_null_is_absent(find):
    access = find(user={"exec": None, "auth-provider": None, "as-groups": None})
    assert (access.headers, access.renewable) == ((), None)


def test_a_certificate_is_read_from_files_beside_the_kubeconfig(find, pems):
    access = find(user={"client-certificate": "cert", "client-key": "key"})
    assert (access.certificate, access.key) == pems
    assert access.headers == ()


def test_a_certificate_as_data_wins_over_files(find, pems):
    access = find(
        user={
            "client-certificate": "missing",
            "client-certificate-data": encode(pems[0]),
            "client-key": "missing",
            "client-key-data": encode(pems[1]),
        }
    )
    assert (access.certificate, access.key) == pems


@pytest.mark.parametrize(
    "user",
    [{"token": "secret"}, {"client-certificate": "cert", "client-key": "key"}],
)
def test_no_plugin_is_asked_when_the_kubeconfig_says_who(find, pems, user):
    assert find(user=user | {"exec": {"command": "no-such-plugin"}}).renewable is None


@pytest.mark.parametrize(
    ("user", "part"),
    [
        ({"client-certificate": "cert"}, "client-certificate and no client-key"),
        ({"client-key": "key"}, "client-key and no client-certificate"),
        ({"client-certificate": "key", "client-key": "key"}, "not PEM of a certificate"),
        ({"client-certificate": "cert", "client-key": "cert"}, "not PEM of a key"),
        ({"client-certificate": "cert", "client-key": "no"}, "no cannot be read: No such"),
        ({"client-key-data": "%%%"}, "client-key-data is not base64 of PEM"),
        ({"client-key-data": encode("no")}, "client-key-data is not PEM of a key"),
        ({"tokenFile": "no"}, "no cannot be read: No such file"),
        ({"tokenFile": "blank"}, "blank is empty"),
        ({"token": 7}, "token is not text: 7"),
        ({"token": "se\ncret"}, "said as Authorization is not printable ASCII"),
        ({"as": "b\u00f6b"}, "said as Impersonate-User is not printable ASCII"),
        ({"as-groups": ["a\nb"]}, "said as Impersonate-Group is not printable ASCII"),
        ({"as-groups": "ops"}, "as-groups is not a list of text: 'ops'"),
        ({"as-groups": 7}, "as-groups is not a list of text: 7"),
        ({"as-groups": [7]}, "as-groups is not a list of text: [7]"),
        ({"as-user-extra": ["a"]}, "as-user-extra is not lists by name: ['a']"),
        ({"as-user-extra": {7: ["a"]}}, "as-user-extra is not lists by name"),
        ({"as-user-extra": {"a": 7}}, "as-user-extra: a is not a list of text: 7"),
        ({"as-user-extra": {"a": "b"}}, "as-user-extra: a is not a list of text: 'b'"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider is of old Kubernetes"),
    ],
)
def test_a_user_that_cannot_be_is_named(refused, pems, tmp_path, user, part):
    (tmp_path / "blank").write_text("\n")
    text = refused(user=user)
    assert f"{tmp_path}/config: user ann" in text
    assert part in text


# Proxies


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_a_proxy_is_of_one_of_these_schemes(find, scheme):
    url = f"{scheme}://proxy.example:3128"
    assert find({"proxy-url": url}).proxy == url


def test_the_kubeconfigs_proxy_wins_over_the_environments(find):
    environment = {"HTTPS_PROXY": "http://other", "NO_PROXY": "*"}
    access = find({"proxy-url": "http://proxy.example"}, environment=environment)
    assert access.proxy == "http://proxy.example"
    assert find(environment={"HTTPS_PROXY": "http://other"}).proxy == "http://other"
    assert find(environment=environment).proxy is None


@pytest.mark.parametrize(
    ("cluster", "environment", "parts"),
    [
        ({"proxy-url": "ftp://p"}, {}, ["cluster blue: proxy-url", "ftp://p"]),
        ({"proxy-url": "proxy.example:3128"}, {}, ["cluster blue: proxy-url"]),
        ({"proxy-url": "http://"}, {}, ["cluster blue: proxy-url"]),
        ({"proxy-url": "http://p:x"}, {}, ["cluster blue: proxy-url", "http://p:x"]),
        ({}, {"HTTPS_PROXY": "ftp://p"}, ["HTTPS_PROXY", "ftp://p"]),
        (
            {"server": "http://blue.example"},
            {"HTTP_PROXY": "ftp://p"},
            ["HTTP_PROXY", "ftp://p"],
        ),
    ],
)
def test_a_proxy_that_is_none_is_named(refused, cluster, environment, parts):
    text = refused(cluster, environment=environment)
    for part in (*parts, "is not the URL of a proxy"):
        assert part in text


P = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("server", "environment", "proxy"),
    [
        ("https://a.example", {}, None),
        ("https://a.example", {"HTTPS_PROXY": P}, P),
        ("https://a.example", {"https_proxy": P}, P),
        ("https://a.example", {"HTTPS_PROXY": P, "https_proxy": "http://other"}, P),
        ("https://a.example", {"HTTPS_PROXY": "", "https_proxy": P}, P),
        ("https://a.example", {"HTTPS_PROXY": "proxy.example:3128"}, P),
        ("https://a.example", {"HTTPS_PROXY": "socks5://p"}, "socks5://p"),
        ("https://a.example", {"HTTP_PROXY": P}, None),
        ("http://a.example", {"HTTP_PROXY": P}, P),
        ("http://a.example", {"HTTPS_PROXY": P}, None),
        ("https://localhost:6443", {"HTTPS_PROXY": P}, None),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": P}, None),
        ("https://127.8.0.1", {"HTTPS_PROXY": P}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": P}, None),
        ("https://10.0.0.1", {"HTTPS_PROXY": P}, P),
    ],
)
def test_the_environment_has_a_proxy_for_each_scheme(server, environment, proxy):
    assert proxy_of(server, environment) == proxy


@pytest.mark.parametrize(
    ("server", "rules", "proxied"),
    [
        ("https://a.example", "*", False),
        ("https://a.example", "", True),
        ("https://a.example", "a.example", False),
        ("https://a.example", "A.Example", False),
        ("https://a.example", "b.example, a.example ,", False),
        ("https://a.example", "b.example,,c.example", True),
        ("https://a.example", "example", False),
        ("https://a.example", ".example", False),
        ("https://a.example", "*.example", False),
        ("https://example", ".example", True),
        ("https://example", "*.example", True),
        ("https://example", "example", False),
        ("https://an-example", "example", True),
        ("https://a.example.org", "a.example", True),
        ("https://a.example", "a.example:443", False),
        ("https://a.example", "a.example:6443", True),
        ("https://a.example:6443", "a.example:6443", False),
        ("https://a.example:6443", ".example:6443", False),
        ("https://a.example:6443", "a.example", False),
        ("https://10.1.2.3", "10.1.2.3", False),
        ("https://10.1.2.3", "10.1.2.4", True),
        ("https://10.1.2.3", "10.1.0.0/16", False),
        ("https://10.1.2.3", "10.2.0.0/16", True),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", False),
        ("https://10.1.2.3:6443", "10.1.2.3:443", True),
        ("https://10.1.2.3", "fd00::/8", True),
        ("https://10.1.2.3", "3", True),
        ("https://[fd00::1]", "fd00::1", False),
        ("https://[fd00::1]", "[fd00::1]", False),
        ("https://[fd00::1]", "fd00:0::1", False),
        ("https://[fd00::1]", "fd00::/8", False),
        ("https://[fd00::1]", "fe80::/10", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", False),
        ("https://[fd00::1]:6443", "[fd00::1]:443", True),
        ("https://[fd00::1]:6443", "[fd00::2]:6443", True),
        ("https://a.example", "10.0.0.0/8", True),
        ("https://a.example", "a.example:\u00b2", True),
        ("http://a.example", "a.example:80", False),
        ("http://a.example", "a.example:443", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_some_servers_are_not_proxied(server, rules, proxied, variable):
    environment = {"HTTPS_PROXY": P, "HTTP_PROXY": P, variable: rules}
    assert (proxy_of(server, environment) == P) is proxied


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://ann:secret@proxy.example:3128", "http://proxy.example:3128"),
        ("http://ann@proxy.example", "http://proxy.example"),
        ("socks5://a:b@c@[fd00::1]:1080", "socks5://[fd00::1]:1080"),
        (P, P),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert without_password(url) == shown


# Expiry


def jwt(claims):
    """Make a token that carries claims, signed by nobody."""
    parts = [{"alg": "none"}, claims]
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
    return ".".join(text.rstrip(b"=").decode() for text in texts) + ".signature"


@pytest.mark.parametrize(
    ("claims", "expires"),
    [
        ({"exp": 1_800_000_000}, 1_800_000_000.0),
        ({"exp": 1_800_000_000.5, "sub": "ann"}, 1_800_000_000.5),
        ({"exp": 1_800_000_000, "sub": "??>>??~~"}, 1_800_000_000.0),
        ({"sub": "ann"}, None),
        ({"exp": None}, None),
        ({"exp": "soon"}, None),
        ({"exp": "1800000000"}, None),
        ({"exp": True}, None),
        ({"exp": float("nan")}, None),
        ({"exp": float("inf")}, None),
        ({"exp": 10**400}, None),
        ([1], None),
        ("exp", None),
    ],
)
def test_a_jwt_says_when_it_expires(claims, expires):
    assert token_expiry(jwt(claims)) == expires


@pytest.mark.parametrize(
    "token", ["", "secret", ".", "..", "a.b.c", "a.%%%.c", "a.\u00e4.c", "k8s-aws-v1.aHR0"]
)
def test_a_token_that_is_no_jwt_says_nothing(token):
    assert token_expiry(token) is None


def test_a_token_without_end_says_nothing():
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    assert token_expiry(f"a.{deep}.c") is None


# To the engine, and not to the log

WHOLE = Access(
    context="dev",
    namespace="shop",
    server=SERVER,
    source="config, cluster blue",
    ca="authorities",
    insecure=True,
    tls_server_name="api.internal",
    proxy="http://ann:p4ssword@proxy.example:3128",
    headers=(("Authorization", "Bearer s3cret"), ("Impersonate-Group", "a")),
    certificate="c3rtificate",
    key="k3y",
    expires=1.5,
    renewable="exec plugin",
)
BARE = Access(context="dev", namespace="shop", server=SERVER, source="config, cluster blue")


@pytest.mark.parametrize("access", [WHOLE, BARE])
def test_access_goes_through_json_and_back(access):
    assert Access.build(json.loads(json.dumps(access.plain()))) == access


def test_secrets_do_not_show():
    for text in (repr(WHOLE), str(WHOLE)):
        assert SERVER in text
        for secret in ("s3cret", "c3rtificate", "k3y", "p4ssword"):
            assert secret not in text


def test_an_absolute_path_is_taken_as_it_is(find, keys):
    assert Path(keys.certificate).is_absolute()
    found = find({"certificate-authority": str(keys.certificate)})
    assert found.ca == keys.certificate.read_text()
