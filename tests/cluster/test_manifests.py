"""The objects of an install: what they are called, and what they may do."""

import json
import re

import pytest

from tunstack._version import PRODUCT
from tunstack.cluster.install import KINDS
from tunstack.cluster.manifests import (
    Install,
    global_name,
    grants,
    image_of,
    namespace,
    objects,
    repository,
    settings_of,
)
from tunstack.cluster.names import COMPONENT, HEALTH_PORT, LABEL, PORT
from tunstack.errors import UsageError

WATCH = ["get", "list", "watch"]

VARIANTS = [
    {},
    {"tls_secret": "front"},
    {"probe_services": True},
    {"tls_secret": "front", "probe_services": True, "replicas": 3, "namespace": "tools"},
]


@pytest.fixture(params=VARIANTS, ids=lambda said: ",".join(said) or "plain")
def install(request):
    return Install(image="registry.example/tunstack:1", **request.param)


def found(install, kind):
    """Give the objects of a kind."""
    return [each for each in objects(install) if each["kind"] == kind]


def only(install, kind):
    (document,) = found(install, kind)
    return document


def pod_of(install):
    return only(install, "Deployment")["spec"]["template"]["spec"]


def container_of(install):
    (container,) = pod_of(install)["containers"]
    return container


def rules_of(role):
    return {
        (group, resource): rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


# Names and labels


def test_everything_bears_the_label(install):
    everything = [
        namespace("tools"),
        *objects(install),
        *grants("tools", ["dev", "system:serviceaccount:ci:robot"]),
    ]
    for document in everything:
        labels = document["metadata"]["labels"]
        assert labels[LABEL] == "tunstack"
        assert labels[COMPONENT] in ("manager", "grant")
        for value in labels.values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)
    template = only(install, "Deployment")["spec"]["template"]
    assert template["metadata"]["labels"][LABEL] == "tunstack"


def test_grants_are_told_apart_from_the_manager(install):
    parts = {each["metadata"]["labels"][COMPONENT] for each in objects(install)}
    assert parts == {"manager"}
    granted = {each["metadata"]["labels"][COMPONENT] for each in grants("tools", ["dev"])}
    assert granted == {"grant"}


def test_uninstall_knows_every_kind(install):
    known = {(kind.version, kind.name): kind.namespaced for kind in KINDS}
    for document in (*objects(install), *grants("tools", ["dev"])):
        namespaced = known[document["apiVersion"], document["kind"]]
        assert ("namespace" in document["metadata"]) is namespaced


def test_what_has_a_namespace_is_in_that_of_the_install(install):
    for document in objects(install):
        where = document["metadata"].get("namespace", install.namespace)
        assert where == install.namespace


def test_what_has_no_namespace_is_named_after_that_of_the_install():
    names = [
        document["metadata"]["name"]
        for where in ("tunstack", "tools", "tunstack-tools")
        for document in objects(Install(namespace=where))
        if document["kind"] == "ClusterRole"
    ]
    assert names == ["tunstack", "tunstack-tools", "tunstack-tunstack-tools"]
    assert names == list(map(global_name, ["tunstack", "tools", "tunstack-tools"]))


def test_bindings_bind_what_is_there_before_them(install):
    made = set()
    for document in objects(install):
        if document["kind"].endswith("Binding"):
            reference = document["roleRef"]
            assert (reference["kind"], reference["name"]) in made
            for subject in document["subjects"]:
                assert subject["namespace"] == install.namespace
                assert (subject["kind"], subject["name"]) in made
        made.add((document["kind"], document["metadata"]["name"]))
    assert ("ServiceAccount", pod_of(install)["serviceAccountName"]) in made


