"""Requests, watches and WebSockets to a server on loopback, and all that goes wrong."""

import asyncio
import json
import ssl
import subprocess

import pytest
import pytest_asyncio
from aiohttp import web

from tests.cluster.proxies import HttpProxy, SocksProxy
from tunstack.cluster.access import Access
from tunstack.cluster.api import PAGE, Api, ApiError
from tunstack.cluster.kubeconfig import KubeconfigError
from tunstack.errors import AuthError, ClusterError

PROTOCOL = "v4.channel.k8s.io"


def refusal(status, message):
    """Give the answer of an API server that refuses."""
    body = {"kind": "Status", "code": status, "message": message}
    return web.json_response(body, status=status)


def always(status=200, text="{}", content_type="application/json"):
    """Give a handler that answers the same to everything."""

    async def handle(request):
        return web.Response(status=status, text=text, content_type=content_type)

    return handle


async def tell(request):
    """Answer with what was asked."""
    return web.json_response(
        {
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "headers": [list(item) for item in request.headers.items()],
            "body": (await request.read()).decode(),
        }
    )


async def headers_of(api):
    answer = await api.request("GET", "/api")
    return [(name, value) for name, value in answer["headers"]]


def server_context(keys, client=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.certificate, keys.key)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client.certificate)
    return context


@pytest_asyncio.fixture
async def proxy(stack):
    """Start a proxy in front of a server; gives it and its address."""

    async def start(kind, server, tls=None):
        proxy = kind(server)
        address = await proxy.start(tls)
        stack.push_async_callback(proxy.close)
        return proxy, address

    return start


# Requests


