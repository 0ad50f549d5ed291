"""Access to an API server: everything of a context that a connection needs, by value.

The command line reads files and runs plugins as the caller; the engine, who may do
neither, is given the result.
"""

import base64
import binascii
import json
import math
import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from tunstack.cluster import exec_plugin
from tunstack.cluster.kubeconfig import Context, Entry, KubeconfigError

_PROXIES = ("http", "https", "socks5", "socks5h")
"""Schemes of proxies, as kubectl takes them."""

_IMPERSONATE = {"as": "Impersonate-User", "as-uid": "Impersonate-Uid"}

_TOKEN = "!#$&'*+-.^_`|~"
"""What the name of a header may have besides letters and digits (RFC 9110, section
5.6.2); without ``%``, by which the rest is encoded."""

_CERTIFICATE = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----[\x00-\x7f]+?-----END \1-----"
)

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An API server, and who to be there. Holds secrets: it is not for logs."""

    context: str
    namespace: str
    server: str
    """URL."""
    source: str
    """The file and the cluster in it, for people."""
    ca: str | None = None
    """PEM of the authorities to trust; ``None`` means the system's."""
    insecure: bool = False
    """Trust any certificate."""
    tls_server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)
    """URL of the proxy to go through, with its password."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Who to be: the token, a password, impersonation."""
    certificate: str | None = field(default=None, repr=False)
    """PEM of the client's certificate, with its chain."""
    key: str | None = field(default=None, repr=False)
    """PEM of its key."""
    expires: float | None = None
    """Seconds since 1970; ``None`` when that is not known."""
    renewable: str | None = None
    """What gives new credentials: ``exec plugin``, ``token file``; ``None`` nothing."""

    def plain(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)

    @classmethod
    def build(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what :meth:`plain` gave, through JSON or not."""
        headers = tuple((name, value) for name, value in plain["headers"])
        return cls(**{**plain, "headers": headers})

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port that connections go to: the proxy's, if there is one."""
        parts = urlsplit(self.proxy or self.server)
        port = parts.port or _PORTS.get(parts.scheme, 1080)
        return parts.hostname or "", port


def resolve(
    context: Context,
    environment: Mapping[str, str],
    *,
    interactive: bool,
    plugin_timeout: float,
) -> Access:
    """Find out all that a context says, by reading its files and running its plugin.

    Args:
        context: of a kubeconfig.
        environment: of the caller: proxies, and what a plugin inherits.
        interactive: a plugin may ask on the terminal.
        plugin_timeout: seconds.

    Raises:
        KubeconfigError: names file, cluster or user, and what is wrong.
    """
    cluster = context.cluster
    server = _server(cluster)
    ca = _pem(cluster, "certificate-authority", "CERTIFICATE")
    insecure = _flag(cluster, "insecure-skip-tls-verify")
    if insecure and ca is not None:
        raise KubeconfigError(
            f"{cluster}: insecure-skip-tls-verify and a certificate-authority exclude"
            " each other"
        )
    if ca is not None:
        ca = _authorities(cluster, ca)
    proxy = cluster.text("proxy-url")
    if proxy is not None:
        _check_proxy(f"{cluster}: proxy-url", proxy)
    else:
        proxy = proxy_of(server, environment)
        if proxy is not None:
            _check_proxy(f"{urlsplit(server).scheme.upper()}_PROXY", proxy)
    return Access(
        context=context.name,
        namespace=context.namespace,
        server=server,
        source=f"{cluster.file}, cluster {cluster.name}",
        ca=ca,
        insecure=insecure,
        tls_server_name=cluster.text("tls-server-name"),
        proxy=proxy,
        **_identity(context, ca, environment, interactive, plugin_timeout),
    )


def _server(cluster: Entry) -> str:
    server = cluster.text("server")
    if server is None:
        raise KubeconfigError(f"{cluster} has no server")
    if "://" not in server:  # kubectl takes them, too
        server = f"https://{server}"
    if not _is_url(server, _PORTS):
        raise KubeconfigError(f"{cluster}: server {server!r} is no http or https URL")
    return server.rstrip("/")


def _is_url(text: str, schemes: Collection[str]) -> bool:
    """Whether a text is a URL of one of those schemes, with a host."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def _check_proxy(what: str, proxy: str) -> None:
    if not _is_url(proxy, _PROXIES):
        raise KubeconfigError(
            f"{what}: {proxy!r} is not the URL of a proxy",
            hint=f"for example http://proxy.example:3128; or {', '.join(_PROXIES[1:])}",
        )


def _identity(
    context: Context,
    ca: str | None,
    environment: Mapping[str, str],
    interactive: bool,
    plugin_timeout: float,
) -> dict[str, Any]:
    """Give the fields of :class:`Access` that say who we are."""
    user = context.user
    if user.value.get("auth-provider") is not None:
        raise KubeconfigError(
            f"{user}: auth-provider is of old Kubernetes, and not supported",
            hint="use the exec plugin of your provider: kubelogin, gke-gcloud-auth-plugin",
        )
    certificate = _pem(user, "client-certificate", "CERTIFICATE")
    key = _pem(user, "client-key", "KEY")
    token_file = user.path("tokenFile")
    token = user.text("token")
    renewable = None
    expires = None
    if token_file is not None:  # it wins over token, as in client-go
        token = _read(user, "tokenFile", token_file).strip()
        if not token:
            raise KubeconfigError(f"{user}: the tokenFile {token_file} is empty")
        renewable = "token file"
    plugin = user.value.get("exec")
    if plugin is not None and token is None and certificate is None:
        authorities = None if ca is None else base64.b64encode(ca.encode()).decode()
        status = exec_plugin.run(
            context,
            ca=authorities,
            environment=environment,
            interactive=interactive,
            timeout=plugin_timeout,
        )
        token = status.get("token")
        certificate = status.get("clientCertificateData")
        key = status.get("clientKeyData")
        expires = _time(user, status.get("expirationTimestamp"))
        renewable = "exec plugin"
    if certificate is None and key is not None:
        raise KubeconfigError(f"{user} has a client-key and no client-certificate")
    if certificate is not None and key is None:
        raise KubeconfigError(f"{user} has a client-certificate and no client-key")
    headers = _impersonation(user)
    if token:
        headers.append(("Authorization", f"Bearer {token}"))
        expires = expires or token_expiry(token)
    elif user.text("username") is not None:
        pair = f"{user.text('username')}:{user.text('password') or ''}"
        basic = base64.b64encode(pair.encode()).decode()
        headers.append(("Authorization", f"Basic {basic}"))
    for name, value in headers:
        if not (value.isascii() and value.isprintable()):
            raise KubeconfigError(f"{user}: what is said as {name} is not printable ASCII")
    return {
        "headers": tuple(headers),
        "certificate": certificate,
        "key": key,
        "expires": expires,
        "renewable": renewable,
    }


def _impersonation(user: Entry) -> list[tuple[str, str]]:
    headers = [
        (header, value)
        for key, header in _IMPERSONATE.items()
        if (value := user.text(key)) is not None
    ]
    groups = _texts(user, "as-groups", user.value.get("as-groups"))
    headers += [("Impersonate-Group", group) for group in groups]
    extra = user.value.get("as-user-extra") or {}
    if not isinstance(extra, dict) or not all(isinstance(name, str) for name in extra):
        raise KubeconfigError(f"{user}: as-user-extra is not lists by name: {extra!r}")
    for name, values in extra.items():
        header = f"Impersonate-Extra-{quote(name, safe=_TOKEN)}"
        texts = _texts(user, f"as-user-extra: {name}", values)
        headers += [(header, text) for text in texts]
    return headers


def _texts(entry: Entry, key: str, value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise KubeconfigError(f"{entry}: {key} is not a list of text: {value!r}")
    return value


def _flag(entry: Entry, key: str) -> bool:
    value = entry.value.get(key)
    if value is not None and not isinstance(value, bool):
        raise KubeconfigError(f"{entry}: {key} is neither true nor false: {value!r}")
    return bool(value)


def _pem(entry: Entry, key: str, label: str) -> str | None:
    """Give the PEM of ``key-data``, else of the file that ``key`` names."""
    data = entry.text(f"{key}-data")
    if data is not None:
        where = f"{key}-data"
        try:
            # As Go: line breaks are not part of it, other junk is an error.
            lines = data.replace("\r", "").replace("\n", "")
            text = base64.b64decode(lines, validate=True).decode()
        except (binascii.Error, ValueError):
            raise KubeconfigError(f"{entry}: {where} is not base64 of PEM") from None
    else:
        path = entry.path(key)
        if path is None:
            return None
        where = f"{key} {path}"
        text = _read(entry, key, path)
    if f"{label}-----" not in text:
        raise KubeconfigError(f"{entry}: {where} is not PEM of a {label.lower()}")
    return text


def _authorities(cluster: Entry, text: str) -> str:
    """Give the certificates in a text, without what is said about them."""
    ca = "".join(f"{found[0]}\n" for found in _CERTIFICATE.finditer(text))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError) as exc:
        raise KubeconfigError(
            f"{cluster}: certificate-authority has no certificate that can be read:"
            f" {getattr(exc, 'reason', exc)}"
        ) from exc
    return ca


def _read(entry: Entry, key: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as exc:
        raise KubeconfigError(
            f"{entry}: {key} {path} cannot be read: {exc.strerror}"
        ) from exc
    except UnicodeDecodeError:
        raise KubeconfigError(f"{entry}: {key} {path} is not text") from None


def _time(user: Entry, text: object) -> float | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(str(text))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise KubeconfigError(
            f"{user}: the exec plugin's expirationTimestamp is no time: {text}"
        ) from None


def token_expiry(token: str) -> float | None:
    """Say when a JWT expires (RFC 7519, section 4.1.4); ``None`` if it is none."""
    try:
        claims = token.split(".")[1]
        padded = claims + "=" * (-len(claims) % 4)
        time = json.loads(base64.urlsafe_b64decode(padded))["exp"]
        if isinstance(time, bool) or not math.isfinite(time):
            return None
        return float(time)
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def proxy_of(server: str, environment: Mapping[str, str]) -> str | None:
    """Give the proxy that the environment has for a server.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` for http, and ``NO_PROXY`` with names, addresses and
    CIDRs, each in lower case as well: as Go's ``httpproxy`` reads them. Loopback is
    never proxied.
    """

    def variable(name: str) -> str:
        return environment.get(name) or environment.get(name.lower()) or ""

    parts = urlsplit(server)
    host = parts.hostname or ""
    proxy = variable(f"{parts.scheme.upper()}_PROXY")
    if not proxy or host == "localhost":
        return None
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is not None and address.is_loopback:
        return None
    port = parts.port or _PORTS[parts.scheme]
    for rule in variable("NO_PROXY").split(","):
        rule = rule.strip().lower()
        if rule == "*" or (rule and _matches(rule, host, address, port)):
            return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _matches(rule: str, host: str, address: Any, port: int) -> bool:
    """Whether a rule of ``NO_PROXY`` is about a host."""
    name, colon, rest = rule.rpartition(":")
    if colon and rest.isdecimal() and (":" not in name or name.endswith("]")):
        if int(rest) != port:
            return False
        rule = name
    if address is not None:
        try:
            return address in ip_network(rule.strip("[]"), strict=False)
        except (ValueError, TypeError):
            return False
    rule = rule.removeprefix("*")
    if rule.startswith("."):
        return host.endswith(rule)
    return host == rule or host.endswith(f".{rule}")


def without_password(url: str) -> str:
    """Give a URL as it may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
