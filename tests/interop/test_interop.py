"""gRPC's own interoperability cases, with programs that nobody here wrote."""

import asyncio
import socket

import grpc
import pytest
import pytest_asyncio

from tests.interop import service, tools
from tests.interop.cases import CASES
from tests.support.keys import make_keys
from tunstack.rpc.channel import Endpoint
from tunstack.rpc.http2.status import Status
from tunstack.rpc.lean.call import CallError
from tunstack.rpc.lean.client import open_client
from tunstack.rpc.lean.server import Server

PATIENCE = 20
NAME = "manager.test"


@pytest.fixture(scope="module", params=["plaintext", "tls"])
def keys(request, tmp_path_factory):
    if request.param == "plaintext":
        return None
    return make_keys(tmp_path_factory.mktemp("keys"), f"DNS:{NAME}")


# Servers: each gives its port


@pytest_asyncio.fixture
async def lean_server(keys):
    server = Server(service.LEAN, keepalive=10)
    await server.listen(("127.0.0.1", 0), keys)
    yield server.port
    await server.close(0.1)


@pytest_asyncio.fixture
async def stock_server(keys):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.stock_handler(),))
    if keys is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = [(keys.key.read_bytes(), keys.certificate.read_bytes())]
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    await server.start()
    yield port
    await server.stop(None)


@pytest_asyncio.fixture
async def go_server(keys):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    options = [f"--port={port}"]
    if keys is not None:
        options += [
            "--use_tls",
            f"--tls_cert_file={keys.certificate}",
            f"--tls_key_file={keys.key}",
        ]
    process = await asyncio.create_subprocess_exec(tools.find("server"), *options)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:  # it does not say when it is ready
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield port
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(params=["lean", "stock", "go"])
def server(request):
    return request.getfixturevalue(f"{request.param}_server")


# Clients: each gives what begins calls


class LeanCall:
    """One call, as the cases want it."""

    def __init__(self, call):
        self._call = call
        self.read, self.write, self.cancel = call.read, call.write, call.cancel

    async def done_writing(self):
        self._call.done_writing()

    async def initial(self):
        return await self._call.initial_metadata

    async def trailing(self):
        return (await self._call.outcome).metadata


class StockCall:
    def __init__(self, call):
        self._call = call
        self.done_writing = getattr(call, "done_writing", None)

    async def read(self):
        try:
            message = await self._call.read()
        except asyncio.CancelledError:
            raise CallError(Status.CANCELLED) from None
        except grpc.aio.AioRpcError as error:
            raise CallError(Status(error.code().value[0]), error.details()) from None
        return None if message is grpc.aio.EOF else message

    async def write(self, message):
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise CallError(Status(error.code().value[0])) from None

    def cancel(self):
        self._call.cancel()

    async def initial(self):
        return [tuple(pair) for pair in await self._call.initial_metadata()]

    async def trailing(self):
        return [tuple(pair) for pair in await self._call.trailing_metadata()]


@pytest_asyncio.fixture
async def lean_client(keys):
    clients = []

    async def connect(port):
        ca = None if keys is None else keys.certificate.read_bytes()
        endpoint = Endpoint(
            host="127.0.0.1", port=port, tls=keys is not None, ca=ca, server_name=NAME
        )
        client = await open_client(endpoint, keepalive=None, timeout=PATIENCE)
        clients.append(client)

        async def begin(path, request=None, metadata=(), timeout=None):
            call = client.call(path, metadata=metadata, timeout=timeout)
            if request is not None:
                await call.write(request.SerializeToString())
                call.done_writing()
            return LeanCall(call)

        return begin

    yield connect
    for client in clients:
        await client.close()


@pytest_asyncio.fixture
async def stock_client(keys):
    channels = []

    async def connect(port):
        target = f"127.0.0.1:{port}"
        if keys is None:
            channel = grpc.aio.insecure_channel(target)
        else:
            credentials = grpc.ssl_channel_credentials(keys.certificate.read_bytes())
            options = [("grpc.ssl_target_name_override", NAME)]
            channel = grpc.aio.secure_channel(target, credentials, options)
        channels.append(channel)

        async def begin(path, request=None, metadata=(), timeout=None):
            options = {"metadata": metadata, "timeout": timeout}
            if request is None:
                return StockCall(channel.stream_stream(path)(**options))
            message = request.SerializeToString()
            return StockCall(channel.unary_stream(path)(message, **options))

        return begin

    yield connect
    for channel in channels:
        await channel.close()


@pytest.mark.parametrize("case", CASES)
async def test_our_client(case, lean_client, server):
    async with asyncio.timeout(PATIENCE):
        await CASES[case](await lean_client(server))


@pytest.mark.parametrize("case", CASES)
async def test_stock_grpcio_and_our_server(case, stock_client, lean_server):
    async with asyncio.timeout(PATIENCE):
        await CASES[case](await stock_client(lean_server))


@pytest.mark.parametrize("case", CASES)
async def test_grpc_go_and_our_server(case, keys, lean_server):
    options = ["--server_host=127.0.0.1", f"--server_port={lean_server}"]
    if keys is not None:
        options += [
            "--use_tls",
            "--use_test_ca",
            f"--ca_file={keys.certificate}",
            f"--server_host_override={NAME}",
        ]
    process = await asyncio.create_subprocess_exec(
        tools.find("client"),
        *options,
        f"--test_case={case}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, said.decode()
