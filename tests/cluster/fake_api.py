"""A Kubernetes API server in memory: list, watch, server-side apply, delete."""

import asyncio
import copy
import json
from collections import defaultdict
from ipaddress import ip_address, ip_network

from aiohttp import web

NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
SERVICES = "/api/v1/services"
SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
DEPLOYMENTS = "/apis/apps/v1/deployments"
REPLICA_SETS = "/apis/apps/v1/replicasets"
ROLE_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/rolebindings"

APPLY = "application/apply-patch+yaml"

UNTIL_GONE = {"access_log": None, "handler_cancellation": True, "shutdown_timeout": 0.01}
"""Settings of a server whose handlers wait no longer than their clients."""

IMMUTABLE = {"Deployment": ("spec", "selector")}
"""Fields that an apply may not change."""


class FakeApi:
    """Holds objects by the path of their collection, and tells watchers of changes."""

    def __init__(self):
        self.objects = defaultdict(dict)
        """By collection, then by namespace and name."""
        self.requests = []
        """Method, path, query and body of everything that was asked, but for watches."""
        self.refused = {}
        """Status and message, by method and path."""
        self.unknown = set()
        """Collections that this server has never heard of."""
        self.service_range = None
        """What a service must lie in; ``None`` lets nobody make one."""
        self.lasting = set()
        """Collections whose objects do not go at once when they are deleted."""
        self.watches = []
        """Path and version of every watch."""
        self.watched = asyncio.Queue()
        """The path of each watch as it begins."""
        self.unwatched = asyncio.Queue()
        """The path of each watch as it ends."""
        self._version = 1000
        self._oldest = 0
        self._events = []
        self._ended = 0
        self._news = asyncio.Condition()
        self._news_so_far = 0
        self._runner = None
        self._port = 0

    # Life

    async def start(self):
        """Listen, on the same port as before if there was one; gives the URL."""
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, **UNTIL_GONE)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._port}"

    async def stop(self):
        """Break every connection, and listen no more."""
        await self._runner.cleanup()

    # What is there

    def load(self, collection, *documents):
        """Have objects from the beginning, or behind the back of those that watch."""
        for document in documents:
            self._keep(collection, document)

    async def put(self, collection, *documents):
        """Add objects, or change them."""
        for document in documents:
            known = _key(document) in self.objects[collection]
            kept = self._keep(collection, document)
            self._happened(collection, "MODIFIED" if known else "ADDED", kept)
        await self._tell()

    async def remove(self, collection, name, namespace=None):
        """Delete an object."""
        gone = self.objects[collection].pop((namespace, name))
        gone["metadata"]["resourceVersion"] = self._next()
        self._happened(collection, "DELETED", gone)
        await self._tell()

    async def forget(self):
        """Have watches end, for what they go on from is too old."""
        self._oldest = int(self._next())
        await self._tell()

    async def end_watches(self):
        """Have watches end as they do after a while."""
        self._ended += 1
        await self._tell()

    async def bookmark(self, collection):
        """Tell watchers the version that they have come to; gives it."""
        version = self._next()
        document = {"kind": "Pod", "metadata": {"resourceVersion": version}}
        self._happened(collection, "BOOKMARK", document)
        await self._tell()
        return int(version)

    async def until(self, condition):
        """Wait until something is so."""
        async with self._news:
            await self._news.wait_for(condition)

    def find(self, collection, name, namespace=None):
        return self.objects[collection].get((namespace, name))

    def version(self, collection, name, namespace=None):
        metadata = self.find(collection, name, namespace)["metadata"]
        return int(metadata["resourceVersion"])

    def names(self):
        """Name everything that there is."""
        return {
            "/".join(filter(None, [namespace, document["kind"].lower(), name]))
            for found in self.objects.values()
            for (namespace, name), document in found.items()
        }

    def asked(self, method):
        """Give the paths of all requests of a method."""
        return [path for each, path, _, _ in self.requests if each == method]

    def _next(self):
        self._version += 1
        return str(self._version)

    def _keep(self, collection, document):
        key = _key(document)
        before = self.objects[collection].get(key)
        kept = copy.deepcopy(document)
        metadata = kept["metadata"]
        metadata["resourceVersion"] = self._next()
        if before is None:
            metadata.setdefault("uid", f"uid-{self._version}")
            made = f"2026-01-01T00:00:00.{self._version}Z"
            metadata.setdefault("creationTimestamp", made)
            metadata.setdefault("generation", 1)
        else:
            for name in ("uid", "creationTimestamp", "generation"):
                metadata.setdefault(name, before["metadata"][name])
            if before.get("spec") != kept.get("spec"):
                metadata["generation"] = before["metadata"]["generation"] + 1
            if "status" in before:
                kept.setdefault("status", before["status"])
        self.objects[collection][key] = kept
        return kept

    def _happened(self, collection, kind, document):
        self._events.append((self._version, collection, kind, copy.deepcopy(document)))

    async def _tell(self):
        self._news_so_far += 1
        async with self._news:
            self._news.notify_all()

    # Answers

    async def _answer(self, request):
        collection, namespace, name = _place(request.path)
        if "watch" in request.query:
            return await self._watch(request, collection)
        body = await request.json() if request.can_read_body else None
        method = request.method
        self.requests.append((method, request.path, dict(request.query), body))
        await self._tell()
        if (method, request.path) in self.refused:
            return _status(*self.refused[method, request.path])
        if collection in self.unknown:
            return web.Response(status=404, text="404 page not found")
        if method == "PATCH":
            return self._apply(request, collection, namespace, name, body)
        if method == "POST" and collection == SERVICES and name is None:
            return self._create(request, body)
        if name is None:
            return self._list(request, collection, namespace)
        found = self.find(collection, name, namespace)
        if found is None:
            return _status(404, f'{collection.rpartition("/")[2]} "{name}" not found')
        if method == "DELETE":
            return await self._delete(collection, namespace, name, body)
        return web.json_response(found)

    def _list(self, request, collection, namespace):
        selector = request.query.get("labelSelector", "")
        found = [
            document
            for key, document in sorted(self.objects[collection].items(), key=repr)
            if namespace in (None, key[0]) and _selected(document, selector)
        ]
        start, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        metadata = {"resourceVersion": str(self._version)}
        if len(found) > start + limit:
            metadata["continue"] = str(start + limit)
        items = found[start : start + limit]
        return web.json_response({"metadata": metadata, "items": items})

    async def _watch(self, request, collection):
        response = web.StreamResponse()
        await response.prepare(request)
        version = int(request.query["resourceVersion"])
        self.watches.append((request.path, version))
        self.watched.put_nowait(request.path)
        ended = self._ended
        try:
            while True:
                if version < self._oldest:
                    gone = _problem(410, f"too old resource version: {version}")
                    await _write(response, "ERROR", gone)
                    break
                seen = self._news_so_far
                for number, where, kind, document in list(self._events):
                    if number > version and where == collection:
                        version = number
                        await _write(response, kind, document)
                if self._ended != ended:
                    break
                await self.until(lambda seen=seen: self._news_so_far != seen)
        except ConnectionError:
            pass
        finally:
            self.unwatched.put_nowait(request.path)
        return response

    def _apply(self, request, collection, namespace, name, document):
        if request.content_type != APPLY or not request.query.get("fieldManager"):
            return _status(415, "this is no server-side apply")
        if _key(document) != (namespace, name):
            return _status(400, "the name of the object does not match the URL")
        if namespace is not None and self.find(NAMESPACES, namespace) is None:
            return _status(404, f'namespaces "{namespace}" not found')
        before = self.find(collection, name, namespace)
        path = IMMUTABLE.get(document["kind"])
        if before is not None and path and _at(before, path) != _at(document, path):
            said = f"{'.'.join(path)}: Invalid value: field is immutable"
            return _status(422, f'{document["kind"]} "{name}" is invalid: {said}')
        if request.query.get("dryRun") != "All":
            self._keep(collection, document)
        return web.json_response(document, status=201 if before is None else 200)

    def _create(self, request, document):
        if self.service_range is None:
            return _status(403, "services is forbidden: User cannot create services")
        address = document["spec"]["clusterIP"]
        if ip_address(address) not in ip_network(self.service_range):
            return _status(
                422,
                'Service "tunstack-probe-x7k2p" is invalid: spec.clusterIPs: Invalid'
                f' value: ["{address}"]: failed to allocate IP {address}: provided IP is'
                " not in the valid range. The range of valid IPs is"
                f" {self.service_range}",
            )
        return web.json_response(document, status=201)

    async def _delete(self, collection, namespace, name, options):
        found = self.find(collection, name, namespace)
        if collection in self.lasting:
            found["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            return web.json_response(found)
        await self.remove(collection, name, namespace)
        if options["propagationPolicy"] == "Foreground":
            await self._collect(found["metadata"]["uid"])
        return web.json_response(_problem(200, "deleted"))

    async def _collect(self, uid):
        """Delete what an object owned."""
        owned = [
            (collection, namespace, name, document["metadata"]["uid"])
            for collection, found in self.objects.items()
            for (namespace, name), document in found.items()
            for owner in document["metadata"].get("ownerReferences", ())
            if owner["uid"] == uid
        ]
        for collection, namespace, name, each in owned:
            await self.remove(collection, name, namespace)
            await self._collect(each)


def _place(path):
    """Take a path apart: collection in all namespaces, namespace, name."""
    parts = path.strip("/").split("/")
    root = 2 if parts[0] == "api" else 3
    head, rest = parts[:root], parts[root:]
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    collection = "/" + "/".join([*head, *rest[:1]])
    return collection, namespace, rest[1] if len(rest) > 1 else None


def _key(document):
    metadata = document["metadata"]
    return metadata.get("namespace"), metadata["name"]


def _at(document, path):
    for key in path:
        document = document.get(key, {})
    return document


def _selected(document, selector):
    labels = document["metadata"].get("labels", {})
    wanted = [term.split("=") for term in selector.split(",") if term]
    return all(labels.get(key) == value for key, value in wanted)


def _problem(code, message):
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


def _status(code, message):
    return web.json_response(_problem(code, message), status=code)


async def _write(response, kind, document):
    event = {"type": kind, "object": document}
    await response.write(json.dumps(event).encode() + b"\n")


# Objects


def document(kind, name, namespace=None, **parts):
    """Give an object; ``labels`` and the like go where they belong."""
    metadata = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    for key in ("labels", "deletionTimestamp", "creationTimestamp", "ownerReferences"):
        if key in parts:
            metadata[key] = parts.pop(key)
    return {"kind": kind, "metadata": metadata, **parts}


def pod(name, namespace="tunstack", *, addresses=(), ready=None, status=None, **parts):
    """Give a pod."""
    status = dict(status or {})
    if addresses:
        status["podIPs"] = [{"ip": address} for address in addresses]
    if ready is not None:
        said = {"type": "Ready", "status": "True" if ready else "False"}
        status.setdefault("conditions", []).append(said)
    parts.setdefault("spec", {})
    return document("Pod", name, namespace, status=status, **parts)
