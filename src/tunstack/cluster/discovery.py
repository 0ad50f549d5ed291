"""What clients should know of the cluster, from its objects, followed as they change.

* Services: ``ServiceCIDR`` objects (Kubernetes 1.33, or 1.31 where switched on). Without
  them the API server is asked to make a service with an impossible address, without
  making it: its refusal names the range. Where that is not allowed either, the addresses
  of the services there are show it.
* Pods: the nodes' ``podCIDRs``, and around the addresses of pods that are in none of
  them; pods on their node's own network do not count.
* The domain: behind ``svc.`` in the search list of the pod that this runs in.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunstack.cluster.api import Api, ApiError, Object
from tunstack.cluster.names import NAME
from tunstack.cluster.reflector import Reflector
from tunstack.cluster.subnets import (
    Address,
    around,
    cover,
    parse_addresses,
    parse_networks,
    pod_networks,
    within,
)
from tunstack.config import Network
from tunstack.errors import TunstackError

_log = logging.getLogger(__name__)

SETTLE = 0.1
"""Seconds from a change until it is told: changes come in swarms."""

_AGAIN = 1.0
"""Seconds between two attempts to begin."""

_SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"

_RANGE = re.compile(r"range of valid IPs is ([0-9a-fA-F.:/]+)")
"""In the refusal of a service (k8s.io/kubernetes/pkg/registry/core/service/ipallocator)."""

_IMPOSSIBLE = "1.1.1.1"
"""In no cluster's range, for it is somebody's on the Internet."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is."""

    subnets: tuple[Network, ...] = ()
    namespaces: tuple[str, ...] = ()
    identity: str = ""
    """The UID of ``kube-system``, which is as good as the cluster's own."""
    service: tuple[Address, ...] = ()
    """The ClusterIPs of the manager's own service."""


class Discovery:
    """Follows the cluster until :meth:`close`.

    Args:
        api: with the manager's own credentials.
        namespace: that the manager runs in.
        changed: called with what there is, soon after it is another.
    """

    def __init__(self, api: Api, namespace: str, changed: Callable[[Found], None]) -> None:
        self._api = api
        self._namespace = namespace
        self._tell = changed
        self._told: Found | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._probed: tuple[Network, ...] = ()
        """The services' networks, when only a refusal says them."""
        self._pods_within: tuple[Network, ...] = ()
        self._own_service: tuple[Address, ...] = ()
        later = self._later
        self._namespaces = Reflector(api, "/api/v1/namespaces", _uid, later)
        self._nodes = Reflector(api, "/api/v1/nodes", _pod_cidrs, later)
        self._pods = Reflector(api, "/api/v1/pods", _pod_addresses, self._pods_changed)
        self._cidrs: Reflector[tuple[str, ...]] | None = None
        self._services: Reflector[tuple[str, ...]] | None = None

    async def start(self) -> None:
        """Find out everything once, however long the API server takes."""
        while True:
            try:
                await self._choose()
                break
            except TunstackError as error:
                _log.warning("the cluster is not known yet: %s", error)
                await asyncio.sleep(_AGAIN)
        services = self._cidrs or self._services
        running: list[Reflector[Any]] = [self._namespaces, self._nodes, self._pods]
        if services is not None:
            running.append(services)
        self._tasks += [asyncio.ensure_future(each.run()) for each in running]
        await asyncio.gather(*(each.synced.wait() for each in running))
        if self._timer is not None:
            self._timer.cancel()
        self._now()

    async def close(self) -> None:
        """Follow no more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _choose(self) -> None:
        """Choose what says where services are, and look up our own service."""
        self._own_service = await self._look_up_service()
        try:
            await self._api.request("GET", _SERVICE_CIDRS, query={"limit": "1"})
        except ApiError as error:
            if error.status not in (403, 404):
                raise
        else:
            self._cidrs = Reflector(self._api, _SERVICE_CIDRS, _cidrs, self._later)
            return
        self._probed = await self._probe()
        if not self._probed:
            self._services = Reflector(
                self._api, "/api/v1/services", _service_addresses, self._later
            )

    async def _look_up_service(self) -> tuple[Address, ...]:
        try:
            service = await self._api.request(
                "GET", f"/api/v1/namespaces/{self._namespace}/services/{NAME}"
            )
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            return ()
        return tuple(parse_addresses(_service_addresses(service) or ()))

    async def _probe(self) -> tuple[Network, ...]:
        """Have the API server refuse a service, and name the range."""
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"generateName": f"{NAME}-probe-"},
            "spec": {"clusterIP": _IMPOSSIBLE, "ports": [{"port": 1}]},
        }
        path = f"/api/v1/namespaces/{self._namespace}/services"
        try:
            await self._api.request("POST", path, body=service, query={"dryRun": "All"})
        except ApiError as error:
            return cover(parse_networks(_RANGE.findall(str(error))))
        return ()

    def _pods_changed(self, pods: Collection[tuple[Address, ...]]) -> None:
        """Only a pod outside of what is known is news: pods come and go all the time."""
        known = self._pods_within
        if not all(within(a, known) for addresses in pods for a in addresses):
            self._later()

    def _later(self, _new: object = None) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE, self._now)

    def _now(self) -> None:
        self._timer = None
        found = self._look()
        if found != self._told:
            self._told = found
            self._tell(found)

    def _look(self) -> Found:
        services = self._probed
        if self._cidrs is not None:
            services = cover(parse_networks(_flat(self._cidrs.items.values())))
        elif self._services is not None:
            services = around(parse_addresses(_flat(self._services.items.values())))
        self._pods_within = pod_networks(
            parse_networks(_flat(self._nodes.items.values())),
            [a for addresses in self._pods.items.values() for a in addresses],
        )
        names = {key.partition("/")[2]: uid for key, uid in self._namespaces.items.items()}
        return Found(
            subnets=(*services, *self._pods_within),
            namespaces=tuple(sorted(names)),
            identity=names.get("kube-system") or names.get(self._namespace, ""),
            service=self._own_service,
        )


def cluster_domain(resolv_conf: Path) -> str:
    """Find the cluster's domain in a pod's ``resolv.conf``; else say the usual one."""
    try:
        text = resolv_conf.read_text("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "search":
            # In a namespace called "svc" its own domain begins so, too, and is longer.
            domains = [
                word.removeprefix("svc.").rstrip(".")
                for word in words[1:]
                if word.startswith("svc.")
            ]
            if any(domains):
                return min(filter(None, domains), key=len)
    return "cluster.local"


def _flat(groups: Iterable[tuple[str, ...]]) -> Iterable[str]:
    return (text for group in groups for text in group)


def _uid(namespace: Object) -> str:
    return str(namespace["metadata"]["uid"])


def _pod_cidrs(node: Object) -> tuple[str, ...]:
    spec = node.get("spec", {})
    return tuple(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))


def _cidrs(service_cidr: Object) -> tuple[str, ...]:
    return tuple(service_cidr.get("spec", {}).get("cidrs") or ())


def _pod_addresses(pod: Object) -> tuple[Address, ...] | None:
    status = pod.get("status", {})
    if pod["spec"].get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    addresses = parse_addresses(item.get("ip", "") for item in status.get("podIPs") or ())
    return tuple(addresses) or None


def _service_addresses(service: Object) -> tuple[str, ...] | None:
    spec = service.get("spec", {})
    return tuple(spec.get("clusterIPs") or filter(None, [spec.get("clusterIP")])) or None