def test_selectors_find_the_pods(install):
    labels = only(install, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only(install, "Deployment")["spec"]["selector"]["matchLabels"],
        only(install, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(install, "Service")["spec"]["selector"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
        # Not by version: a selector cannot be changed when that does.
        assert set(selector) == {LABEL, COMPONENT}


def test_our_namespace_asks_for_the_strictest_standard():
    labels = namespace("tools")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


# The pod


def test_the_pod_may_do_nothing_on_its_node(install):
    pod, container = pod_of(install), container_of(install)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod.get(key)


def options_of(install):
    """Give the manager's options, by name."""
    return dict(
        argument.removeprefix("--").partition("=")[::2]
        for argument in container_of(install)["args"]
        if argument.startswith("--")
    )


def test_the_manager_listens_on_loopback_only():
    install = Install(image="i")
    options = options_of(install)
    assert options["listen"] == f"127.0.0.1:{PORT}"
    assert not {"network", "tls-cert", "tls-key", "token-review"} & set(options)
    service = only(install, "Service")["spec"]
    for ports in (container_of(install)["ports"], service["ports"]):
        assert [port["name"] for port in ports] == ["health"]
    assert "volumes" not in pod_of(install)


def test_with_a_certificate_the_manager_listens_on_the_network_too():
    install = Install(image="i", tls_secret="front")
    options = options_of(install)
    assert options["listen"] == f"127.0.0.1:{PORT}"
    assert options["network"] == f"$(POD_IP):{PORT + 1}"
    assert "token-review" in options
    (volume,) = pod_of(install)["volumes"]
    assert volume["secret"]["secretName"] == "front"
    (mount,) = container_of(install)["volumeMounts"]
    assert (mount["name"], mount["readOnly"]) == (volume["name"], True)
    for option in ("tls-cert", "tls-key"):
        assert options[option].startswith(f"{mount['mountPath']}/tls.")


def test_probes_and_services_lead_to_ports_that_there_are(install):
    container = container_of(install)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["health"] == HEALTH_PORT
    assert options_of(install)["health"] == f"$(POD_IP):{HEALTH_PORT}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    for port in only(install, "Service")["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]


def test_the_pod_outlives_the_drain(install):
    drain = int(options_of(install)["drain"])
    assert pod_of(install)["terminationGracePeriodSeconds"] > drain


def test_what_an_administrator_decides_is_in_the_pod():
    install = Install(
        image="registry.example/tunstack@sha256:0",
        pull_policy="Always",
        pull_secrets=("a", "b"),
        replicas=2,
    )
    assert container_of(install)["image"] == "registry.example/tunstack@sha256:0"
    assert container_of(install)["imagePullPolicy"] == "Always"
    assert pod_of(install)["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert only(install, "Deployment")["spec"]["replicas"] == 2
    assert "topologySpreadConstraints" in pod_of(install)
    bare = pod_of(Install(image="i"))
    assert not {"imagePullSecrets", "topologySpreadConstraints"} & set(bare)


@pytest.mark.parametrize("replicas", [1, 2, 100])
def test_one_pod_may_be_away_however_many_there_are(replicas):
    budget = only(Install(image="i", replicas=replicas), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


@pytest.mark.parametrize("replicas", [-1, 0, 101])
def test_replicas_have_bounds(replicas):
    with pytest.raises(UsageError, match=f"--replicas {replicas}: want 1 to 100"):
        Install(replicas=replicas)


# Rights


def test_the_manager_sees_what_it_follows_and_changes_nothing(install):
    rules = rules_of(only(install, "ClusterRole"))
    reviews = rules.pop(("authentication.k8s.io", "tokenreviews"), None)
    assert reviews == (["create"] if install.tls_secret else None)
    assert rules == {
        ("", "namespaces"): WATCH,
        ("", "nodes"): WATCH,
        ("", "pods"): WATCH,
        ("", "services"): WATCH,
        ("networking.k8s.io", "servicecidrs"): WATCH,
    }


def test_the_manager_may_have_services_refused_only_where_it_must(install):
    roles = found(install, "Role")
    if install.probe_services:
        (role,) = roles
        assert rules_of(role) == {("", "services"): ["create"]}
        assert only(install, "RoleBinding")["roleRef"]["kind"] == "Role"
    else:
        assert roles == found(install, "RoleBinding") == []


def test_users_may_find_pods_and_forward_ports_and_nothing_else():
    role, binding = grants("tools", ["dev"])
    assert rules_of(role) == {
        ("", "pods"): ["get", "list"],
        ("", "pods/portforward"): ["get", "create"],
    }
    assert role["kind"] == "Role"
    assert binding["kind"] == "RoleBinding"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "tools"


@pytest.mark.parametrize(
    ("group", "subject"),
    [
        ("dev", ("Group", "dev", None)),
        ("oidc:/platform/dev", ("Group", "oidc:/platform/dev", None)),
        ("system:authenticated", ("Group", "system:authenticated", None)),
        ("system:serviceaccounts:ci", ("Group", "system:serviceaccounts:ci", None)),
        ("system:serviceaccount:ci:robot", ("ServiceAccount", "robot", "ci")),
        ("system:serviceaccount:ci", ("Group", "system:serviceaccount:ci", None)),
    ],
)
def test_a_grant_is_to_a_group_or_to_an_account(group, subject):
    _, binding = grants("tools", [group])
    (named,) = binding["subjects"]
    assert (named["kind"], named["name"], named.get("namespace")) == subject
    assert not {"/", "%"} & set(binding["metadata"]["name"])


def test_each_group_has_a_binding_of_its_own():
    groups = ["dev", "ops", "oidc:dev", "system:serviceaccount:ci:dev"]
    groups += ["a/b", "a%b", "a-b"]
    _, *bindings = grants("tools", groups)
    names = {binding["metadata"]["name"] for binding in bindings}
    assert len(names) == len(groups)
    assert len(grants("tools", [])) == 1
    assert grants("tools", ["ops"])[1] in bindings


# The image


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        (None, "reg.example", f"reg.example/tunstack:{PRODUCT}"),
        (None, "reg.example/team/", f"reg.example/team/tunstack:{PRODUCT}"),
        ("manager", "reg.example", f"reg.example/manager:{PRODUCT}"),
        ("manager:7", "reg.example", "reg.example/manager:7"),
        ("team/manager:7", "reg.example", "reg.example/team/manager:7"),
        ("manager@sha256:0a", "reg.example", "reg.example/manager@sha256:0a"),
        ("other.example/manager:7", "reg.example", "other.example/manager:7"),
        ("other.example/manager", "reg.example", f"other.example/manager:{PRODUCT}"),
        ("host:5000/manager", "reg.example", f"host:5000/manager:{PRODUCT}"),
        ("localhost/manager:dev", "reg.example", "localhost/manager:dev"),
        ("localhost:5000/a/b@sha256:0a", None, "localhost:5000/a/b@sha256:0a"),
        ("manager:7", None, "manager:7"),
        ("manager", "", f"manager:{PRODUCT}"),
        (None, "host:5000", f"host:5000/tunstack:{PRODUCT}"),
    ],
)
def test_an_image_is_put_together(image, registry, expected):
    assert image_of(image, registry) == expected


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("manager", "manager"),
        ("manager:7", "manager"),
        ("reg.example/team/manager:7", "reg.example/team/manager"),
        ("host:5000/manager", "host:5000/manager"),
        ("host:5000/manager:7@sha256:0a", "host:5000/manager"),
        ("reg.example/manager@sha256:0a", "reg.example/manager"),
    ],
)
def test_an_image_has_a_name_without_tag_and_digest(image, name):
    assert repository(image) == name


@pytest.mark.parametrize(
    "said",
    [
        {"image": "i"},
        {"image": "i", "replicas": 3, "pull_policy": "Always", "tls_secret": "front"},
        {"image": "i@sha256:0a", "pull_secrets": ("a", "b")},
    ],
)
def test_what_was_decided_is_read_from_what_is_there(said):
    install = Install(**said)
    found = json.loads(json.dumps(only(install, "Deployment")))
    assert Install(**settings_of(found)) == install


@pytest.mark.parametrize("registry", [None, ""])
def test_an_image_must_be_said(registry):
    with pytest.raises(UsageError, match="which image") as caught:
        image_of(None, registry)
    assert "--registry" in caught.value.hint