async def test_a_request_says_what_it_is_told(serve, open_api):
    api = await open_api(await serve(tell))
    answer = await api.request(
        "PATCH",
        "/api/v1/x",
        body={"kind": "Pod"},
        content_type="application/apply-patch+yaml",
        query={"fieldManager": "tunstack"},
    )
    headers = dict(answer["headers"])
    assert (answer["method"], answer["path"]) == ("PATCH", "/api/v1/x")
    assert answer["query"] == {"fieldManager": "tunstack"}
    assert json.loads(answer["body"]) == {"kind": "Pod"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Accept"] == "application/json"
    assert headers["User-Agent"].startswith("tunstack/")


async def test_a_server_may_lie_under_a_path(serve, open_api):
    api = await open_api(f"{await serve(tell)}/k8s/clusters/c-1")
    answer = await api.request("GET", "/api/v1/pods")
    assert answer["path"] == "/k8s/clusters/c-1/api/v1/pods"


async def test_every_header_of_ours_is_sent(serve, open_api):
    said = (
        ("Impersonate-User", "bob"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Group", "dev"),
        ("Authorization", "Bearer secret"),
    )
    api = await open_api(await serve(tell), headers=said)
    assert set(said) <= set(await headers_of(api))


async def test_new_credentials_are_used_from_then_on(serve, open_api):
    old, new = ("Authorization", "Bearer old"), ("Authorization", "Bearer new")
    api = await open_api(await serve(tell), headers=(old,))
    assert old in await headers_of(api)
    api.use(Access.build(api.access.plain() | {"headers": (new,)}))
    headers = await headers_of(api)
    assert new in headers
    assert old not in headers


# Lists


async def test_a_list_is_got_page_by_page(serve, open_api):
    queries = []

    async def page(request):
        queries.append(dict(request.query))
        number = int(request.query.get("continue", 0))
        metadata = {"resourceVersion": f"7{number}"}
        if number < 2:
            metadata["continue"] = str(number + 1)
        items = [{"metadata": {"name": f"{number}{letter}"}} for letter in "ab"]
        return web.json_response({"metadata": metadata, "items": items})

    api = await open_api(await serve(page))
    objects, version = await api.list_all("/api/v1/pods", {"labelSelector": "a=b"})
    names = [each["metadata"]["name"] for each in objects]
    assert names == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert version == "72"
    first = {"labelSelector": "a=b", "limit": str(PAGE)}
    assert queries == [first, first | {"continue": "1"}, first | {"continue": "2"}]


async def test_an_empty_list_may_have_no_items(serve, open_api):
    text = json.dumps({"metadata": {"resourceVersion": "7"}, "items": None})
    api = await open_api(await serve(always(text=text)))
    assert await api.list_all("/api/v1/pods") == ([], "7")


SHAPES = [
    "{}",
    "[]",
    "null",
    "7",
    json.dumps({"items": 7, "metadata": {"resourceVersion": "7"}}),
    json.dumps({"items": ["a"], "metadata": {"resourceVersion": "7"}}),
    json.dumps({"items": [{"metadata": {}}], "metadata": {"resourceVersion": "7"}}),
    json.dumps({"items": [], "metadata": {}}),
    json.dumps({"items": []}),
    "[" * 100_000,
]
"""JSON that is no list of Kubernetes."""


@pytest.mark.parametrize("text", SHAPES, ids=lambda text: text[:50])
async def test_an_answer_that_is_no_list_is_an_error(serve, open_api, text):
    api = await open_api(await serve(always(text=text)))
    with pytest.raises(ClusterError, match="does not answer as Kubernetes does") as caught:
        await api.list_all("/api/v1/pods")
    assert caught.value.exit_code == 6


# Watches


def event(kind, name, **more):
    document = {"metadata": {"name": name, "resourceVersion": "8", **more}}
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"


def watching(script):
    """Give a handler that has ``script(response, request)`` write a watch's events."""

    async def handle(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await script(response, request)
        return response

    return handle


async def events_of(api, version="7"):
    return [
        (kind, found["metadata"]["name"])
        async for kind, found in api.watch("/api/v1/pods", version)
    ]


async def test_a_watch_tells_what_happens_from_a_version_on(serve, open_api):
    asked = {}

    async def script(response, request):
        asked.update(request.query)
        await response.write(event("ADDED", "a") + event("MODIFIED", "a"))
        await response.write(b"\n" + event("DELETED", "a") + event("BOOKMARK", "b"))

    api = await open_api(await serve(watching(script)))
    assert await events_of(api, "4711") == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("BOOKMARK", "b"),
    ]
    assert (asked["watch"], asked["resourceVersion"]) == ("1", "4711")
    assert asked["allowWatchBookmarks"] == "true"
    assert int(asked["timeoutSeconds"]) > 0


async def test_an_event_may_come_in_pieces(serve, open_api):
    go_on = asyncio.Event()

    async def script(response, request):
        second = event("MODIFIED", "b", annotations={"text": "\u00e9" * 300_000})
        await response.write(event("ADDED", "a") + second[:40])
        await go_on.wait()
        await response.write(second[40:] + event("DELETED", "c"))

    api = await open_api(await serve(watching(script)))
    names = []
    async for kind, found in api.watch("/api/v1/pods", "7"):
        names.append((kind, found["metadata"]["name"]))
        go_on.set()
    assert names == [("ADDED", "a"), ("MODIFIED", "b"), ("DELETED", "c")]


async def test_half_an_event_at_the_end_is_none(serve, open_api):
    async def script(response, request):
        await response.write(event("ADDED", "a") + event("ADDED", "b")[:-10])

    api = await open_api(await serve(watching(script)))
    assert await events_of(api) == [("ADDED", "a")]


async def test_a_version_that_is_too_old_is_gone(serve, open_api):
    async def script(response, request):
        status = {"kind": "Status", "code": 410, "message": "too old resource version: 7"}
        text = json.dumps({"type": "ERROR", "object": status}).encode()
        await response.write(event("ADDED", "a") + text + b"\n")

    for handle in (watching(script), gone):
        api = await open_api(await serve(handle))
        with pytest.raises(ApiError, match="too old resource version: 7") as caught:
            await events_of(api)
        assert caught.value.status == 410


async def gone(request):
    return refusal(410, "too old resource version: 7")


async def test_a_watch_that_breaks_is_an_error(serve, open_api):
    async def script(response, request):
        await response.write(event("ADDED", "a"))
        request.transport.abort()

    api = await open_api(await serve(watching(script)))
    with pytest.raises(ClusterError, match="is unreachable"):
        await events_of(api)


async def test_a_watch_of_nonsense_is_an_error(serve, open_api):
    async def script(response, request):
        await response.write(b"<html>\n")

    api = await open_api(await serve(watching(script)))
    with pytest.raises(ClusterError) as caught:
        await events_of(api)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        None,
        {"type": "ADDED"},
        {"type": "ADDED", "object": None},
        {"type": "ADDED", "object": {}},
        {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "8"}}},
        {"type": "ERROR", "object": None},
    ],
)
async def test_an_event_of_another_shape_is_an_error(serve, open_api, said):
    api = await open_api(await serve(always(text=json.dumps(said) + "\n")))
    with pytest.raises(ClusterError, match="does not answer as Kubernetes does"):
        await events_of(api)


