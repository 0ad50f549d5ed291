"""Which files are read, which entry wins, and what is said about those that cannot be."""

import os
from functools import partial
from pathlib import Path

import pytest
import yaml

from tunstack.cluster import kubeconfig
from tunstack.cluster.kubeconfig import KubeconfigError, choose, load
from tunstack.config import ClusterConfig

WHOLE = """
current-context: dev
contexts:
- name: dev
  context: {cluster: blue, user: ann, namespace: shop}
- name: bare
  context: {cluster: blue}
clusters:
- name: blue
  cluster: {server: https://blue.example}
users:
- name: ann
  user: {token: secret}
"""


def write(file, current=None, **kinds):
    """Write a kubeconfig: ``contexts={"dev": {...}}``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"current-context": current} if current else {}
    for kind, entries in kinds.items():
        key = kind.removesuffix("s")
        document[kind] = [{"name": name, key: value} for name, value in entries.items()]
    file.write_text(yaml.safe_dump(document))
    return file


def listed(*files):
    return {"KUBECONFIG": os.pathsep.join(map(str, files))}


@pytest.fixture
def home(tmp_path):
    """A home without any kubeconfig."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def whole(tmp_path):
    file = tmp_path / "whole"
    file.write_text(WHOLE)
    return file


# Merging


def test_the_first_file_that_names_an_entry_decides_on_it_whole(tmp_path, home):
    first = write(
        tmp_path / "first",
        contexts={"dev": {"cluster": "blue", "user": "ann"}},
        clusters={"blue": {"server": "https://first"}},
    )
    second = write(
        tmp_path / "second",
        contexts={"dev": {"cluster": "green", "namespace": "shop"}},
        clusters={"blue": {"server": "https://second", "proxy-url": "http://p:1"}},
        users={"ann": {"token": "secret"}},
    )
    context = load(None, listed(first, second), home).context("dev")
    assert context.cluster.value == {"server": "https://first"}
    assert context.cluster.file == first
    assert context.user.value == {"token": "secret"}
    assert context.user.file == second
    assert context.namespace == "default"


def test_an_entry_without_anything_decides_too(tmp_path, home):
    first = write(tmp_path / "first", users={"ann": None})
    second = write(tmp_path / "second", users={"ann": {"token": "secret"}})
    found = load(None, listed(first, second), home)
    assert found.entries["user", "ann"].value == {}


@pytest.mark.parametrize(
    ("currents", "expected"),
    [
        (["a", "b"], "a"),
        ([None, "b"], "b"),
        (["", "b"], "b"),
        ([None, None], None),
    ],
)
def test_the_first_file_that_names_a_current_context_decides(
    tmp_path, home, currents, expected
):
    files = [
        write(tmp_path / str(number), current) for number, current in enumerate(currents)
    ]
    assert load(None, listed(*files), home).current == expected


def test_files_that_are_missing_or_empty_and_empty_items_do_not_count(
    tmp_path, home, whole
):
    empty = tmp_path / "empty"
    empty.touch()
    listing = listed("", tmp_path / "missing", empty, "", whole, whole, "")
    found = load(None, listing, home)
    assert found.context().name == "dev"
    assert found.files == (tmp_path / "missing", empty, whole)


@pytest.mark.parametrize("environment", [{}, {"KUBECONFIG": ""}, {"KUBECONFIG": ":"}])
def test_without_a_list_the_file_in_the_home_is_read(home, environment):
    file = home / ".kube/config"
    file.parent.mkdir()
    file.write_text(WHOLE)
    assert load(None, environment, home).context().cluster.file == file


def test_with_a_list_the_file_in_the_home_is_not_read(tmp_path, home):
    write(home / ".kube/config", "dev")
    assert load(None, listed(tmp_path / "missing"), home).current is None


def test_the_explicit_file_is_the_only_one(tmp_path, home, whole):
    other = write(tmp_path / "other", "other", users={"bob": {}})
    write(home / ".kube/config", "home", users={"cid": {}})
    found = load(whole, listed(other), home)
    assert found.files == (whole,)
    assert set(found.entries) == {
        ("context", "dev"),
        ("context", "bare"),
        ("cluster", "blue"),
        ("user", "ann"),
    }


def test_the_explicit_file_must_exist(tmp_path, home, whole):
    with pytest.raises(KubeconfigError, match="missing does not exist") as caught:
        load(tmp_path / "missing", listed(whole), home)
    assert caught.value.exit_code == 3
    assert "--kubeconfig" in caught.value.hint


