"""Install the manager, and uninstall it: by label, not by a record of what was done.

What is there is always found out anew, so both work from any state: after deletions by
hand, and with what an earlier version or an attempt that failed has left.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from tunstack._version import PRODUCT
from tunstack.cluster import manifests
from tunstack.cluster.api import Api, ApiError, Object
from tunstack.cluster.manifests import Install
from tunstack.cluster.names import COMPONENT, LABEL, MANAGERS, NAME, SELECTOR
from tunstack.cluster.pods import is_ready, why_not
from tunstack.errors import ClusterError

FIELD_MANAGER = NAME
"""Whose the fields are that an apply sets (server-side apply)."""

_POLL = 0.25
"""Seconds between two looks."""

_HASH = "pod-template-hash"
"""The label of a ReplicaSet and its pods."""

_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError")
"""Why a pod will never run, however long one waits."""

_FIXED = ("immutable", "cannot change roleRef")
"""How a server says that a field cannot be changed, only the object replaced."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that we make."""

    version: str
    name: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Give the path of its collection, in one namespace or in all, or of one object."""
        root = "/api/" if "/" not in self.version else "/apis/"
        where = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        # The names of groups are in those of bindings: any character may be there.
        which = f"/{quote(name, safe=':')}" if name else ""
        return f"{root}{self.version}{where}/{self.plural}{which}"


_RBAC = "rbac.authorization.k8s.io/v1"

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
POD = Kind("v1", "Pod", "pods")

KINDS = (
    DEPLOYMENT,
    REPLICA_SET,
    POD,
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("v1", "Service", "services"),
    Kind(_RBAC, "RoleBinding", "rolebindings"),
    Kind(_RBAC, "Role", "roles"),
    Kind(_RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    Kind(_RBAC, "ClusterRole", "clusterroles", namespaced=False),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
)
"""In an order in which they can be deleted. Those that controllers make may be orphans."""

_BY_NAME = {kind.name: kind for kind in (NAMESPACE, *KINDS)}


async def current(api: Api, namespace: str) -> Object | None:
    """Give the Deployment that is installed; ``None`` when there is none."""
    try:
        return await api.request("GET", DEPLOYMENT.path(namespace, NAME))
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def has_service_cidrs(api: Api) -> bool:
    """Whether the API server says by objects where services are."""
    try:
        group = await api.request("GET", "/apis/networking.k8s.io/v1")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return any(resource["name"] == "servicecidrs" for resource in group["resources"])


async def apply(
    api: Api, objects: Iterable[Object], progress: Progress, *, dry_run: bool = False
) -> list[str]:
    """Make objects what they shall be, by server-side apply.

    Args:
        api: with an administrator's rights.
        objects: in an order in which they can be made.
        progress: told of each.
        dry_run: have the server check it, and change nothing.

    Returns:
        What was applied, as ``kind/name``.

    Raises:
        ApiError: one is refused; those before it stay.
    """
    applied = []
    for document in objects:
        name = f"{document['kind'].lower()}/{document['metadata']['name']}"
        progress(f"applying {name}")
        await _apply(api, document, dry_run)
        applied.append(name)
    return applied


async def prune(
    api: Api, namespace: str, objects: Iterable[Object], progress: Progress
) -> None:
    """Delete what an earlier install in this namespace had and this one has not.

    Raises:
        ApiError: something may not be listed or deleted.
    """
    wanted = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for kind in KINDS:
        if kind in (REPLICA_SET, POD):
            continue
        for found in await _ours(api, kind, namespace):
            name = found["metadata"]["name"]
            if (kind.name, name) not in wanted:
                progress(f"deleting {kind.name.lower()}/{name}")
                await _delete(api, kind, found["metadata"].get("namespace"), name)


async def prepare_namespace(
    api: Api, namespace: str, progress: Progress, timeout: float
) -> list[Object]:
    """See to it that there can be a namespace; gives what is to be applied for that.

    One that exists is left as it is: only what we have made bears our label, and only
    that is deleted by ``uninstall --everything``. One that is on its way out is awaited.

    Raises:
        ClusterError: it does not go.
    """
    async for _ in _Looks(timeout, f"the namespace {namespace} is being deleted"):
        try:
            found = await api.request("GET", NAMESPACE.path(name=namespace))
        except ApiError as error:
            if error.status != 404:
                raise
            return [manifests.namespace(namespace)]
        if "deletionTimestamp" not in found["metadata"]:
            ours = found["metadata"].get("labels", {}).get(LABEL) == NAME
            return [manifests.namespace(namespace)] if ours else []
        progress(f"waiting for the namespace {namespace} to be gone")
    raise AssertionError  # it was raised


async def wait_ready(
    api: Api, install: Install, progress: Progress, timeout: float
) -> None:
    """Wait until every replica serves, of the Deployment as it is now.

    Raises:
        ClusterError: they do not; says why.
    """
    looks = _Looks(timeout, "the traffic manager does not get ready")
    async for _ in looks:
        deployment = await api.request("GET", DEPLOYMENT.path(install.namespace, NAME))
        if _rolled_out(deployment):
            return
        waiting = [pod for pod in await _pods(api, deployment) if not is_ready(pod)]
        if waiting:
            youngest = max(waiting, key=lambda pod: pod["metadata"]["creationTimestamp"])
            said = f"{youngest['metadata']['name']}: {why_not(youngest)}"
        else:
            said = _condition(deployment)
        looks.why = said
        progress(said)
        if any(word in said for word in _HOPELESS):
            raise ClusterError(
                f"the traffic manager will not get ready: {said}",
                hint="correct --image, --registry or the pull secret, and install again",
            )


async def _pods(api: Api, deployment: Object) -> list[Object]:
    """Find the pods that a Deployment wants now, and not those of its last state."""
    namespace = deployment["metadata"]["namespace"]
    managers = {"labelSelector": MANAGERS}
    sets, _ = await api.list_all(REPLICA_SET.path(namespace), managers)
    hashes = {
        found["metadata"]["labels"].get(_HASH)
        for found in sets
        if _revision(found) == _revision(deployment)
    }
    if deployment.get("status", {}).get("observedGeneration", 0) < _generation(deployment):
        return []
    pods, _ = await api.list_all(POD.path(namespace), managers)
    return [pod for pod in pods if pod["metadata"]["labels"].get(_HASH) in hashes]


def _revision(found: Object) -> str | None:
    annotations: dict[str, str] = found["metadata"].get("annotations") or {}
    return annotations.get("deployment.kubernetes.io/revision")


def _generation(deployment: Object) -> int:
    return int(deployment["metadata"]["generation"])


def _rolled_out(deployment: Object) -> bool:
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    seen: int = status.get("observedGeneration", 0)
    counts = ("replicas", "updatedReplicas", "availableReplicas")
    return seen >= _generation(deployment) and all(
        status.get(count, 0) == wanted for count in counts
    )


def _condition(deployment: Object) -> str:
    """Say what keeps a Deployment from making its pods: a quota, a policy."""
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return "its pods are not there yet"


async def uninstall(
    api: Api,
    namespace: str | None,
    progress: Progress,
    *,
    timeout: float,
) -> list[str]:
    """Delete what was installed, and wait until the pods are gone.

    Args:
        api: with an administrator's rights.
        namespace: of the install; users' grants and the namespace stay. ``None`` deletes
            everything of ours, wherever it is.
        progress: told of each step.
        timeout: seconds until all must be gone.

    Returns:
        What was deleted, as ``kind/name`` or ``namespace/kind/name``.

    Raises:
        ApiError: something may not be listed or deleted.
        ClusterError: something does not go.
    """
    deleted = []
    kinds = (*KINDS, NAMESPACE) if namespace is None else KINDS
    for kind in kinds:
        for found in await _ours(api, kind, namespace):
            metadata = found["metadata"]
            where = metadata.get("namespace")
            name = f"{kind.name.lower()}/{metadata['name']}"
            if kind in (REPLICA_SET, POD) and metadata.get("ownerReferences"):
                continue  # its owner's deletion takes it along
            progress(f"deleting {name}")
            if await _delete(api, kind, where, metadata["name"]):
                deleted.append(f"{where}/{name}" if where else name)
    looks = _Looks(timeout, "not everything is gone")
    async for _ in looks:
        left = [
            f"{kind.name.lower()}/{found['metadata']['name']}"
            for kind in kinds
            for found in await _ours(api, kind, namespace)
        ]
        if not left:
            break
        looks.why = ", ".join(left)
        progress(f"waiting for {left[0]} to be gone")
    return deleted


async def _ours(api: Api, kind: Kind, namespace: str | None) -> Sequence[Object]:
    """Find what bears our label: of one install, or all there is."""
    selector = SELECTOR if namespace is None else f"{SELECTOR},{COMPONENT}=manager"
    try:
        found, _ = await api.list_all(kind.path(namespace), {"labelSelector": selector})
    except ApiError as error:
        if error.status == 404:  # this cluster does not know the kind
            return []
        raise
    if namespace is not None and not kind.namespaced:
        name = manifests.global_name(namespace)
        return [each for each in found if each["metadata"]["name"] == name]
    return found


async def _delete(api: Api, kind: Kind, namespace: str | None, name: str) -> bool:
    """Delete one object; returns whether it was there."""
    try:
        # In the foreground: what it owns goes first, so its end is the end of all.
        body = {"kind": "DeleteOptions", "apiVersion": "v1"}
        await api.request(
            "DELETE",
            kind.path(namespace, name),
            body={**body, "propagationPolicy": "Foreground"},
        )
    except ApiError as error:
        if error.status in (404, 409):  # it is gone, or going
            return False
        raise
    return True


async def _apply(api: Api, document: Object, dry_run: bool) -> None:
    kind = _BY_NAME[document["kind"]]
    metadata = document["metadata"]
    path = kind.path(metadata.get("namespace"), metadata["name"])
    query = {"fieldManager": FIELD_MANAGER, "force": "true"}
    if dry_run:
        query["dryRun"] = "All"
    for attempt in range(2):
        try:
            await api.request(
                "PATCH",
                path,
                body=document,
                content_type="application/apply-patch+yaml",
                query=query,
            )
            return
        except ApiError as error:
            # A selector or a roleRef of another install.
            fixed = any(words in str(error) for words in _FIXED)
            if dry_run or attempt or error.status != 422 or not fixed:
                raise
            await _delete(api, kind, metadata.get("namespace"), metadata["name"])
            await _gone(api, path)


async def _gone(api: Api, path: str) -> None:
    async for _ in _Looks(60, f"{path} is being deleted", setting=""):
        try:
            await api.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return
            raise


class _Looks:
    """Look again and again, for so many seconds: an asynchronous iterator.

    Raises:
        ClusterError: the time is up.
    """

    def __init__(self, timeout: float, what: str, *, setting: str = " (--timeout)") -> None:
        self._timeout = timeout
        self._what = what
        self._setting = setting
        self.why = ""
        """The latest reason, for the error."""

    async def __aiter__(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while loop.time() < deadline:
            yield
            await asyncio.sleep(_POLL)
        raise ClusterError(
            f"{self._what}, after {self._timeout:g} s{self._setting}"
            + (f": {self.why}" if self.why else ""),
            hint="see `kubectl describe` of it; what was done stays, and can be repeated",
        )


def version_of(deployment: Object) -> str:
    """Say which version of tunstack a Deployment is of."""
    labels = deployment["metadata"].get("labels") or {}
    return str(labels.get("app.kubernetes.io/version", "an unknown version"))


def is_ours(deployment: Object) -> bool:
    """Whether a Deployment is of this very version."""
    return version_of(deployment) == PRODUCT