async def test_a_watch_that_is_refused_says_why(serve, open_api):
    api = await open_api(await serve(forbidden))
    with pytest.raises(ApiError, match="forbidden: pods is forbidden"):
        await events_of(api)


# What a server says no with


async def forbidden(request):
    return refusal(403, "pods is forbidden: User ann cannot list pods")


@pytest.mark.parametrize(
    ("renewable", "hint"),
    [
        (None, "log in again"),
        ("exec plugin", "exec plugin's credentials are not taken"),
        ("token file", "renew the token file"),
    ],
)
async def test_whoever_is_not_known_is_told(serve, open_api, renewable, hint):
    server = await serve(always(401, json.dumps({"message": "Unauthorized"})))
    api = await open_api(server, renewable=renewable)
    with pytest.raises(AuthError, match="does not know us") as caught:
        await api.request("GET", "/api")
    assert caught.value.exit_code == 8
    assert server in str(caught.value)
    assert "context dev" in str(caught.value)
    assert hint in caught.value.hint


async def test_whoever_is_not_allowed_is_told_what(serve, open_api):
    api = await open_api(await serve(forbidden))
    with pytest.raises(ApiError, match="User ann cannot list pods") as caught:
        await api.request("GET", "/api/v1/pods")
    assert (caught.value.exit_code, caught.value.status) == (6, 403)
    assert "tunstack install --grant-users" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (404, json.dumps({"message": "pods x not found"}), "pods x not found"),
        (422, json.dumps({"message": "is invalid"}), "is invalid"),
        (500, "<html>Internal error</html>", "<html>Internal error</html>"),
        (502, "", "status 502"),
        (503, "[]", "[]"),
        (503, "{}", "{}"),
        (504, "x" * 5000, "x" * 200),
    ],
)
async def test_an_error_is_said_in_the_servers_words(serve, open_api, status, text, said):
    server = await serve(always(status, text))
    api = await open_api(server)
    with pytest.raises(ApiError) as caught:
        await api.request("GET", "/api")
    assert (caught.value.exit_code, caught.value.status) == (6, status)
    assert str(caught.value) == f"the API server {server} (context dev): {said}"


async def test_an_answer_that_is_no_json_is_an_error(serve, open_api):
    server = await serve(always(200, "<html>Sign in</html>", "text/html"))
    api = await open_api(server)
    with pytest.raises(ClusterError, match="does not answer as Kubernetes") as caught:
        await api.request("GET", "/api")
    assert caught.value.exit_code == 6
    assert server in str(caught.value)


async def test_a_silent_server_names_the_setting(serve, open_api):
    async def say_nothing(request):
        await asyncio.Event().wait()

    server = await serve(say_nothing)
    api = await open_api(server, timeout=0.1)
    with pytest.raises(
        ClusterError, match=r"within 0\.1 s \(timeouts\.api_request\)"
    ) as caught:
        await api.request("GET", "/api")
    assert server in str(caught.value)
    assert caught.value.exit_code == 6


async def test_nobody_there_is_unreachable(open_api, unused_tcp_port):
    server = f"http://127.0.0.1:{unused_tcp_port}"
    api = await open_api(server)
    for asking in (api.request("GET", "/api"), events_of(api), opening(api)):
        with pytest.raises(
            ClusterError, match="is unreachable: connection refused"
        ) as caught:
            await asking
        assert caught.value.exit_code == 6
        assert server in str(caught.value)
        assert caught.value.hint


async def test_a_server_that_hangs_up_is_unreachable(serve, open_api):
    async def hang_up(request):
        request.transport.abort()

    api = await open_api(await serve(hang_up))
    with pytest.raises(ClusterError, match="is unreachable"):
        await api.request("GET", "/api")


# TLS


async def test_the_given_authority_is_trusted(serve, open_api, keys):
    api = await open_api(await serve(tell, server_context(keys)))
    assert (await api.request("GET", "/api"))["path"] == "/api"


@pytest.mark.parametrize("given", [True, False])
async def test_a_server_of_another_authority_is_not_trusted(
    serve, open_api, keys, other_keys, given
):
    server = await serve(tell, server_context(keys))
    ca = other_keys.certificate.read_text() if given else None
    api = await open_api(server, ca=ca)
    for asking in (api.request("GET", "/api"), events_of(api), opening(api)):
        with pytest.raises(KubeconfigError, match="is not to be trusted") as caught:
            await asking
        assert caught.value.exit_code == 3
        assert server in str(caught.value)
        assert "/home/dev/.kube/config, cluster dev" in caught.value.hint


