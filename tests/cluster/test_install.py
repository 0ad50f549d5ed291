"""Installing and uninstalling, from whatever state a cluster is in."""

import asyncio

import pytest
from aiohttp import web

from tests.cluster.fake_api import (
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    ROLE_BINDINGS,
    document,
    pod,
)
from tunstack._version import PRODUCT
from tunstack.cluster import install, manifests
from tunstack.cluster.api import ApiError
from tunstack.cluster.manifests import Install
from tunstack.cluster.names import COMPONENT, LABEL
from tunstack.errors import ClusterError

OURS = {LABEL: "tunstack", COMPONENT: "manager"}
GOING = "2026-01-01T00:00:00Z"

INSTALLED = {
    "tunstack/serviceaccount/tunstack",
    "clusterrole/tunstack",
    "clusterrolebinding/tunstack",
    "tunstack/service/tunstack",
    "tunstack/deployment/tunstack",
    "tunstack/poddisruptionbudget/tunstack",
}
GRANTED = {"tunstack/role/tunstack-user", "tunstack/rolebinding/tunstack-user:dev"}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Look again soon."""
    monkeypatch.setattr(install, "_POLL", 0.01)


def silent(text):
    """Take progress and say nothing."""


def wanted(namespace="tunstack", groups=(), **said):
    """Give the objects of an install with its namespace and grants."""
    said = {"image": "registry.example/tunstack:1", **said}
    return [
        manifests.namespace(namespace),
        *manifests.objects(Install(namespace=namespace, **said)),
        *(manifests.grants(namespace, groups) if groups else ()),
    ]


async def applied(api, objects, **said):
    return await install.apply(api, objects, silent, **said)


async def removed(api, namespace="tunstack", timeout=10, progress=silent):
    return await install.uninstall(api, namespace, progress, timeout=timeout)


def with_pods(fake, namespace="tunstack"):
    """Do what controllers do: make the ReplicaSet and a pod of the Deployment."""
    deployment = fake.find(DEPLOYMENTS, "tunstack", namespace)
    owner = [{"uid": deployment["metadata"]["uid"], "kind": "Deployment"}]
    said = {"labels": OURS, "ownerReferences": owner}
    fake.load(REPLICA_SETS, document("ReplicaSet", "tunstack-7", namespace, **said))
    owner = [{"uid": fake.find(REPLICA_SETS, "tunstack-7", namespace)["metadata"]["uid"]}]
    fake.load(PODS, pod("tunstack-7-a", namespace, labels=OURS, ownerReferences=owner))


# Applying


async def test_everything_is_applied_in_an_order_in_which_it_can_be_made(fake, api):
    steps = []
    names = await install.apply(api, wanted(groups=["dev"]), steps.append)
    assert names == [
        "namespace/tunstack",
        "serviceaccount/tunstack",
        "clusterrole/tunstack",
        "clusterrolebinding/tunstack",
        "service/tunstack",
        "deployment/tunstack",
        "poddisruptionbudget/tunstack",
        "role/tunstack-user",
        "rolebinding/tunstack-user:dev",
    ]
    assert steps == [f"applying {name}" for name in names]
    assert fake.names() == INSTALLED | GRANTED | {"namespace/tunstack"}


async def test_an_apply_takes_fields_over_by_force(fake, api):
    await applied(api, wanted())
    for method, _, query, _ in fake.requests:
        assert method == "PATCH"
        assert query == {"fieldManager": "tunstack", "force": "true"}


@pytest.mark.parametrize("said", [{}, {"probe_services": True, "tls_secret": "front"}])
async def test_a_second_apply_changes_nothing(fake, api, said):
    objects = wanted(groups=["dev"], **said)
    first = await applied(api, objects)
    before = fake.names()
    assert await applied(api, objects) == first
    assert fake.names() == before
    assert set(fake.asked("DELETE")) == set()
    assert fake.find(DEPLOYMENTS, "tunstack", "tunstack")["metadata"]["generation"] == 1


async def test_installs_in_two_namespaces_do_not_touch_each_other(fake, api):
    await applied(api, wanted("tunstack"))
    before = fake.names()
    await applied(api, wanted("tools"))
    assert before < fake.names()
    assert len(fake.names()) == 2 * len(before)
    await removed(api, "tools")
    assert fake.names() == before | {"namespace/tools"}


async def test_a_later_grant_takes_nothing_from_an_earlier_one(fake, api):
    fake.load(NAMESPACES, document("Namespace", "tunstack"))
    groups = ["dev", "ops", "oidc:/platform/dev", "the team", "caf\u00e9"]
    groups += ["a#b", "a?b=c", "a/b", "a%b", "a%23b", "a%2Fb", "a+b", "a;b", "a\\b"]
    for group in (*groups, "system:serviceaccount:ci:robot"):
        await applied(api, manifests.grants("tunstack", [group]))
    subjects = {
        subject["name"]
        for binding in fake.objects[ROLE_BINDINGS].values()
        for subject in binding["subjects"]
    }
    assert subjects == {*groups, "robot"}
    await removed(api, None)
    assert fake.objects[ROLE_BINDINGS] == {}


async def test_a_dry_run_has_everything_checked_and_changes_nothing(fake, api):
    fake.load(NAMESPACES, document("Namespace", "tunstack"))
    names = await applied(api, wanted(), dry_run=True)
    assert "deployment/tunstack" in names
    assert fake.names() == {"namespace/tunstack"}
    assert all(query["dryRun"] == "All" for _, _, query, _ in fake.requests)


def stranger():
    """Give a Deployment of our name that selects other pods."""
    spec = {"selector": {"matchLabels": {"app": "other"}}}
    return document("Deployment", "tunstack", "tunstack", spec=spec)


async def test_what_cannot_be_changed_is_replaced(fake, api):
    fake.load(NAMESPACES, document("Namespace", "tunstack"))
    fake.load(DEPLOYMENTS, stranger())
    await applied(api, wanted())
    found = fake.find(DEPLOYMENTS, "tunstack", "tunstack")
    assert found["spec"]["selector"]["matchLabels"] == OURS
    path = "/apis/apps/v1/namespaces/tunstack/deployments/tunstack"
    assert fake.asked("DELETE") == [path]


async def test_a_binding_to_another_role_is_replaced(fake, api):
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    path = f"{bindings}/tunstack"
    objects = wanted()
    (binding,) = [each for each in objects if each["kind"] == "ClusterRoleBinding"]
    fake.load(bindings, binding)
    fake.refused["PATCH", path] = 422, "roleRef: Invalid value: x: cannot change roleRef"
    with pytest.raises(ApiError):  # the fake refuses the second time, too
        await applied(api, objects)
    assert fake.asked("DELETE") == [path]
    assert fake.asked("PATCH").count(path) == 2


async def test_a_dry_run_replaces_nothing(fake, api):
    fake.load(NAMESPACES, document("Namespace", "tunstack"))
    fake.load(DEPLOYMENTS, stranger())
    with pytest.raises(ApiError, match="field is immutable"):
        await applied(api, wanted(), dry_run=True)
    assert fake.asked("DELETE") == []


async def test_what_goes_slowly_is_awaited_before_it_is_made_anew(fake, api):
    fake.load(NAMESPACES, document("Namespace", "tunstack"))
    fake.load(DEPLOYMENTS, stranger())
    fake.lasting.add(DEPLOYMENTS)
    path = "/apis/apps/v1/namespaces/tunstack/deployments/tunstack"

    async def end():
        await fake.until(lambda: ("GET", path) in [each[:2] for each in fake.requests])
        fake.lasting.clear()
        await fake.remove(DEPLOYMENTS, "tunstack", "tunstack")

    await asyncio.gather(applied(api, wanted()), end())
    found = fake.find(DEPLOYMENTS, "tunstack", "tunstack")
    assert found["spec"]["selector"]["matchLabels"] == OURS


@pytest.mark.parametrize(
    ("status", "message"), [(403, "cannot patch services"), (422, "port: not valid")]
)
async def test_a_refusal_ends_it_and_what_was_done_stays(fake, api, status, message):
    path = "/api/v1/namespaces/tunstack/services/tunstack"
    fake.refused["PATCH", path] = status, message
    with pytest.raises(ApiError, match=message) as caught:
        await applied(api, wanted())
    assert (caught.value.status, caught.value.exit_code) == (status, 6)
    assert "tunstack/serviceaccount/tunstack" in fake.names()
    assert "tunstack/deployment/tunstack" not in fake.names()
    assert fake.asked("DELETE") == []


# What is there already


async def test_what_is_installed_is_found(fake, api):
    assert await install.current(api, "tunstack") is None
    await applied(api, wanted())
    found = await install.current(api, "tunstack")
    assert install.version_of(found) == PRODUCT
    assert install.is_ours(found)
    assert await install.current(api, "tools") is None


@pytest.mark.parametrize(
    ("labels", "version"),
    [
        ({"app.kubernetes.io/version": "0.0.7"}, "0.0.7"),
        ({}, "an unknown version"),
        (None, "an unknown version"),
    ],
)
def test_another_version_is_told_apart(labels, version):
    found = document("Deployment", "tunstack", "tunstack", labels=labels)
    assert install.version_of(found) == version
    assert not install.is_ours(found)


@pytest.mark.parametrize("asking", [install.current, install.wait_ready])
async def test_whoever_may_not_look_is_told(fake, api, asking):
    path = "/apis/apps/v1/namespaces/tunstack/deployments/tunstack"
    fake.refused["GET", path] = 403, "deployments is forbidden"
    more = ("tunstack",) if asking is install.current else (Install(), silent, 10)
    with pytest.raises(ApiError, match="deployments is forbidden"):
        await asking(api, *more)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ingresses", "servicecidrs", "ipaddresses"], True),
        (["ingresses", "servicecidrs/status"], False),
    ],
)
async def test_a_server_says_whether_it_has_ranges_of_services(
    serve, open_api, names, expected
):
    async def handle(request):
        assert request.path == "/apis/networking.k8s.io/v1"
        return web.json_response({"resources": [{"name": name} for name in names]})

    api = await open_api(await serve(handle))
    assert await install.has_service_cidrs(api) is expected


async def test_a_server_without_the_group_has_none(fake, api):
    fake.unknown.add("/apis/networking.k8s.io/v1")
    assert not await install.has_service_cidrs(api)


# The namespace


async def prepared(api, progress=silent, timeout=10):
    return await install.prepare_namespace(api, "tunstack", progress, timeout)


async def test_a_namespace_that_is_not_there_is_to_be_made(fake, api):
    assert await prepared(api) == [manifests.namespace("tunstack")]


async def test_a_namespace_of_ours_is_kept_up(fake, api):
    fake.load(NAMESPACES, manifests.namespace("tunstack"))
    assert await prepared(api) == [manifests.namespace("tunstack")]


@pytest.mark.parametrize("said", [{}, {"labels": {"team": "platform"}}])
async def test_a_namespace_of_others_is_neither_applied_nor_deleted(fake, api, said):
    fake.load(NAMESPACES, document("Namespace", "tunstack", **said))
    objects = await prepared(api)
    assert objects == []
    await applied(api, wanted()[1:])
    await removed(api, None)
    assert fake.names() == {"namespace/tunstack"}
    path = f"{NAMESPACES}/tunstack"
    assert [method for method, where, _, _ in fake.requests if where == path] == ["GET"]


async def test_a_namespace_that_goes_is_awaited(fake, api):
    going = document("Namespace", "tunstack", deletionTimestamp=GOING)
    fake.load(NAMESPACES, going)

    def gone(text):
        assert text == "waiting for the namespace tunstack to be gone"
        fake.objects[NAMESPACES].clear()

    assert await prepared(api, gone) == [manifests.namespace("tunstack")]


async def test_a_namespace_that_does_not_go_is_named(fake, api):
    fake.load(NAMESPACES, document("Namespace", "tunstack", deletionTimestamp=GOING))
    with pytest.raises(ClusterError, match="namespace tunstack is being") as caught:
        await prepared(api, timeout=0.05)
    assert "deleted, after 0.05 s (--timeout)" in str(caught.value)


async def test_a_namespace_that_may_not_be_seen_is_an_error(fake, api):
    fake.refused["GET", f"{NAMESPACES}/tunstack"] = 403, "namespaces is forbidden"
    with pytest.raises(ApiError, match="namespaces is forbidden"):
        await prepared(api)


# What an earlier install had


async def test_what_is_wanted_no_longer_is_deleted(fake, api):
    await applied(api, wanted(groups=["dev"], probe_services=True))
    with_pods(fake)
    before = fake.names()
    steps = []
    await install.prune(api, "tunstack", wanted(), steps.append)
    gone = {"tunstack/role/tunstack", "tunstack/rolebinding/tunstack"}
    assert fake.names() == before - gone
    assert steps == ["deleting rolebinding/tunstack", "deleting role/tunstack"]


async def test_other_installs_keep_what_they_have(fake, api):
    await applied(api, wanted("tunstack", probe_services=True))
    await applied(api, wanted("tools", probe_services=True))
    before = fake.names()
    await install.prune(api, "tunstack", wanted(), silent)
    assert {name for name in before - fake.names() if "tools" in name} == set()


# Getting ready

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"

READY = {
    "observedGeneration": 1,
    "replicas": 2,
    "updatedReplicas": 2,
    "availableReplicas": 2,
}
BEGUN = READY | {"availableReplicas": 0}


class Rollout:
    """A Deployment and its ReplicaSets, as controllers have them."""

    def __init__(self, fake):
        self.fake = fake
        self.reach()
        for number in (1, 2):
            self.fake.load(REPLICA_SETS, self._replica_set(number))

    def reach(self, generation=1, revision=2, **status):
        """Be at a revision and at a status."""
        found = document("Deployment", "tunstack", "tunstack", spec={"replicas": 2})
        found["metadata"]["annotations"] = {REVISION: str(revision)}
        found["metadata"]["generation"] = generation
        self.fake.load(DEPLOYMENTS, found | {"status": status})

    def add(self, name, revision=2, **said):
        """Add a pod of a revision."""
        labels = OURS | {HASH: f"hash-{revision}"}
        self.fake.load(PODS, pod(name, labels=labels, **said))

    def _replica_set(self, revision):
        labels = OURS | {HASH: f"hash-{revision}"}
        found = document("ReplicaSet", f"tunstack-{revision}", "tunstack", labels=labels)
        found["metadata"]["annotations"] = {REVISION: str(revision)}
        return found


@pytest.fixture
def rollout(fake):
    return Rollout(fake)


async def wait_ready(api, progress=silent, timeout=10):
    await install.wait_ready(api, Install(replicas=2), progress, timeout)


async def test_a_deployment_that_is_ready_is_not_awaited(fake, api, rollout):
    rollout.reach(**READY)
    await wait_ready(api)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "status",
    [
        {},
        READY | {"observedGeneration": 0},
        READY | {"updatedReplicas": 1},
        READY | {"availableReplicas": 1},
        READY | {"replicas": 3},
    ],
)
async def test_a_deployment_is_awaited_until_all_of_it_is_ready(api, rollout, status):
    rollout.reach(**status)
    steps = []

    def progress(text):
        steps.append(text)
        rollout.reach(**READY)

    await wait_ready(api, progress)
    assert steps == ["its pods are not there yet"]


async def test_what_is_awaited_is_said(fake, api, rollout):
    rollout.reach(**BEGUN)
    rollout.add("tunstack-a", ready=True)
    rollout.add("tunstack-b", status={"phase": "Pending"})
    fake.load(PODS, pod("other", status={"phase": "Failed"}))
    steps = []

    def progress(text):
        steps.append(text)
        rollout.reach(**READY)

    await wait_ready(api, progress)
    assert steps == ["tunstack-b: Pending"]


def stuck(reason):
    """Give the status of a pod whose container does not start."""
    state = {"waiting": {"reason": reason, "message": "said the kubelet"}}
    return {"containerStatuses": [{"state": state}]}


@pytest.mark.parametrize(
    "reason", ["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"]
)
async def test_a_pod_that_will_never_run_is_not_awaited(api, rollout, reason):
    rollout.reach(**BEGUN)
    rollout.add("tunstack-a", status=stuck(reason))
    with pytest.raises(ClusterError, match="will not get ready") as caught:
        await wait_ready(api, timeout=600)
    assert f"tunstack-a: {reason}: said the kubelet" in str(caught.value)
    assert "--image" in caught.value.hint
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "reached",
    [
        {"generation": 2, "revision": 1, **BEGUN},
        {"generation": 2, "revision": 2, **BEGUN, "observedGeneration": 2},
    ],
    ids=["not seen yet", "seen"],
)
async def test_pods_of_the_last_rollout_do_not_count(api, rollout, reached):
    rollout.reach(**reached)
    rollout.add("tunstack-a", revision=1, status=stuck("ErrImageNeverPull"))
    steps = []

    def progress(text):
        steps.append(text)
        rollout.reach(**READY)

    await wait_ready(api, progress)
    assert steps == ["its pods are not there yet"]


async def test_a_pod_that_may_run_yet_is_awaited_for_so_long(api, rollout):
    rollout.reach(**BEGUN)
    rollout.add("tunstack-a", status=stuck("ImagePullBackOff"))
    with pytest.raises(ClusterError, match="does not get ready") as caught:
        await wait_ready(api, timeout=0.05)
    text = str(caught.value)
    assert "after 0.05 s (--timeout): tunstack-a: ImagePullBackOff" in text
    assert caught.value.exit_code == 6
    assert "kubectl describe" in caught.value.hint


async def test_a_deployment_that_may_make_no_pods_says_why(api, rollout):
    failing = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    available = {"type": "Available", "status": "False", "message": "too few"}
    going_on = {"type": "Progressing", "status": "True", "message": "goes on"}
    conditions = [available, going_on, failing]
    rollout.reach(observedGeneration=1, conditions=conditions)
    with pytest.raises(ClusterError, match="exceeded quota"):
        await wait_ready(api, timeout=0.05)


# Uninstalling


async def test_an_install_goes_and_grants_and_namespace_stay(fake, api):
    await applied(api, wanted(groups=["dev"], probe_services=True))
    with_pods(fake)
    deleted = await removed(api)
    assert fake.names() == GRANTED | {"namespace/tunstack"}
    probing = {"tunstack/role/tunstack", "tunstack/rolebinding/tunstack"}
    assert set(deleted) == INSTALLED | probing
    assert deleted[0] == "tunstack/deployment/tunstack"


async def test_an_install_goes_in_its_namespace_only(fake, api):
    await applied(api, wanted("tunstack"))
    await applied(api, wanted("tools", ["dev"]))
    others = {name for name in fake.names() if "tools" in name}
    await removed(api, "tunstack")
    assert fake.names() == others | {"namespace/tunstack"}


async def test_everything_goes_from_everywhere(fake, api):
    await applied(api, wanted("tunstack", ["dev"]))
    await applied(api, wanted("tools", ["ops"]))
    with_pods(fake, "tools")
    orphan = document("ReplicaSet", "tunstack-old", "shop", labels=OURS)
    fake.load(REPLICA_SETS, orphan)
    fake.load(PODS, pod("tunstack-old-x", "shop", labels=OURS), pod("web", "shop"))
    fake.load(NAMESPACES, document("Namespace", "shop"))
    deleted = await removed(api, None)
    assert fake.names() == {"namespace/shop", "shop/pod/web"}
    for name in (
        "namespace/tunstack",
        "namespace/tools",
        "tools/rolebinding/tunstack-user:ops",
        "clusterrole/tunstack-tools",
        "shop/replicaset/tunstack-old",
        "shop/pod/tunstack-old-x",
    ):
        assert name in deleted
    assert "tools/pod/tunstack-7-a" not in deleted


@pytest.mark.parametrize("namespace", ["tunstack", None])
async def test_where_nothing_is_there_is_nothing_to_do(fake, api, namespace):
    fake.load(PODS, pod("web"))
    assert await removed(api, namespace) == []
    assert fake.names() == {"tunstack/pod/web"}
    assert fake.asked("DELETE") == []


async def test_what_is_left_after_deletions_by_hand_goes(fake, api):
    await applied(api, wanted())
    await fake.remove(DEPLOYMENTS, "tunstack", "tunstack")
    await fake.remove("/api/v1/serviceaccounts", "tunstack", "tunstack")
    deleted = await removed(api)
    assert "tunstack/deployment/tunstack" not in deleted
    assert fake.names() == {"namespace/tunstack"}
    assert await removed(api) == []


async def test_a_kind_that_the_cluster_does_not_know_is_passed_over(fake, api):
    await applied(api, wanted())
    fake.unknown.add("/apis/policy/v1/poddisruptionbudgets")
    fake.objects["/apis/policy/v1/poddisruptionbudgets"].clear()
    await removed(api)
    assert fake.names() == {"namespace/tunstack"}


async def test_the_end_of_the_pods_is_awaited(fake, api):
    await applied(api, wanted())
    with_pods(fake)
    fake.lasting.add(DEPLOYMENTS)
    steps = []

    def progress(text):
        steps.append(text)
        if text == "waiting for deployment/tunstack to be gone":
            fake.lasting.clear()
            for collection in (DEPLOYMENTS, REPLICA_SETS):
                fake.objects[collection].clear()
        if text == "waiting for pod/tunstack-7-a to be gone":
            fake.objects[PODS].clear()

    await removed(api, progress=progress)
    assert steps[0] == "deleting deployment/tunstack"
    assert steps[-1] == "waiting for pod/tunstack-7-a to be gone"
    assert fake.names() == {"namespace/tunstack"}


async def test_what_does_not_go_is_named(fake, api):
    await applied(api, wanted())
    fake.lasting.add(DEPLOYMENTS)
    with pytest.raises(ClusterError, match="not everything is gone") as caught:
        await removed(api, timeout=0.1)
    assert "after 0.1 s (--timeout): deployment/tunstack" in str(caught.value)


async def test_what_is_gone_in_the_meantime_was_not_deleted_by_us(fake, api):
    await applied(api, wanted())
    path = "/api/v1/namespaces/tunstack/services/tunstack"
    fake.refused["DELETE", path] = 404, "services tunstack not found"

    def progress(text):
        if text == "deleting service/tunstack":
            fake.objects["/api/v1/services"].clear()

    deleted = await removed(api, progress=progress)
    assert "tunstack/service/tunstack" not in deleted
    assert "tunstack/deployment/tunstack" in deleted


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/apis/apps/v1/namespaces/tunstack/deployments"),
        ("DELETE", "/apis/apps/v1/namespaces/tunstack/deployments/tunstack"),
    ],
)
async def test_whoever_may_not_uninstall_is_told(fake, api, method, path):
    await applied(api, wanted())
    before = fake.names()
    fake.refused[method, path] = 403, "deployments is forbidden"
    with pytest.raises(ApiError, match="deployments is forbidden"):
        await removed(api)
    assert fake.names() == before


async def test_what_is_deleted_takes_along_what_it_owns(fake, api):
    await applied(api, wanted())
    await removed(api)
    bodies = [body for method, _, _, body in fake.requests if method == "DELETE"]
    assert {body["propagationPolicy"] for body in bodies} == {"Foreground"}
