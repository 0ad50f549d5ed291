"""The objects of an install, as `kubectl apply` would take them.

Pure: settings in, objects out, in an order in which they can be made. Everything of ours
bears :data:`~.names.LABEL`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunstack._version import PRODUCT
from tunstack.cluster.names import COMPONENT, HEALTH_PORT, LABEL, NAME, PORT
from tunstack.errors import UsageError

Object = dict[str, Any]

PING_GROUPS = "net.ipv4.ping_group_range"
"""A safe sysctl: who may send echo requests without a capability (kernel's ip-sysctl)."""

UID = 65_532
"""The manager's user: what the image's `nonroot` is."""

DRAIN = 10
"""Seconds that flows have to end by themselves when a pod goes."""

_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    """What an administrator decides."""

    namespace: str = NAME
    image: str = ""
    """Whole: with registry and tag or digest."""
    replicas: int = 1
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    tls_secret: str | None = None
    """A secret of type ``kubernetes.io/tls``: the manager listens on the network, too."""
    probe_services: bool = False
    """The API server has no ``ServiceCIDR``: the manager asks it by a dry run."""

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= 100:
            raise UsageError(f"--replicas {self.replicas}: want 1 to 100")


def image_of(image: str | None, registry: str | None) -> str:
    """Put the name of the image together.

    Args:
        image: as said; a registry of its own, a tag and a digest are left as they are.
        registry: put before an image that names none.

    Raises:
        UsageError: neither is said: there is no registry that everybody can reach.
    """
    if image is None and not registry:
        raise UsageError(
            "which image? tunstack has no registry of its own",
            hint="say --registry or --image, or set TUNSTACK_REGISTRY;"
            " deploy/Dockerfile makes the image",
        )
    name = image or NAME
    first, slash, _ = name.partition("/")
    if registry and not (slash and ("." in first or ":" in first or first == "localhost")):
        name = f"{registry.rstrip('/')}/{name}"
    last = name.rpartition("/")[2]
    return name if ":" in last or "@" in last else f"{name}:{PRODUCT}"


def repository(image: str) -> str:
    """Give an image's name without tag and digest."""
    path, slash, last = image.partition("@")[0].rpartition("/")
    return path + slash + last.partition(":")[0]


def settings_of(deployment: Object) -> dict[str, Any]:
    """Give what an administrator had decided, of a Deployment that :func:`objects` gave."""
    spec = deployment["spec"]
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    secrets = [v["secret"]["secretName"] for v in pod.get("volumes") or [] if "secret" in v]
    return {
        "image": container["image"],
        "replicas": spec["replicas"],
        "pull_policy": container["imagePullPolicy"],
        "pull_secrets": tuple(s["name"] for s in pod.get("imagePullSecrets") or []),
        "tls_secret": next(iter(secrets), None),
    }


def objects(install: Install) -> list[Object]:
    """Give the objects of an install, but for its namespace."""
    return [
        _named("v1", "ServiceAccount", install.namespace),
        _cluster_role(install),
        _binding("ClusterRoleBinding", "ClusterRole", install, namespaced=False),
        *_probing(install),
        _service(install),
        _deployment(install),
        _budget(install),
    ]


def namespace(name: str) -> Object:
    """Give our namespace, which asks for the strictest of the pod security standards."""
    document = _named("v1", "Namespace", None, name=name)
    document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
    return document


def grants(namespace: str, groups: Iterable[str]) -> list[Object]:
    """Give what lets users connect, and nothing else.

    A WebSocket begins with a GET, and since Kubernetes 1.35 ``create`` is checked, too.

    Args:
        namespace: of the manager.
        groups: of users; ``system:serviceaccount:NAMESPACE:NAME`` is one account.
    """
    name = f"{NAME}-user"
    role = _named(f"{_RBAC}/v1", "Role", namespace, name=name, part="grant")
    role["rules"] = [
        _rule("", ["pods"], ["get", "list"]),
        _rule("", ["pods/portforward"], ["get", "create"]),
    ]
    found = [role]
    for group in groups:
        # One for each, so that a later grant takes nothing from an earlier one.
        bound = f"{name}:{_in_a_name(group)}"
        binding = _named(f"{_RBAC}/v1", "RoleBinding", namespace, name=bound, part="grant")
        binding["roleRef"] = {"apiGroup": _RBAC, "kind": "Role", "name": name}
        binding["subjects"] = [_subject(group)]
        found.append(binding)
    return found


def _in_a_name(group: str) -> str:
    """Give a group as a name of Kubernetes may have it, another for each group."""
    plain = group.replace("/", "-").replace("%", "-")
    if plain == group:
        return group
    return f"{plain}-{hashlib.sha256(group.encode()).hexdigest()[:10]}"


def _subject(group: str) -> Object:
    if group.startswith("system:serviceaccount:") and group.count(":") == 3:
        _, _, namespace, account = group.split(":")
        return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return {"apiGroup": _RBAC, "kind": "Group", "name": group}


def _named(
    version: str,
    kind: str,
    namespace: str | None,
    *,
    name: str = NAME,
    part: str = "manager",
) -> Object:
    metadata: Object = {
        "name": name,
        "labels": {
            LABEL: NAME,
            COMPONENT: part,
            "app.kubernetes.io/version": PRODUCT,
            "app.kubernetes.io/managed-by": NAME,
        },
    }
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _rule(group: str, resources: list[str], verbs: list[str]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _cluster_role(install: Install) -> Object:
    """What the manager sees: never a secret, and nothing that it could change."""
    role = _named(f"{_RBAC}/v1", "ClusterRole", None, name=global_name(install.namespace))
    watch = ["get", "list", "watch"]
    role["rules"] = [
        _rule("", ["namespaces", "nodes", "pods", "services"], watch),
        _rule("networking.k8s.io", ["servicecidrs"], watch),
    ]
    if install.tls_secret is not None:
        role["rules"].append(_rule("authentication.k8s.io", ["tokenreviews"], ["create"]))
    return role


def _probing(install: Install) -> list[Object]:
    """Let the manager have a service refused: see ``discovery.py``."""
    if not install.probe_services:
        return []
    role = _named(f"{_RBAC}/v1", "Role", install.namespace)
    role["rules"] = [_rule("", ["services"], ["create"])]
    return [role, _binding("RoleBinding", "Role", install, namespaced=True)]


def _binding(kind: str, role: str, install: Install, *, namespaced: bool) -> Object:
    name = NAME if namespaced else global_name(install.namespace)
    where = install.namespace if namespaced else None
    binding = _named(f"{_RBAC}/v1", kind, where, name=name)
    binding["roleRef"] = {"apiGroup": _RBAC, "kind": role, "name": name}
    binding["subjects"] = [
        {"kind": "ServiceAccount", "name": NAME, "namespace": install.namespace}
    ]
    return binding


def global_name(namespace: str) -> str:
    """Name what has no namespace, so that installs in two do not share it."""
    return NAME if namespace == NAME else f"{NAME}-{namespace}"


def _service(install: Install) -> Object:
    ports = [{"name": "health", "port": HEALTH_PORT, "targetPort": "health"}]
    if install.tls_secret is not None:
        ports.append({"name": "tunnel", "port": PORT + 1, "targetPort": "tunnel"})
    service = _named("v1", "Service", install.namespace)
    service["spec"] = {"selector": _selector(), "ports": ports}
    return service


def _selector() -> Object:
    return {LABEL: NAME, COMPONENT: "manager"}


def _budget(install: Install) -> Object:
    budget = _named("policy/v1", "PodDisruptionBudget", install.namespace)
    budget["spec"] = {
        # With one replica a minimum of one would keep nodes from being drained at all.
        "maxUnavailable": 1,
        "selector": {"matchLabels": _selector()},
    }
    return budget


def _deployment(install: Install) -> Object:
    deployment = _named("apps/v1", "Deployment", install.namespace)
    deployment["spec"] = {
        "replicas": install.replicas,
        "selector": {"matchLabels": _selector()},
        # The next is ready before the last goes, so that sessions find it.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "template": {
            "metadata": {"labels": deployment["metadata"]["labels"]},
            "spec": _pod(install),
        },
    }
    return deployment


def _pod(install: Install) -> Object:
    pod: Object = {
        "serviceAccountName": NAME,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": PING_GROUPS, "value": "0 2147483647"}],
        },
        "containers": [_container(install)],
    }
    if install.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in install.pull_secrets]
    if install.replicas > 1:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector()},
            }
        ]
    if install.tls_secret is not None:
        secret = {"secretName": install.tls_secret, "defaultMode": 0o440}
        pod["volumes"] = [{"name": "tls", "secret": secret}]
    return pod


def _container(install: Install) -> Object:
    ports = [{"name": "health", "containerPort": HEALTH_PORT}]
    arguments = [
        "manager",
        "--kubernetes",
        f"--listen=127.0.0.1:{PORT}",
        f"--health=$(POD_IP):{HEALTH_PORT}",
        f"--drain={DRAIN}",
    ]
    if install.tls_secret is not None:
        ports.append({"name": "tunnel", "containerPort": PORT + 1})
        arguments += [
            f"--network=$(POD_IP):{PORT + 1}",
            "--tls-cert=/tls/tls.crt",
            "--tls-key=/tls/tls.key",
            "--token-review",
        ]
    container: Object = {
        "name": "manager",
        "image": install.image,
        "imagePullPolicy": install.pull_policy,
        "args": arguments,
        "env": [
            _field("POD_IP", "status.podIP"),
            _field("POD_IPS", "status.podIPs"),
        ],
        "ports": ports,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/healthz", period=1, failures=60),
        "readinessProbe": _probe("/readyz", period=2, failures=1),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
    }
    if install.tls_secret is not None:
        container["volumeMounts"] = [{"name": "tls", "mountPath": "/tls", "readOnly": True}]
    return container


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
