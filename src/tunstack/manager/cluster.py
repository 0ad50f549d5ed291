"""What clients are told of the cluster: by hand, or as Kubernetes has it, followed."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from tunstack.cluster.access import Access
from tunstack.cluster.api import Api
from tunstack.cluster.discovery import Discovery, Found
from tunstack.cluster.names import HEALTH_PORT
from tunstack.config import Network
from tunstack.errors import TunstackError
from tunstack.manager.config import ManagerConfig
from tunstack.rpc import tunnel_pb2 as pb

_log = logging.getLogger(__name__)

RENEW = 60.0
"""Seconds after which the token file is read again: Kubernetes replaces the token before
its hour is over."""

AUDIENCE = "tunstack"
"""Whom a bearer token has to be made out to, so that no other token of its owner is."""


class Kubernetes:
    """Follows the cluster that this runs in.

    Args:
        access: with the credentials of the pod; read again from time to time.
        config: of the manager.
        changed: called with what there is, when it is another.
    """

    def __init__(
        self,
        access: Callable[[], Access],
        config: ManagerConfig,
        changed: Callable[[Found], None],
    ) -> None:
        self._access = access
        first = access()
        self._api = Api(first, timeout=config.api_request)
        self.namespace = first.namespace
        self._discovery = Discovery(self._api, first.namespace, changed)
        self._renewal = asyncio.ensure_future(self._renew())

    async def start(self) -> None:
        """Find out everything once, however long the API server takes."""
        await self._discovery.start()

    async def close(self) -> None:
        """Follow no more."""
        self._renewal.cancel()
        await self._discovery.close()
        await self._api.close()

    async def knows(self, token: str) -> str | None:
        """Ask the API server whose token this is (``TokenReview``); ``None``: nobody's.

        Raises:
            ClusterError: it cannot be asked.
        """
        review = await self._api.request(
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            },
        )
        status = review.get("status", {})
        # A server that knows no audiences answers without any.
        if not status.get("authenticated") or AUDIENCE not in status.get("audiences", ()):
            return None
        return str(status.get("user", {}).get("username", ""))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW)
            try:
                self._api.use(await asyncio.to_thread(self._access))
            except TunstackError as error:
                _log.error("the account of the pod stays as it was read: %s", error)


class View:
    """The cluster as clients are told of it.

    Args:
        config: what is said by hand.
        icmp: echo requests can be sent.
    """

    def __init__(self, config: ManagerConfig, *, icmp: bool) -> None:
        self._config = config
        self._icmp = icmp
        self._found = Found(
            subnets=tuple(config.subnets), namespaces=tuple(config.namespaces)
        )
        self.namespace = config.namespace
        self.info = self._info()

    def take(self, found: Found) -> list[pb.FromManager]:
        """Take what was found in Kubernetes; gives the news.

        Returns:
            What clients are to be told: one message for those that speak version 1, and
            behind it one for the others.
        """
        config = self._config
        found = replace(
            found,
            subnets=(*config.subnets, *found.subnets),
            namespaces=tuple(sorted({*config.namespaces, *found.namespaces})),
        )
        before, self._found = self._found, found
        self.info = self._info()
        whole = pb.FromManager(cluster=self.info)
        if replace(before, namespaces=found.namespaces) != found:
            return [whole, whole]
        old, new = set(before.namespaces), set(found.namespaces)
        change = pb.NamespacesChange(added=sorted(new - old), removed=sorted(old - new))
        return [whole, pb.FromManager(namespaces_change=change)]

    @property
    def identity(self) -> str:
        """What tells this cluster from others; empty when that is not known."""
        return self._found.identity

    def _info(self) -> pb.ClusterInfo:
        config, found = self._config, self._found
        probes = [
            pb.Probe(address=address.packed, port=HEALTH_PORT)
            for address in (*config.pod_addresses, *found.service)
        ]
        return pb.ClusterInfo(
            subnets=[_subnet(subnet) for subnet in found.subnets],
            namespaces=found.namespaces,
            cluster_domain=config.cluster_domain,
            manager_namespace=self.namespace,
            icmp=self._icmp,
            probes=probes if found.identity else [],
            identity=found.identity,
        )


def _subnet(subnet: Network) -> pb.Subnet:
    return pb.Subnet(address=subnet.network_address.packed, prefix_length=subnet.prefixlen)
