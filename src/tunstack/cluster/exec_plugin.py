"""Exec plugins: programs that a kubeconfig has asked for credentials.

The protocol is that of ``client.authentication.k8s.io/v1`` and ``v1beta1``
(kubernetes.io/docs/reference/access-authn-authz/authentication, client-go credential
plugins).
"""

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from tunstack.cluster.kubeconfig import Context, Entry, KubeconfigError

_VERSIONS = (
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
)

_CONFIG_EXTENSION = "client.authentication.k8s.io/exec"
"""Of the cluster's extensions, the one that the plugin is given."""


def run(
    context: Context,
    *,
    ca: str | None,
    environment: Mapping[str, str],
    interactive: bool,
    timeout: float,
) -> Mapping[str, Any]:
    """Run the plugin of a context's user; gives the ``status`` of what it says.

    Args:
        context: whose user has ``exec``.
        ca: base64 of the cluster's authorities, for plugins that are told the cluster.
        environment: to which the kubeconfig's own variables are added.
        interactive: there is a terminal that it may ask on.
        timeout: seconds (``timeouts.exec_plugin``).

    Raises:
        KubeconfigError: it is not described well, or fails, or says nothing of use.
    """
    user = context.user
    spec = user.value["exec"]
    if not isinstance(spec, dict) or not isinstance(spec.get("command"), str):
        raise KubeconfigError(f"{user}: exec names no command")
    version = spec.get("apiVersion")
    if version not in _VERSIONS:
        raise KubeconfigError(
            f"{user}: exec: apiVersion {version} is not one of {', '.join(_VERSIONS)}"
        )
    mode = spec.get("interactiveMode", "IfAvailable")
    if mode == "Always" and not interactive:
        raise KubeconfigError(
            f"{user}: exec: {spec['command']} wants a terminal (interactiveMode: Always)",
            hint="run this in a terminal",
        )
    interactive = interactive and mode != "Never"
    info: dict[str, Any] = {"interactive": interactive}
    if spec.get("provideClusterInfo"):
        info["cluster"] = _cluster_info(context.cluster, ca)
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": info}
    command = _command(user, spec["command"])
    try:
        done = subprocess.run(
            [command, *map(str, spec.get("args") or [])],
            env={
                **environment,
                **{item["name"]: str(item["value"]) for item in spec.get("env") or []},
                "KUBERNETES_EXEC_INFO": json.dumps(request),
            },
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE,
            timeout=timeout,
            check=False,
            # Under sudo the caller is only our effective user: for the plugin it is all.
            user=os.geteuid(),
            group=os.getegid(),
        )
    except subprocess.TimeoutExpired:
        raise KubeconfigError(
            f"{user}: the exec plugin {command} timed out after {timeout:g} s"
            " (timeouts.exec_plugin)"
        ) from None
    except (OSError, KeyError, TypeError, ValueError) as exc:
        hint = spec.get("installHint")
        raise KubeconfigError(
            f"{user}: the exec plugin {command} cannot be run: {exc}",
            hint=hint if isinstance(hint, str) else None,
        ) from exc
    if done.returncode:
        said = (done.stderr or b"").decode("utf-8", "replace").strip()
        raise KubeconfigError(
            f"{user}: the exec plugin {command} failed with code {done.returncode}"
            + (f": {said[-500:]}" if said else ""),
            hint="run it by hand, or log in again",
        )
    return _status(user, command, version, done.stdout)


def _command(user: Entry, command: str) -> str:
    """Give the path: one with a slash is relative to the kubeconfig."""
    return str(user.file.parent.absolute() / command) if os.sep in command else command


def _status(user: Entry, command: str, version: str, output: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(output)
        status: Mapping[str, Any] = said["status"]
        if said["kind"] != "ExecCredential" or said["apiVersion"] != version:
            raise ValueError(f"{said['kind']} of {said['apiVersion']}, not {version}")
        for key in ("token", "clientCertificateData", "clientKeyData"):
            if not isinstance(status.get(key), str | None):
                raise ValueError(f"{key} is not text")
        certificate = status.get("clientCertificateData"), status.get("clientKeyData")
        if bool(certificate[0]) != bool(certificate[1]):
            raise ValueError("half a pair of certificate and key")
        if not (status.get("token") or certificate[0]):
            raise ValueError("neither a token nor a certificate")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise KubeconfigError(
            f"{user}: the exec plugin {command} gave no credentials: {exc!r}"
        ) from exc
    return status


def _cluster_info(cluster: Entry, ca: str | None) -> dict[str, Any]:
    info: dict[str, Any] = {"server": cluster.value.get("server")}
    for key in ("tls-server-name", "insecure-skip-tls-verify", "proxy-url"):
        if cluster.value.get(key):
            info[key] = cluster.value[key]
    if ca is not None:
        info["certificate-authority-data"] = ca
    extensions = cluster.value.get("extensions") or []
    if not isinstance(extensions, list):
        raise KubeconfigError(f"{cluster}: extensions is not a list")
    for extension in extensions:
        if isinstance(extension, dict) and extension.get("name") == _CONFIG_EXTENSION:
            info["config"] = extension.get("extension")
    return info