async def test_any_server_is_trusted_when_that_was_said(serve, open_api, other_keys):
    server = await serve(tell, server_context(other_keys))
    api = await open_api(server, insecure=True)
    assert (await api.request("GET", "/api"))["path"] == "/api"


async def test_a_server_may_have_another_name(serve, open_api, other_keys):
    server = await serve(tell, server_context(other_keys))
    ca = other_keys.certificate.read_text()
    api = await open_api(server, ca=ca, tls_server_name="api.internal")
    assert (await api.request("GET", "/api"))["path"] == "/api"
    stranger = await open_api(server, ca=ca)
    with pytest.raises(KubeconfigError, match=r"127\.0\.0\.1"):
        await stranger.request("GET", "/api")


async def test_a_websocket_goes_to_another_name_too(serve, open_api, other_keys):
    server = await serve(agreeing, server_context(other_keys))
    ca = other_keys.certificate.read_text()
    api = await open_api(server, ca=ca, tls_server_name="api.internal")
    assert await opening(api) == "hello"


async def whose(request):
    """Answer with the name in the client's certificate."""
    certificate = request.transport.get_extra_info("peercert")
    return web.json_response({"name": certificate["subject"][0][0][1]})


async def test_our_certificate_is_presented(serve, open_api, keys, other_keys):
    server = await serve(whose, server_context(keys, client=other_keys))
    known = await open_api(
        server,
        certificate=other_keys.certificate.read_text(),
        key=other_keys.key.read_text(),
    )
    assert await known.request("GET", "/api") == {"name": "manager"}
    nobody = await open_api(server)
    with pytest.raises(ClusterError, match="is unreachable"):
        await nobody.request("GET", "/api")


async def test_a_new_certificate_is_presented_from_then_on(
    serve, open_api, keys, other_keys
):
    api = await open_api(await serve(whose, server_context(keys, client=other_keys)))
    with pytest.raises(ClusterError):
        await api.request("GET", "/api")
    pair = {
        "certificate": other_keys.certificate.read_text(),
        "key": other_keys.key.read_text(),
    }
    api.use(Access.build(api.access.plain() | pair))
    assert await api.request("GET", "/api") == {"name": "manager"}


@pytest.mark.parametrize("part", ["certificate", "key"])
async def test_a_certificate_and_a_key_that_make_no_pair_are_named(keys, other_keys, part):
    said = {
        "certificate": keys.certificate.read_text(),
        "key": keys.key.read_text(),
        part: getattr(other_keys, part).read_text(),
    }
    access = Access(
        context="dev", namespace="default", server="https://127.0.0.1", source="x", **said
    )
    with pytest.raises(KubeconfigError, match=r"context dev.*do not make a pair"):
        Api(access, timeout=1)


def test_a_key_with_a_password_is_not_supported(keys):
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", keys.key]
    encrypted = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    access = Access(
        context="dev",
        namespace="default",
        server="https://127.0.0.1",
        source="x",
        certificate=keys.certificate.read_text(),
        key=encrypted,
    )
    with pytest.raises(KubeconfigError, match="key with a password is not supported"):
        Api(access, timeout=1)


async def test_a_server_without_tls_is_unreachable(serve, open_api):
    server = (await serve(tell)).replace("http:", "https:")
    api = await open_api(server)
    with pytest.raises(ClusterError, match="is unreachable") as caught:
        await api.request("GET", "/api")
    assert caught.value.exit_code == 6


# Proxies


async def test_plain_requests_go_through_an_http_proxy(serve, open_api, proxy):
    server = await serve(tell)
    front, address = await proxy(HttpProxy, server)
    api = await open_api("http://api.invalid", proxy=f"http://{address}")
    assert (await api.request("GET", "/api"))["path"] == "/api"
    assert front.asked == ["GET http://api.invalid/api"]


async def test_tls_goes_through_an_http_proxy(serve, open_api, proxy, other_keys):
    server = await serve(tell, server_context(other_keys))
    front, address = await proxy(HttpProxy, server)
    ca = other_keys.certificate.read_text()
    url = f"http://{address}"
    api = await open_api("https://api.internal:6443", ca=ca, proxy=url)
    assert (await api.request("GET", "/api"))["path"] == "/api"
    assert front.asked == ["CONNECT api.internal:6443"]


