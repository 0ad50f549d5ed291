"""The Kubernetes API over HTTP: JSON in and out, watches, and errors in people's words.

One :class:`Api` is one :class:`aiohttp.ClientSession` to one server. What it cannot get is
a :class:`~tunstack.errors.ClusterError` that says which of these it was: nobody there, a
certificate of a stranger, not known, not allowed, or the server's own words.
"""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDict

from tunstack._version import PRODUCT
from tunstack.cluster.access import Access, without_password
from tunstack.cluster.connection import SocksError, by_socks, connector, tls_context
from tunstack.cluster.kubeconfig import KubeconfigError
from tunstack.errors import AuthError, ClusterError

Object = dict[str, Any]
"""An object of the API, as JSON."""

Query = Mapping[str, str]
NO_QUERY: Query = {}

PAGE = 500
"""Objects in one answer to a list, as kubectl asks for them."""

WATCH = 300
"""Seconds after which a watch ends by itself and is asked for again."""

_CHECK = "check the network, a VPN that is needed, and the kubeconfig's server"

_LINE = 16 * 1024 * 1024
"""Octets of one event of a watch; etcd takes objects of 1.5 MiB."""


class ApiError(ClusterError):
    """The server answered, with an error."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        """Of HTTP."""


class Api:
    """Asks one API server.

    Args:
        access: which, and as whom.
        timeout: seconds for one request (``timeouts.api_request``).
    """

    def __init__(self, access: Access, *, timeout: float) -> None:
        self.access = access
        self._timeout = timeout
        self._tls = tls_context(access)
        self._session = aiohttp.ClientSession(
            connector=connector(access),
            headers={"User-Agent": f"tunstack/{PRODUCT}"},
            read_bufsize=1 << 20,
        )

    def use(self, access: Access) -> None:
        """Be somebody else at the same server, or the same with a new token."""
        self.access = access
        self._tls = tls_context(access)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        content_type: str = "application/json",
        query: Query = NO_QUERY,
    ) -> Object:
        """Ask for one thing.

        Args:
            method: of HTTP.
            path: ``/api/v1/namespaces/default/pods``.
            body: sent as JSON.
            content_type: of the body: patches have their own.
            query: of the URL.

        Raises:
            ApiError: the server answered with an error.
            AuthError: the server does not know us.
            ClusterError: the server cannot be reached, or not in time.
            KubeconfigError: its certificate is another's.
        """
        try:
            async with asyncio.timeout(self._timeout):
                async with self._session.request(
                    method,
                    self.access.server + path,
                    params=query,
                    data=None if body is None else json.dumps(body).encode(),
                    **self._options(
                        {"Accept": "application/json", "Content-Type": content_type}
                    ),
                ) as answer:
                    text = await answer.read()
                    if answer.status >= 400:
                        raise self._refused(answer.status, text)
                    return _object(text)
        except TimeoutError:
            raise ClusterError(
                f"{self._who()} did not answer within {self._timeout:g} s"
                " (timeouts.api_request)",
                hint=_CHECK,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise self._unreachable(exc) from exc

    async def list_all(
        self, path: str, query: Query = NO_QUERY
    ) -> tuple[list[Object], str]:
        """Get all objects of a collection, page by page.

        Returns:
            The objects, and the resource version that a watch goes on from.
        """
        objects: list[Object] = []
        more = ""
        while True:
            part = {"limit": str(PAGE)} | ({"continue": more} if more else {})
            page = await self.request("GET", path, query={**query, **part})
            try:
                objects += [_checked(found, "name") for found in page["items"] or []]
                metadata = _checked(page, "resourceVersion")["metadata"]
            except (KeyError, TypeError, ValueError) as exc:
                raise self._senseless("that is no list") from exc
            more = metadata.get("continue", "")
            if not more:
                return objects, metadata["resourceVersion"]

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """Give what happens in a collection: ``ADDED``, ``MODIFIED``, ``DELETED``.

        Ends after a while without an error; go on from the last ``BOOKMARK``'s version.

        Raises:
            ApiError: with status 410, when the version is too old: list again.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH),
        }
        try:
            async with self._session.get(
                self.access.server + path,
                params=query,
                # The server ends it; silence for longer is a connection that is dead.
                timeout=aiohttp.ClientTimeout(
                    sock_connect=self._timeout, sock_read=WATCH + 30
                ),
                **self._options(),
            ) as answer:
                if answer.status >= 400:
                    raise self._refused(answer.status, await answer.read())
                async for line in _lines(answer.content):
                    kind, found = _event(line)
                    if kind == "ERROR":
                        text = f"{self._who()}: {found.get('message')}"
                        raise ApiError(found.get("code", 500), text)
                    yield kind, found
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
            raise self._unreachable(exc) from exc

    @asynccontextmanager
    async def websocket(
        self, path: str, protocol: str, *, timeout: float, query: Query
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket (RFC 6455), for as long as the ``async with`` lasts.

        Args:
            path: as in :meth:`request`.
            protocol: ``Sec-WebSocket-Protocol``; the server must agree.
            timeout: seconds until it is open; the caller's to name in errors.
            query: of the URL.

        Raises:
            TimeoutError: not open in time.
            ApiError, AuthError, ClusterError: as :meth:`request`.
        """
        try:
            async with asyncio.timeout(timeout):
                socket = await self._session.ws_connect(
                    self.access.server + path,
                    protocols=(protocol,),
                    params=query,
                    max_msg_size=0,
                    autoping=True,
                    compress=0,
                    **self._options(),
                )
        except aiohttp.WSServerHandshakeError as exc:
            await self._explain(path, query)
            raise ApiError(
                exc.status, f"{self._who()} opens no WebSocket: HTTP status {exc.status}"
            ) from exc
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as exc:
            raise self._unreachable(exc) from exc
        try:
            if socket.protocol != protocol:
                raise ClusterError(
                    f"{self._who()} does not speak {protocol}",
                    hint="Kubernetes 1.30 or newer is needed, and proxies that let"
                    " WebSockets through",
                )
            yield socket
        finally:
            await socket.close()

    async def _explain(self, path: str, query: Query) -> None:
        """Ask for a WebSocket's path without one: a refusal then says why.

        An upgrade is a GET, but since Kubernetes 1.35 ``create`` is checked too.
        """
        refusal: ApiError | None = None
        for method in ("GET", "POST"):
            try:
                await self.request(method, path, query=query)
            except ApiError as error:
                # 400 and the like say that an upgrade is needed: the right is there.
                if error.status in (403, 404):
                    refusal = error
                    if "cannot" in str(error):  # names verb and resource
                        break
        if refusal is not None:
            raise refusal

    def _options(self, headers: Mapping[str, str] = NO_QUERY) -> dict[str, Any]:
        """Give what each request needs of aiohttp."""
        access = self.access
        said = CIMultiDict(access.headers)
        said.extend(headers)
        options: dict[str, Any] = {"ssl": self._tls, "headers": said}
        if access.tls_server_name is not None:
            options["server_hostname"] = access.tls_server_name
        if access.proxy is not None and not by_socks(access):
            options["proxy"] = access.proxy
        return options

    def _who(self) -> str:
        proxy = self.access.proxy
        through = "" if proxy is None else f" through the proxy {without_password(proxy)}"
        return (
            f"the API server {self.access.server}{through} (context {self.access.context})"
        )

    def _refused(self, status: int, body: bytes) -> ClusterError | AuthError:
        """Say what a status of HTTP means; the body is a ``Status`` of the API, mostly."""
        try:
            message = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message = body[:200].decode("utf-8", "replace").strip() or f"status {status}"
        if status == 401:
            how = {
                "exec plugin": "the exec plugin's credentials are not taken: log in again",
                "token file": "renew the token file",
            }
            return AuthError(
                f"{self._who()} does not know us: the credentials in the kubeconfig have"
                " expired, or are not of this cluster",
                hint=how.get(self.access.renewable or "", "log in again, then connect"),
            )
        if status == 403:
            return ApiError(
                status,
                f"{self._who()}: forbidden: {message}",
                hint="ask an administrator, who lets users in by"
                " `tunstack install --grant-users GROUP`",
            )
        return ApiError(status, f"{self._who()}: {message}")

    def _senseless(self, why: object) -> ClusterError:
        return ClusterError(
            f"{self._who()} does not answer as Kubernetes does: {why}",
            hint="check the kubeconfig's server: another program may listen there, or ask"
            " to log in first",
        )

    def _unreachable(self, exc: Exception) -> ClusterError | KubeconfigError:
        distrust = _distrust(exc)
        if distrust is not None:
            return KubeconfigError(
                f"the certificate of {self._who()} is not to be trusted: {distrust}",
                hint=f"correct certificate-authority or tls-server-name in"
                f" {self.access.source}",
            )
        why = _of_the_proxy(exc)
        if why is not None:
            return ClusterError(
                f"the proxy {without_password(self.access.proxy or '')} {why}",
                hint="correct HTTPS_PROXY or proxy-url",
            )
        if not isinstance(exc, aiohttp.ClientError | OSError):
            return self._senseless(exc)
        return ClusterError(
            f"{self._who()} is unreachable: {_why(exc)}",
            hint=_CHECK,
        )


def _object(text: bytes) -> Object:
    """Read an object of the API.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(text)
    except RecursionError as exc:
        raise ValueError("JSON that does not end") from exc
    if not isinstance(found, dict):
        raise ValueError(f"{text[:80]!r} is no object")
    return found


def _checked(found: Any, key: str) -> Object:
    """Give an object whose metadata has a key.

    Raises:
        ValueError, KeyError, TypeError: it is none, or has no such metadata.
    """
    if not (isinstance(found, dict) and isinstance(found["metadata"][key], str)):
        raise ValueError(f"there is no {key}")
    return found


def _event(line: bytes) -> tuple[str, Object]:
    """Read an event of a watch.

    Raises:
        ValueError: it is none.
    """
    event = _object(line)
    try:
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            return kind, dict(found)
        _checked(found, "resourceVersion")
        return kind, found if kind == "BOOKMARK" else _checked(found, "name")
    except (KeyError, TypeError) as exc:
        raise ValueError(f"{line[:80]!r} is no event of a watch") from exc


def _of_the_proxy(exc: BaseException) -> str | None:
    """Say what the proxy did, if it is at fault."""
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        return f"cannot be reached: {_why(exc)}"
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return f"refuses: {exc.status} {exc.message}"
    if isinstance(exc, SocksError):
        return f"refuses: {exc}"
    return None


def _distrust(exc: BaseException) -> str | None:
    """Say why a certificate is not trusted, if that is what was wrong."""
    cause: BaseException | None = exc
    while cause is not None:
        text: str | None = getattr(cause, "verify_message", None)
        if text is not None:
            return text
        cause = cause.__cause__ or cause.__context__
    return None


def _why(exc: BaseException) -> str:
    """Say an error of a connection as the kernel or the library would."""
    inner = getattr(exc, "os_error", None) or exc
    if isinstance(inner, socket.gaierror):
        return f"its name is not found: {inner.strerror}"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed: {inner.reason or inner}"
    if isinstance(inner, OSError) and inner.errno:
        return os.strerror(inner.errno).lower() if inner.errno > 0 else str(inner)
    return str(exc) or type(exc).__name__


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Give the lines of a stream, however long."""
    rest = bytearray()
    async for chunk in stream.iter_any():
        rest += chunk
        if len(rest) > _LINE:
            raise ValueError("an event of a watch does not end")
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line:
                yield bytes(line)