# Choosing


def test_without_a_choice_the_current_context_holds(home, whole):
    context = choose(ClusterConfig(), listed(whole), home)
    assert (context.name, context.namespace) == ("dev", "shop")
    assert context.cluster.value == {"server": "https://blue.example"}
    assert context.user.value == {"token": "secret"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"context": "bare"}, ("bare", "default")),
        ({"namespace": "till"}, ("dev", "till")),
        ({"context": "bare", "namespace": "till"}, ("bare", "till")),
    ],
)
def test_settings_choose_context_and_namespace(home, whole, settings, expected):
    settings = ClusterConfig(kubeconfig=str(whole), **settings)
    context = choose(settings, {}, home)
    assert (context.name, context.namespace) == expected


def test_a_context_without_a_user_is_nobody(home, whole):
    user = load(whole, {}, home).context("bare").user
    assert user.value == {}


@pytest.mark.parametrize(
    ("name", "hint"), [("def", "there is bare, dev"), (None, "there is bare, dev")]
)
def test_the_contexts_that_there_are_are_named(home, whole, name, hint):
    whole.write_text(WHOLE.replace("current-context: dev", ""))
    with pytest.raises(KubeconfigError) as caught:
        load(whole, {}, home).context(name)
    assert str(whole) in str(caught.value)
    assert hint in caught.value.hint


def test_a_relative_path_is_relative_to_the_file_that_says_it(tmp_path, home):
    first = write(
        tmp_path / "work/config",
        "dev",
        contexts={"dev": {"cluster": "blue", "user": "ann"}},
        clusters={"blue": {"certificate-authority": "pki/ca.crt"}},
    )
    second = write(
        tmp_path / "private/config",
        users={"ann": {"tokenFile": "../tokens/ann", "client-key": "/etc/key"}},
    )
    context = load(None, listed(first, second), home).context()
    cluster, user = context.cluster, context.user
    assert cluster.path("certificate-authority") == tmp_path / "work/pki/ca.crt"
    assert user.path("tokenFile").resolve() == tmp_path / "tokens/ann"
    assert user.path("client-key") == Path("/etc/key")
    assert user.path("client-certificate") is None


