"""A second listener, on the network, for bearers of a token."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
import pytest_asyncio

from tests.manager.conftest import Client
from tests.support.keys import make_keys
from tunstack.errors import ClusterError, UsageError
from tunstack.manager.config import ManagerConfig
from tunstack.rpc import tunnel_pb2 as pb


@pytest_asyncio.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def protected(tmp_path):
    keys = make_keys(tmp_path, "IP:127.0.0.1")
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    return {
        "tls_cert": keys.certificate,
        "tls_key": keys.key,
        "token_file": tokens,
        "network": ("127.0.0.1", 0),
    }


class Reviewer:
    """Stands for the API server: knows some tokens, and takes its time."""

    namespace = "tunstack"

    def __init__(self):
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.users = {"good": "alice"}

    async def close(self):
        pass

    async def knows(self, token):
        self.asked.set()
        await self.answer.wait()
        if token == "broken":
            raise ClusterError("the API server is unreachable")
        return self.users.get(token)


async def secured(stack, manager, keys):
    credentials = grpc.ssl_channel_credentials(keys.read_bytes())
    channel = grpc.aio.secure_channel(f"127.0.0.1:{manager.network_port}", credentials)
    await stack.enter_async_context(channel)
    return Client(channel)


async def test_loopback_needs_no_token_and_the_network_does(
    start_manager, new_client, stack, protected
):
    manager, address = await start_manager(**protected)
    trusted = await new_client(address)
    assert (await trusted.hello()).session
    stranger = await secured(stack, manager, protected["tls_cert"])
    await stranger.say(hello=pb.Hello(protocol=1, protocol_minimum=1))
    assert (await stranger.body("goodbye")).code == pb.CODE_UNAUTHENTICATED
    friend = await secured(stack, manager, protected["tls_cert"])
    assert (await friend.hello(token="secret")).session


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("good", None),
        ("bad", pb.CODE_UNAUTHENTICATED),
        ("broken", pb.CODE_INTERNAL),
    ],
)
async def test_a_token_is_reviewed_before_anybody_is_let_in(
    start_manager, stack, protected, token, code
):
    manager, _ = await start_manager(**protected)
    # Review without a cluster: the settings would not let us.
    reviewer = manager._kubernetes = Reviewer()
    manager._tokens = None
    object.__setattr__(manager._config, "token_review", True)
    client = await secured(stack, manager, protected["tls_cert"])
    await client.say(hello=pb.Hello(protocol=1, protocol_minimum=1, token=token))
    await asyncio.wait_for(reviewer.asked.wait(), 10)
    assert manager.session_count == 0
    reviewer.answer.set()
    if code is None:
        assert (await client.body("welcome")).session
        assert manager.session_count == 1
    else:
        assert (await client.body("goodbye")).code == code


async def test_who_does_not_wait_for_the_review_is_refused(start_manager, stack, protected):
    manager, _ = await start_manager(**protected)
    reviewer = manager._kubernetes = Reviewer()
    manager._tokens = None
    object.__setattr__(manager._config, "token_review", True)
    client = await secured(stack, manager, protected["tls_cert"])
    await client.say(hello=pb.Hello(protocol=1, protocol_minimum=1, token="good"))
    await client.say(ping=pb.Ping(number=1))
    assert (await client.body("goodbye")).code == pb.CODE_PROTOCOL
    reviewer.answer.set()
    assert manager.session_count == 0


@pytest.mark.parametrize("missing", ["tls_cert", "token_file"])
def test_a_network_listener_is_never_unprotected(protected, missing):
    settings = protected | {missing: None}
    if missing == "tls_cert":
        settings["tls_key"] = None
    with pytest.raises(UsageError, match="--network"):
        ManagerConfig(**settings)
    with pytest.raises(UsageError, match="--network"):
        ManagerConfig(**settings, insecure=True)


def test_the_trusted_listener_stays_on_loopback(protected):
    with pytest.raises(UsageError, match="loopback"):
        ManagerConfig(**protected, host="0.0.0.0")
