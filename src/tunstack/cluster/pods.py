"""Which pod of the manager to talk to, and why there is none."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tunstack.cluster.api import Api, Object
from tunstack.cluster.names import MANAGERS
from tunstack.errors import ClusterError


class NotInstalled(ClusterError):
    """There is no manager in the namespace."""


class NotReady(ClusterError):
    """There is a manager, and none of its pods is ready; says why."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the manager that is ready."""

    namespace: str
    name: str


async def find_manager(
    api: Api,
    namespace: str,
    prefer: str | None = None,
    choice: Callable[[list[str]], str] = random.choice,
) -> Pod:
    """Find a ready pod of the manager, any if there are several.

    Args:
        api: where.
        namespace: of the manager.
        prefer: the pod to take if it is ready, for it has a session of ours.
        choice: chooses among the others.

    Raises:
        NotInstalled: there is no pod, ready or not.
        NotReady: none is ready.
        ApiError: the user may not list pods there.
    """
    pods, _ = await api.list_all(
        f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": MANAGERS}
    )
    if not pods:
        raise NotInstalled(
            f"there is no traffic manager in the namespace {namespace} of"
            f" {api.access.server} (context {api.access.context})",
            hint="an administrator can run `tunstack install`; --manager-namespace says"
            " where it is",
        )
    ready = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
    if not ready:
        # The youngest is the one that is on its way.
        pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        raise NotReady(
            f"no pod of the traffic manager in the namespace {namespace} is ready:"
            f" {pod['metadata']['name']}: {why_not(pod)}",
            hint=f"see `kubectl -n {namespace} describe pods`",
        )
    if prefer is None or prefer not in ready:
        prefer = choice(ready)
    return Pod(namespace, prefer)


def is_ready(pod: Object) -> bool:
    """Whether a pod says that it serves, and is not about to go."""
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions") or []
    )


def why_not(pod: Object) -> str:
    """Say why a pod is not ready, as `kubectl describe` would show it."""
    if "deletionTimestamp" in pod["metadata"]:
        return "it is being deleted"
    status = pod.get("status", {})
    containers = (
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    )
    for container in containers:
        state = container.get("state", {})
        for kind in ("waiting", "terminated"):
            detail = state.get(kind, {})
            last = container.get("lastState", {}).get("terminated", {})
            if detail.get("reason") not in (None, "ContainerCreating", "Completed"):
                message = detail.get("message") or last.get("message") or ""
                return f"{detail['reason']}: {message}".strip(": \n")
    for condition in status.get("conditions") or []:
        if condition["status"] != "True" and condition.get("message"):
            return f"{condition.get('reason', condition['type'])}: {condition['message']}"
    return str(status.get("reason") or status.get("phase") or "it has no status yet")
