"""kubeconfig, read as kubectl reads it.

The rules are those of client-go's ``clientcmd``
(kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig):

* ``--kubeconfig`` names the one file, which must exist. Else ``KUBECONFIG`` lists files, of
  which some may be missing. Else it is ``~/.kube/config``.
* Files are merged: the first that names a context, cluster, user or the current context
  decides on it, whole. A relative path is relative to the file that says it.

The libraries for Kubernetes differ from that in what people notice: kr8s 0.20 looks for
every relative path beside one file, takes the first context when none is current, knows
no ``tokenFile`` and leaves private keys in files; kubernetes-asyncio 36 has the last
``current-context`` win, prefers ``token`` over ``tokenFile``, and gives exec plugins no
``spec.cluster``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tunstack.config import ClusterConfig
from tunstack.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its own credentials."""

IN_CLUSTER = "in-cluster"
"""What the context of a pod without a kubeconfig is called here."""

_KINDS = {"context": "contexts", "cluster": "clusters", "user": "users"}


class KubeconfigError(ConfigError):
    """A kubeconfig is not there or not right; says which file and what."""

    hint = "correct the kubeconfig, or choose another with --kubeconfig or --context"


@dataclass(frozen=True, slots=True)
class Entry:
    """A named part of a kubeconfig, and the file that says it."""

    kind: str
    """``context``, ``cluster`` or ``user``."""
    name: str
    value: Mapping[str, Any]
    file: Path
    context: str | None = None
    """The context that it was chosen by."""

    def __str__(self) -> str:
        by = "" if self.context is None else f"context {self.context}: "
        return f"{self.file}: {by}{self.kind} {self.name}"

    def text(self, key: str) -> str | None:
        """Give what must be text; empty is as good as absent.

        Raises:
            KubeconfigError: it is something else.
        """
        value = self.value.get(key)
        if value is not None and not isinstance(value, str):
            raise KubeconfigError(f"{self}: {key} is not text: {value!r}")
        return value or None

    def path(self, key: str) -> Path | None:
        """Give the path that a key says, from where its file lies."""
        text = self.text(key)
        return None if text is None else self.file.parent / text


@dataclass(frozen=True, slots=True)
class Context:
    """What is to be talked to, and as whom."""

    name: str
    namespace: str
    cluster: Entry
    user: Entry


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """All files, merged."""

    files: tuple[Path, ...]
    """Those that were looked for, whether they exist or not."""
    current: str | None
    """The current context."""
    entries: Mapping[tuple[str, str], Entry]
    """By kind and name."""

    def context(self, name: str | None = None, namespace: str | None = None) -> Context:
        """Choose a context.

        Args:
            name: instead of the current one.
            namespace: instead of the context's own.

        Raises:
            KubeconfigError: there is none, or it is not whole.
        """
        files = " or ".join(map(str, self.files))
        name = name or self.current
        if not self.entries:
            raise KubeconfigError(
                f"no kubeconfig: there is nothing in {files}",
                hint="name one with --kubeconfig or KUBECONFIG, or a manager with"
                " --manager",
            )
        if name is None:
            raise KubeconfigError(
                f"{files}: there is no current-context",
                hint=f"say --context: there is {self._names('context')}",
            )
        context = self.entries.get(("context", name))
        if context is None:
            raise KubeconfigError(
                f"{files}: there is no context {name}",
                hint=f"say --context: there is {self._names('context')}",
            )
        cluster = self._part(context, "cluster")
        # kubectl talks as nobody when a context names no user.
        user = Entry("user", "", {}, context.file, name)
        if context.text("user") is not None:
            user = self._part(context, "user")
        namespace = namespace or context.text("namespace") or "default"
        return Context(name, namespace, cluster, user)

    def _part(self, context: Entry, kind: str) -> Entry:
        name = context.text(kind)
        if name is None:
            raise KubeconfigError(f"{context} names no {kind}")
        part = self.entries.get((kind, name))
        if part is None:
            raise KubeconfigError(
                f"{context} names the {kind} {name}, which is in none of the files",
                hint=f"there is {self._names(kind)}",
            )
        return replace(part, context=context.name)

    def _names(self, kind: str) -> str:
        names = sorted(name for found, name in self.entries if found == kind)
        return ", ".join(names) or f"no {kind}"


