"""What there is of one kind in the cluster, followed: list, then watch, and again.

So called in Kubernetes' own client. The manager has one for each kind that it follows.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from tunstack.cluster.api import Api, ApiError, Object
from tunstack.errors import ClusterError, TunstackError

_log = logging.getLogger(__name__)

Kept = TypeVar("Kept")

_FIRST, _MOST = 0.2, 10.0
"""Seconds between two attempts of which the first brought nothing."""

GONE = 410
"""The version that a watch was to go on from has been forgotten."""


class Reflector(Generic[Kept]):
    """Follows a collection until :meth:`run` is cancelled.

    Args:
        api: where.
        path: of the collection.
        keep: gives what is worth keeping of an object, for memory is dear in large
            clusters; ``None`` when nothing is.
        changed: called after anything kept is another, with what is new.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        keep: Callable[[Object], Kept | None],
        changed: Callable[[Collection[Kept]], None],
    ) -> None:
        self._api = api
        self._path = path
        self._keep = keep
        self._changed = changed
        self.items: dict[str, Kept] = {}
        """By ``namespace/name``."""
        self.synced = asyncio.Event()
        """Everything was listed once."""
        self._heard = False
        """The latest watch brought something."""

    async def run(self) -> None:
        """Follow, whatever happens to the API server."""
        loop = asyncio.get_running_loop()
        wait = _FIRST
        version = ""
        said = ""
        while True:
            began = loop.time()
            self._heard = False
            failed = False
            try:
                version = version or await self._list()
                version = await self._watch(version)
            except TunstackError as error:
                failed = True
                # The next list repairs whatever was missed.
                version = ""
                gone = isinstance(error, ApiError) and error.status == GONE
                if not gone and str(error) != said:
                    said = str(error)
                    _log.warning("%s is not followed at the moment: %s", self._path, said)
            good = self._heard or loop.time() - began >= _MOST
            if good:
                wait = _FIRST
            if failed or not good:
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MOST)

    async def _list(self) -> str:
        objects, version = await self._api.list_all(self._path)
        items = {}
        for found in objects:
            kept = self._kept(found)
            if kept is not None:
                items[_key(found)] = kept
        before, self.items = self.items, items
        first = not self.synced.is_set()
        self.synced.set()
        if first or before != items:
            self._changed(items.values())
        return version

    async def _watch(self, version: str) -> str:
        async for kind, found in self._api.watch(self._path, version):
            version = found["metadata"]["resourceVersion"]
            self._heard = True
            if kind == "BOOKMARK":
                continue
            key = _key(found)
            before = self.items.get(key)
            kept = None if kind == "DELETED" else self._kept(found)
            if kept is None:
                self.items.pop(key, None)
            else:
                self.items[key] = kept
            if kept != before:
                self._changed(() if kept is None else (kept,))
        return version

    def _kept(self, found: Object) -> Kept | None:
        try:
            return self._keep(found)
        except (LookupError, TypeError, AttributeError) as exc:
            raise ClusterError(
                f"{self._path} has an object of another shape: {exc!r}"
            ) from exc


def _key(found: Object) -> str:
    metadata = found["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
