"""Which pod is taken, and why there is none."""

import pytest

from tests.cluster.fake_api import PODS, pod
from tunstack.cluster.names import COMPONENT, LABEL
from tunstack.cluster.pods import NotInstalled, NotReady, Pod, find_manager, why_not

OURS = {LABEL: "tunstack", COMPONENT: "manager"}


def manager(name, **parts):
    return pod(name, **{"labels": OURS, **parts})


def first(names):
    return min(names)


async def test_a_ready_pod_is_taken(fake, api):
    fake.load(PODS, manager("a", ready=False), manager("b", ready=True), manager("c"))
    assert await find_manager(api, "tunstack") == Pod("tunstack", "b")


async def test_of_several_one_is_chosen(fake, api):
    fake.load(PODS, *(manager(name, ready=True) for name in "abc"))
    offered = []

    def choose(names):
        offered.extend(names)
        return "b"

    assert await find_manager(api, "tunstack", choice=choose) == Pod("tunstack", "b")
    assert sorted(offered) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("preferred", "taken"), [("b", "b"), ("c", "a"), ("d", "a"), (None, "a")]
)
async def test_a_pod_that_has_a_session_of_ours_is_preferred(fake, api, preferred, taken):
    fake.load(PODS, manager("a", ready=True), manager("b", ready=True), manager("c"))
    found = await find_manager(api, "tunstack", preferred, choice=first)
    assert found == Pod("tunstack", taken)


async def test_a_pod_that_is_about_to_go_is_not_taken(fake, api):
    going = manager("a", ready=True, deletionTimestamp="2026-01-01T00:00:00Z")
    fake.load(PODS, going, manager("b", ready=True))
    assert await find_manager(api, "tunstack", choice=first) == Pod("tunstack", "b")
    await fake.remove(PODS, "b", "tunstack")
    with pytest.raises(NotReady, match="a: it is being deleted"):
        await find_manager(api, "tunstack")


@pytest.mark.parametrize(
    "other",
    [
        pod("a", ready=True),
        pod("a", ready=True, labels={LABEL: "tunstack", COMPONENT: "grant"}),
        pod("a", ready=True, labels={COMPONENT: "manager"}),
        manager("a", namespace="shop", ready=True),
    ],
)
async def test_other_pods_are_no_manager(fake, api, other):
    fake.load(PODS, other)
    with pytest.raises(NotInstalled, match="no traffic manager") as caught:
        await find_manager(api, "tunstack")
    error = caught.value
    assert error.exit_code == 6
    for part in ("namespace tunstack", fake.url, "context dev"):
        assert part in str(error)
    assert "tunstack install" in error.hint
    assert "--manager-namespace" in error.hint


async def test_of_pods_that_are_not_ready_the_youngest_is_explained(fake, api):
    fake.load(
        PODS,
        manager("old", ready=False, creationTimestamp="2026-01-01T00:00:00Z"),
        manager(
            "new",
            status={"phase": "Pending"},
            creationTimestamp="2026-01-02T00:00:00Z",
        ),
        manager("older", ready=False, creationTimestamp="2025-01-01T00:00:00Z"),
    )
    with pytest.raises(NotReady, match="new: Pending") as caught:
        await find_manager(api, "tunstack")
    assert caught.value.exit_code == 6
    assert "kubectl -n tunstack describe pods" in caught.value.hint


def waiting(reason, message=None, **more):
    state = {"reason": reason} | ({"message": message} if message else {})
    return {"state": {"waiting": state}, **more}


def condition(kind, status, reason=None, message=None):
    found = {"type": kind, "status": status, "reason": reason, "message": message}
    return {key: value for key, value in found.items() if value is not None}


CRASHED = {"terminated": {"reason": "Error", "message": "no such option"}}


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {"containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling image")]},
            "ImagePullBackOff: Back-off pulling image",
        ),
        (
            {"containerStatuses": [waiting("ErrImageNeverPull", "Image i is not there")]},
            "ErrImageNeverPull: Image i is not there",
        ),
        (
            {"containerStatuses": [waiting("CrashLoopBackOff", "back-off 10s restarting")]},
            "CrashLoopBackOff: back-off 10s restarting",
        ),
        (
            {"containerStatuses": [waiting("CrashLoopBackOff", lastState=CRASHED)]},
            "CrashLoopBackOff: no such option",
        ),
        ({"containerStatuses": [waiting("CrashLoopBackOff")]}, "CrashLoopBackOff"),
        (
            {"containerStatuses": [{"state": CRASHED}]},
            "Error: no such option",
        ),
        (
            {
                "initContainerStatuses": [waiting("InvalidImageName", "bad name")],
                "containerStatuses": [waiting("PodInitializing")],
            },
            "InvalidImageName: bad name",
        ),
        (
            {
                "containerStatuses": [waiting("ContainerCreating")],
                "conditions": [
                    condition("Initialized", "True"),
                    condition("Ready", "False", "ContainersNotReady", "unready: [manager]"),
                ],
            },
            "ContainersNotReady: unready: [manager]",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    condition(
                        "PodScheduled",
                        "False",
                        "Unschedulable",
                        "0/3 nodes are available: 3 Insufficient cpu.",
                    )
                ],
            },
            "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            {"conditions": [condition("Ready", "False", None, "the node is lost")]},
            "Ready: the node is lost",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Running", "conditions": [condition("Ready", "False")]}, "Running"),
        ({"containerStatuses": None, "conditions": None}, "it has no status yet"),
        ({}, "it has no status yet"),
    ],
)
async def test_a_pod_that_is_not_ready_says_why(fake, api, status, why):
    fake.load(PODS, manager("a", status=status))
    with pytest.raises(NotReady) as caught:
        await find_manager(api, "tunstack")
    assert str(caught.value).endswith(f"is ready: a: {why}")


def test_a_pod_without_a_status_is_not_ready():
    assert why_not({"metadata": {"name": "a"}}) == "it has no status yet"


async def test_whoever_may_not_list_pods_is_told(fake, api):
    path = "/api/v1/namespaces/tunstack/pods"
    fake.refused["GET", path] = 403, "pods is forbidden: User ann cannot list pods"
    with pytest.raises(Exception, match="User ann cannot list pods") as caught:
        await find_manager(api, "tunstack")
    assert caught.value.exit_code == 6