# In a pod


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """Be in a pod: gives its environment, and the folder of its credentials."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    for name, text in (("token", "secret"), ("ca.crt", "PEM"), ("namespace", "till\n")):
        (folder / name).write_text(text)
    within = partial(kubeconfig.in_cluster, folder=folder)
    monkeypatch.setattr(kubeconfig, "in_cluster", within)
    return {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
    }, folder


def test_a_pod_has_a_context_of_its_own(pod, home):
    environment, folder = pod
    context = choose(ClusterConfig(), environment, home)
    assert (context.name, context.namespace) == ("in-cluster", "till")
    assert context.cluster.value["server"] == "https://10.96.0.1:443"
    assert context.cluster.path("certificate-authority") == folder / "ca.crt"
    assert context.user.path("tokenFile") == folder / "token"


def test_a_pod_may_be_told_another_namespace(pod, home):
    context = choose(ClusterConfig(namespace="shop"), pod[0], home)
    assert (context.name, context.namespace) == ("in-cluster", "shop")


def test_an_address_of_ipv6_gets_brackets(pod, home):
    environment = pod[0] | {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    context = choose(ClusterConfig(), environment, home)
    assert context.cluster.value["server"] == "https://[fd00::1]:443"


def test_a_pod_without_a_file_of_its_namespace_is_in_the_default_one(pod, home):
    environment, folder = pod
    (folder / "namespace").unlink()
    assert choose(ClusterConfig(), environment, home).namespace == "default"


def test_a_pod_with_any_entry_in_a_kubeconfig_goes_by_that(pod, home, whole, tmp_path):
    assert choose(ClusterConfig(), pod[0] | listed(whole), home).name == "dev"
    lone = write(tmp_path / "lone", clusters={"blue": {"server": "https://blue"}})
    with pytest.raises(KubeconfigError, match="no current-context"):
        choose(ClusterConfig(), pod[0] | listed(lone), home)


def test_a_pod_that_is_told_a_context_or_a_file_needs_it(pod, home, tmp_path):
    with pytest.raises(KubeconfigError, match="no kubeconfig"):
        choose(ClusterConfig(context="dev"), pod[0], home)
    (tmp_path / "empty").touch()
    with pytest.raises(KubeconfigError, match=f"there is nothing in {tmp_path}/empty"):
        choose(ClusterConfig(kubeconfig=str(tmp_path / "empty")), pod[0], home)


@pytest.mark.parametrize(
    "missing", ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "token"]
)
def test_elsewhere_there_is_nothing(pod, home, missing):
    environment, folder = pod
    if missing == "token":
        (folder / "token").unlink()
    else:
        del environment[missing]
    with pytest.raises(KubeconfigError, match="no kubeconfig") as caught:
        choose(ClusterConfig(), environment, home)
    assert str(home / ".kube/config") in str(caught.value)
    assert "--manager" in caught.value.hint


# Wrong ones

CONTEXT = "current-context: dev\ncontexts: [{name: dev, context: {%s}}]\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("contexts: [", ["is not YAML"]),
        ("contexts: !!python/name:os.system", ["is not YAML"]),
        (b"\xff\xfe\xff", ["is not YAML"]),
        ("just text", ["it has no keys"]),
        ("[]", ["it has no keys"]),
        ("kind: Pod", ["its kind is Pod"]),
        ("contexts: {dev: {}}", ["contexts is not a list"]),
        ("clusters: blue", ["clusters is not a list"]),
        ("clusters: [blue]", ["an item of clusters has no name"]),
        ("users: [{user: {}}]", ["an item of users has no name"]),
        ("users: [{name: ''}]", ["an item of users has no name"]),
        ("contexts: [{name: 7}]", ["an item of contexts has no name"]),
        ("clusters: [{name: blue, cluster: here}]", ["cluster blue has no keys"]),
        ("users: [{name: ann}]", ["there is no current-context"]),
        ("current-context: dev\nusers: [{name: ann}]", ["there is no context dev"]),
        (CONTEXT % "user: ann", ["context dev names no cluster"]),
        (CONTEXT % "cluster: ''", ["context dev names no cluster"]),
        (CONTEXT % "cluster: 7", ["context dev", "cluster is not text: 7"]),
        (CONTEXT % "cluster: blue", ["context dev", "cluster blue", "none of the files"]),
        (
            CONTEXT % "cluster: blue, user: ann" + "clusters: [{name: blue}]",
            ["context dev", "user ann", "none of the files"],
        ),
        (
            CONTEXT % "cluster: blue, namespace: [shop]" + "clusters: [{name: blue}]",
            ["context dev", "namespace is not text: ['shop']"],
        ),
        ("", ["no kubeconfig: there is nothing in"]),
    ],
)
def test_a_wrong_kubeconfig_is_named_with_what_is_wrong(tmp_path, home, text, parts):
    file = tmp_path / "wrong.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(KubeconfigError) as caught:
        choose(ClusterConfig(), listed(file), home)
    for part in (str(file), *parts):
        assert part in str(caught.value)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path, home):
    with pytest.raises(KubeconfigError, match=f"{tmp_path} cannot be read: Is a directory"):
        load(None, listed(tmp_path), home)


@pytest.mark.parametrize(
    ("users", "hint"), [({"bob": {}, "ann": {}}, "ann, bob"), ({}, "no user")]
)
def test_the_parts_that_there_are_are_named(tmp_path, home, users, hint):
    file = write(
        tmp_path / "config",
        "dev",
        contexts={"dev": {"cluster": "blue", "user": "cid"}},
        clusters={"blue": {}},
        users=users,
    )
    with pytest.raises(KubeconfigError, match="the user cid") as caught:
        load(file, {}, home).context()
    assert caught.value.hint == f"there is {hint}"


def test_what_is_wrong_is_named_with_file_and_context(tmp_path):
    path = tmp_path / "config"
    path.write_text(
        "current-context: dev\n"
        "contexts: [{name: dev, context: {cluster: far, user: me}}]\n"
        "clusters: [{name: far, cluster: {server: [1]}}]\n"
        "users: [{name: me, user: {token: [1]}}]\n"
    )
    context = load(path, {}, tmp_path).context()
    with pytest.raises(KubeconfigError, match="server is not text") as caught:
        context.cluster.text("server")
    assert str(caught.value).startswith(f"{path}: context dev: cluster far: ")
    with pytest.raises(KubeconfigError, match="token is not text") as caught:
        context.user.text("token")
    assert str(caught.value).startswith(f"{path}: context dev: user me: ")
