"""Settings in a kubeconfig: the cluster's extension ``tunstack.io`` or ``telepresence.io``.

::

    clusters:
    - name: dev
      cluster:
        extensions:
        - name: telepresence.io
          extension:
            never-proxy: [10.10.8.9/32]
            dns: {exclude-suffixes: [.com], lookup-timeout: 4s}

Where both have a key, ``tunstack.io`` decides. Keys may be in camel case, too.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunstack.cluster import kubeconfig
from tunstack.cluster.kubeconfig import Entry, KubeconfigError
from tunstack.config import ClusterConfig

NAMES = ("telepresence.io", "tunstack.io")
"""Of the extensions; a later one decides."""

KEYS = {
    "also-proxy": "routing.also_proxy",
    "never-proxy": "routing.never_proxy",
    "dns.include-suffixes": "dns.include_suffixes",
    "dns.exclude-suffixes": "dns.exclude_suffixes",
    "dns.excludes": "dns.excludes",
    "dns.mappings": "dns.mappings",
    "dns.search": "dns.search",
    "dns.force-namespaces": "dns.force_namespaces",
    "dns.local-ip": "dns.local_ip",
    "dns.lookup-timeout": "dns.lookup_timeout",
    "manager.namespace": "cluster.manager_namespace",
}
"""The setting that each key is."""


def find(
    settings: ClusterConfig, environment: Mapping[str, str]
) -> dict[str, tuple[str, object]]:
    """Read those of the cluster that a kubeconfig leads to; see :func:`read`.

    Raises:
        KubeconfigError: as :func:`~.kubeconfig.choose` and :func:`read`.
    """
    home = kubeconfig.home_of(environment)
    return read(kubeconfig.choose(settings, environment, home).cluster)


def read(cluster: Entry) -> dict[str, tuple[str, object]]:
    """Give the settings of a cluster's extensions, with where each stands.

    Raises:
        KubeconfigError: there is no such key; names the nearest.
    """
    extensions = cluster.value.get("extensions") or []
    if not isinstance(extensions, list):
        raise KubeconfigError(f"{cluster}: extensions is not a list")
    found = {e.get("name"): e.get("extension") for e in extensions if isinstance(e, dict)}
    settings: dict[str, tuple[str, object]] = {}
    for name in NAMES:
        extension = found.get(name) or {}
        source = f"{cluster}, extension {name}"
        if not isinstance(extension, dict):
            raise KubeconfigError(f"{source}: it has no keys")
        for key, value in _flat(extension):
            setting = KEYS.get(key)
            if setting is None:
                nearest = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.0)[0]
                raise KubeconfigError(
                    f"{source}: there is no key {key}", hint=f"did you mean {nearest}?"
                )
            settings[setting] = source, value
    return settings


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = prefix + re.sub(r"(?<=[a-z])[A-Z]", r"-\g<0>", str(key)).lower()
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