def home_of(environment: Mapping[str, str]) -> Path:
    """Say where the home of somebody with that environment is."""
    return Path(environment.get("HOME") or Path.home())


def choose(settings: ClusterConfig, environment: Mapping[str, str], home: Path) -> Context:
    """Give the context that settings lead to; in a pod without any kubeconfig its own.

    Raises:
        KubeconfigError: there is none, or it is not right.
    """
    explicit = None if settings.kubeconfig is None else Path(settings.kubeconfig)
    found = load(explicit, environment, home)
    if not found.entries and explicit is None and settings.context is None:
        own = in_cluster(environment)
        if own is not None:
            namespace = settings.namespace or own.namespace
            return Context(own.name, namespace, own.cluster, own.user)
    return found.context(settings.context, settings.namespace)


def load(explicit: Path | None, environment: Mapping[str, str], home: Path) -> Kubeconfig:
    """Read the files that kubectl would read.

    Args:
        explicit: of ``--kubeconfig``.
        environment: for ``KUBECONFIG``.
        home: where ``.kube/config`` lies.

    Raises:
        KubeconfigError: a file cannot be read, or is not a kubeconfig.
    """
    files: tuple[Path, ...]
    if explicit is not None:
        files = (explicit,)
        if not explicit.exists():
            raise KubeconfigError(f"the kubeconfig {explicit} does not exist")
    else:
        listed = environment.get("KUBECONFIG", "").split(os.pathsep)
        named = dict.fromkeys(Path(item) for item in listed if item)
        files = tuple(named) or (home / ".kube/config",)
    entries: dict[tuple[str, str], Entry] = {}
    current = None
    for file in files:
        document = _read(file)
        found = document.get("current-context")
        current = current or (str(found) if found else None)
        for kind in _KINDS:
            for entry in _entries(document, kind, file):
                entries.setdefault((kind, entry.name), entry)
    return Kubeconfig(files, current, entries)


def in_cluster(
    environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT
) -> Context | None:
    """Give the context of the pod that this runs in; ``None`` outside of any."""
    host = environment.get("KUBERNETES_SERVICE_HOST")
    port = environment.get("KUBERNETES_SERVICE_PORT")
    if not (host and port and (folder / "token").exists()):
        return None
    host = f"[{host}]" if ":" in host else host
    try:
        namespace = (folder / "namespace").read_text("utf-8").strip()
    except OSError:
        namespace = "default"
    server: dict[str, Any] = {
        "server": f"https://{host}:{port}",
        "certificate-authority": str(folder / "ca.crt"),
    }
    user: dict[str, Any] = {"tokenFile": str(folder / "token")}
    return Context(
        IN_CLUSTER,
        namespace,
        Entry("cluster", IN_CLUSTER, server, folder / "ca.crt"),
        Entry("user", IN_CLUSTER, user, folder / "token"),
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = yaml.load(file.read_bytes(), yaml.CSafeLoader)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise KubeconfigError(f"{file} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise KubeconfigError(f"{file} is not YAML: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"{file} is not a kubeconfig: it has no keys")
    if document.get("kind", "Config") != "Config":
        raise KubeconfigError(f"{file} is not a kubeconfig: its kind is {document['kind']}")
    return document


def _entries(document: Mapping[str, Any], kind: str, file: Path) -> list[Entry]:
    items = document.get(_KINDS[kind]) or []
    if not isinstance(items, list):
        raise KubeconfigError(f"{file}: {_KINDS[kind]} is not a list")
    entries = []
    for item in items:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            raise KubeconfigError(f"{file}: an item of {_KINDS[kind]} has no name")
        value = item.get(kind) or {}
        if not isinstance(value, dict):
            raise KubeconfigError(f"{file}: {kind} {name} has no keys")
        entries.append(Entry(kind, name, value, file))
    return entries