async def test_behind_an_http_proxy_a_server_may_have_another_name(
    serve, open_api, proxy, other_keys
):
    server = await serve(tell, server_context(other_keys))
    _, address = await proxy(HttpProxy, server)
    api = await open_api(
        server,
        ca=other_keys.certificate.read_text(),
        proxy=f"http://{address}",
        tls_server_name="api.internal",
    )
    assert (await api.request("GET", "/api"))["path"] == "/api"


async def test_tls_goes_through_a_socks_proxy(serve, open_api, proxy, keys, other_keys):
    server = await serve(tell, server_context(keys))
    _, address = await proxy(SocksProxy, server)
    api = await open_api(server, proxy=f"socks5://{address}")
    assert (await api.request("GET", "/api"))["path"] == "/api"
    ca = other_keys.certificate.read_text()
    stranger = await open_api(server, proxy=f"socks5://{address}", ca=ca)
    with pytest.raises(KubeconfigError, match="is not to be trusted"):
        await stranger.request("GET", "/api")


async def test_behind_a_socks_proxy_a_server_may_have_another_name(
    serve, open_api, proxy, other_keys
):
    server = await serve(tell, server_context(other_keys))
    _, address = await proxy(SocksProxy, server)
    said = {
        "ca": other_keys.certificate.read_text(),
        "proxy": f"socks5://{address}",
    }
    api = await open_api(server, tls_server_name="api.internal", **said)
    assert (await api.request("GET", "/api"))["path"] == "/api"
    for name in (None, "api.example"):
        stranger = await open_api(server, tls_server_name=name, **said)
        with pytest.raises(KubeconfigError, match="is not to be trusted"):
            await stranger.request("GET", "/api")


async def test_a_proxy_may_be_reached_over_tls(serve, open_api, proxy, keys):
    server = await serve(tell, server_context(keys))
    front, address = await proxy(HttpProxy, server, server_context(keys))
    api = await open_api(server, proxy=f"https://{address}")
    assert (await api.request("GET", "/api"))["path"] == "/api"
    assert front.asked == [f"CONNECT {server.removeprefix('https://')}"]


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [
        ("socks5", "127.0.0.1"),
        ("SOCKS5", "127.0.0.1"),
        ("socks5h", "localhost"),
        ("Socks5H", "localhost"),
    ],
)
async def test_a_socks_proxy_is_given_an_address_or_a_name(
    serve, open_api, proxy, scheme, asked
):
    front, address = await proxy(SocksProxy, await serve(tell))
    api = await open_api("http://localhost:6443", proxy=f"{scheme}://{address}")
    assert (await api.request("GET", "/api"))["path"] == "/api"
    assert front.asked in ([asked], ["::1"])


async def test_a_websocket_goes_through_a_socks_proxy(serve, open_api, proxy):
    front, address = await proxy(SocksProxy, await serve(agreeing))
    api = await open_api("http://api.invalid", proxy=f"socks5h://{address}")
    assert await opening(api) == "hello"
    assert front.asked == ["api.invalid"]


@pytest.mark.parametrize("there", [True, False])
async def test_a_socks_proxy_that_fails_is_named(
    serve, open_api, proxy, unused_tcp_port, there
):
    front, address = await proxy(SocksProxy, await serve(tell))
    front.refusing = True
    address = address if there else f"127.0.0.1:{unused_tcp_port}"
    api = await open_api("http://api.invalid", proxy=f"socks5h://ann:secret@{address}")
    said = f"the proxy socks5h://{address} {'refuses' if there else 'cannot be reached'}"
    for asking in (api.request("GET", "/api"), events_of(api), opening(api)):
        with pytest.raises(ClusterError, match=said) as caught:
            await asking
        assert "HTTPS_PROXY" in caught.value.hint


async def test_a_socks_proxy_that_hangs_up_is_named(open_api, stack):
    async def hang_up(_reader, writer):
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    stack.callback(server.close)
    host, port = server.sockets[0].getsockname()
    api = await open_api("http://api.invalid", proxy=f"socks5h://{host}:{port}")
    for asking in (api.request("GET", "/api"), events_of(api), opening(api)):
        with pytest.raises(ClusterError, match=f"the proxy socks5h://{host}:{port}"):
            await asking


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_named(open_api, unused_tcp_port, scheme):
    proxy = f"http://ann:secret@127.0.0.1:{unused_tcp_port}"
    api = await open_api(f"{scheme}://api.invalid", proxy=proxy)
    with pytest.raises(ClusterError, match=r"proxy .*cannot be reached") as caught:
        await api.request("GET", "/api")
    assert f"http://127.0.0.1:{unused_tcp_port}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "HTTPS_PROXY" in caught.value.hint


