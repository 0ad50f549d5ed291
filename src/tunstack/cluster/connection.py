"""Connections to an API server: TLS, and the proxy on the way."""

import asyncio
import os
import ssl
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

from tunstack.cluster.access import Access
from tunstack.cluster.kubeconfig import KubeconfigError


def by_socks(access: Access) -> bool:
    """Whether a SOCKS proxy is on the way."""
    return urlsplit(access.proxy or "").scheme in ("socks5", "socks5h")


def connector(access: Access) -> aiohttp.BaseConnector:
    """Give what makes the connections. An HTTP proxy is named with each request instead."""
    if access.proxy is None or not by_socks(access):
        return aiohttp.TCPConnector(limit=0, ttl_dns_cache=10)
    parts = urlsplit(access.proxy)
    # "h" has the proxy look the server's name up; without it we do.
    url = parts._replace(scheme="socks5").geturl()
    return SocksConnector.from_url(url, rdns=parts.scheme == "socks5h")


class SocksError(aiohttp.ClientConnectionError):
    """A SOCKS proxy answers, and lets us not through."""


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


class _Context(ssl.SSLContext):
    """Checks a client's peer; by another name, if it is given one.

    aiohttp-socks asks for the certificate of the host that it connects to, always.
    """

    name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        name = self.name or server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


def tls_context(access: Access) -> ssl.SSLContext:
    """Give what the server is trusted by, and what we prove ourselves with.

    Raises:
        KubeconfigError: the client's certificate and key are of no use.
    """
    # Not by create_default_context, which in Python 3.13 refuses authorities that kubectl
    # takes: RFC 5280 to the letter.
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # any given one may be the root
    if access.ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=access.ca)
    if by_socks(access):
        context.name = access.tls_server_name
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate is not None and access.key is not None:
        pair = f"{access.certificate}\n{access.key}\n".encode()
        try:
            _load_pair(context, pair)
        except ssl.SSLError as exc:
            said = f"do not make a pair: {exc.reason or exc}"
            if "BEGIN ENCRYPTED" in access.key or "4,ENCRYPTED" in access.key:
                said = "cannot be used: a key with a password is not supported"
            raise KubeconfigError(
                f"context {access.context}: the client certificate and its key {said}"
            ) from exc
    return context


def _load_pair(context: ssl.SSLContext, pair: bytes) -> None:
    """Load a certificate and its key, which OpenSSL wants as a file, from memory only."""
    fd = os.memfd_create("tunstack", os.MFD_CLOEXEC)
    with open(fd, "wb") as file:
        file.write(pair)
        file.flush()
        # A password would be asked for on the terminal, of whoever is there.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=b"")
