"""The way through a SOCKS5 proxy (RFC 1928), with errors that aiohttp's callers expect.

aiohttp-socks raises what is no :class:`aiohttp.ClientError`.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp_socks import (
    ProxyConnectionError,
    ProxyConnector,
    ProxyError,
    ProxyTimeoutError,
)

from tunstack.cluster.api import SocksError


class SocksConnector(ProxyConnector):
    """Connects through a proxy.

    Raises:
        aiohttp.ClientProxyConnectionError: it cannot be reached.
        SocksError: it refuses, or does not speak SOCKS5.
    """

    async def _wrap_create_connection(
        self, *args: Any, req: aiohttp.ClientRequest, **more: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        try:
            return await super()._wrap_create_connection(*args, req=req, **more)
        except ProxyConnectionError as exc:
            # That of aiohttp-socks is of that of python-socks, which is of the kernel's.
            cause = exc.__cause__ and exc.__cause__.__cause__
            reason = cause if isinstance(cause, OSError) else OSError(str(exc))
            raise aiohttp.ClientProxyConnectionError(req.connection_key, reason) from exc
        except (ProxyError, ProxyTimeoutError) as exc:
            raise SocksError(str(exc)) from exc
        except EOFError as exc:
            raise SocksError("it closes the connection") from exc


def connector(proxy: str) -> ProxyConnector:
    """Give the connector of a proxy's URL, ``socks5`` or ``socks5h``."""
    parts = urlsplit(proxy)
    # "h" has the proxy look the server's name up; without it we do.
    url = parts._replace(scheme="socks5").geturl()
    return SocksConnector.from_url(url, rdns=parts.scheme == "socks5h")