async def test_a_server_behind_a_proxy_is_named_with_it(serve, open_api, proxy):
    _, address = await proxy(HttpProxy, await serve(forbidden))
    api = await open_api("http://api.invalid", proxy=f"http://ann:secret@{address}")
    with pytest.raises(ApiError, match=r"http://api\.invalid through the proxy") as caught:
        await api.request("GET", "/api")
    assert f"the proxy http://{address} " in str(caught.value)


async def test_a_proxy_that_refuses_is_named(serve, open_api, proxy):
    front, address = await proxy(HttpProxy, await serve(tell))
    front.refusing = True
    api = await open_api("https://api.invalid", proxy=f"http://{address}")
    with pytest.raises(ClusterError, match="407 Proxy Authentication Required") as caught:
        await api.request("GET", "/api")
    assert f"http://{address}" in str(caught.value)


# WebSockets


async def agreeing(request):
    """Agree to what is spoken, and say hello."""
    socket = web.WebSocketResponse(protocols=[PROTOCOL])
    await socket.prepare(request)
    await socket.send_str("hello")
    await socket.receive()
    return socket


async def opening(api, timeout=10):
    """Open a WebSocket; gives the first message."""
    async with api.websocket("/api/x", PROTOCOL, timeout=timeout, query={"a": "b"}) as ws:
        return await ws.receive_str()


async def test_a_websocket_is_opened(serve, open_api):
    asked = {}

    async def handle(request):
        asked.update(request.query, path=request.path)
        asked["who"] = request.headers["Authorization"]
        return await agreeing(request)

    headers = (("Authorization", "Bearer secret"),)
    api = await open_api(await serve(handle), headers=headers)
    assert await opening(api) == "hello"
    assert asked == {"a": "b", "path": "/api/x", "who": "Bearer secret"}


@pytest.mark.parametrize("protocols", [(), ("portforward.k8s.io",)])
async def test_a_server_that_speaks_something_else_is_named(serve, open_api, protocols):
    async def handle(request):
        socket = web.WebSocketResponse(protocols=protocols)
        await socket.prepare(request)
        await socket.receive()
        return socket

    api = await open_api(await serve(handle))
    with pytest.raises(ClusterError, match=f"does not speak {PROTOCOL}") as caught:
        await opening(api)
    assert "1.30" in caught.value.hint


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [403, 404])
async def test_a_websocket_that_is_refused_says_why(serve, open_api, method, status):
    async def handle(request):
        if "Upgrade" in request.headers:
            return web.Response(status=status)
        if request.method == method:
            return refusal(status, "ann cannot create pods/portforward")
        return refusal(400, "Upgrade request required")

    api = await open_api(await serve(handle))
    with pytest.raises(ApiError, match="ann cannot create pods/portforward") as caught:
        await opening(api)
    assert (caught.value.status, caught.value.exit_code) == (status, 6)


@pytest.mark.parametrize(
    ("get", "post", "said"),
    [
        ((403, "Forbidden"), (403, "ann cannot create"), "ann cannot create"),
        ((403, "ann cannot get"), (403, "Forbidden"), "ann cannot get"),
        ((403, "by the proxy"), (400, "Bad request"), "by the proxy"),
    ],
)
async def test_the_refusal_that_names_the_right_is_said(serve, open_api, get, post, said):
    async def handle(request):
        if "Upgrade" in request.headers:
            return web.Response(status=403)
        return refusal(*{"GET": get, "POST": post}[request.method])

    api = await open_api(await serve(handle))
    with pytest.raises(ApiError, match=said):
        await opening(api)


async def test_a_websocket_of_somebody_unknown_says_so(serve, open_api):
    api = await open_api(await serve(always(401)))
    with pytest.raises(AuthError, match="does not know us"):
        await opening(api)


async def test_a_websocket_that_nothing_explains_names_the_status(serve, open_api):
    async def handle(request):
        if "Upgrade" in request.headers:
            return web.Response(status=502)
        return refusal(400, "Upgrade request required")

    api = await open_api(await serve(handle))
    with pytest.raises(ApiError, match="opens no WebSocket: HTTP status 502") as caught:
        await opening(api)
    assert caught.value.status == 502


async def test_a_websocket_that_does_not_open_times_out(serve, open_api):
    async def say_nothing(request):
        await asyncio.Event().wait()

    api = await open_api(await serve(say_nothing))
    with pytest.raises(TimeoutError):
        await opening(api, timeout=0.1)
