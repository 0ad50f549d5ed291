"""The client's side of the gRPC project's interoperability tests, on any client.

A case is given ``begin(path, request=None, metadata=(), timeout=None)``, which begins a
call, with its only request if there is to be one, and raises what is wrong.

Source: the gRPC project's description of these tests.
"""

import pytest

from tests.interop.messages import pb
from tests.interop.service import INITIAL, SERVICE, TRAILING
from tunstack.rpc.http2.status import Status
from tunstack.rpc.lean.call import CallError

SIZES = [(27182, 31415), (8, 9), (1828, 2653), (45904, 58979)]
"""Octets of the requests and the responses of streams."""

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


def path(name):
    return f"/{SERVICE}/{name}"


def payload(size):
    return pb.Payload(body=bytes(size))


def duplex_request(request_size, response_size, **fields):
    parameters = [pb.ResponseParameters(size=response_size)]
    return pb.StreamingOutputCallRequest(
        payload=payload(request_size), response_parameters=parameters, **fields
    ).SerializeToString()


async def unary(call, kind):
    """Give the only answer."""
    answer = kind.FromString(await call.read())
    assert await call.read() is None
    return answer


async def read_all(call):
    while await call.read() is not None:
        pass


async def assert_ends(call, status, message=None):
    with pytest.raises(CallError) as caught:
        await read_all(call)
    assert caught.value.outcome.status is status
    if message is not None:
        assert caught.value.outcome.message == message


async def empty_unary(begin):
    await unary(await begin(path("EmptyCall"), pb.Empty()), pb.Empty)


async def large_unary(begin):
    request = pb.SimpleRequest(response_size=314159, payload=payload(271828))
    answer = await unary(await begin(path("UnaryCall"), request), pb.SimpleResponse)
    assert answer.payload.body == bytes(314159)


async def client_streaming(begin):
    call = await begin(path("StreamingInputCall"))
    for size, _ in SIZES:
        request = pb.StreamingInputCallRequest(payload=payload(size))
        await call.write(request.SerializeToString())
    await call.done_writing()
    answer = pb.StreamingInputCallResponse.FromString(await call.read())
    assert answer.aggregated_payload_size == 74922
    assert await call.read() is None


async def server_streaming(begin):
    sizes = [size for _, size in SIZES]
    parameters = [pb.ResponseParameters(size=size) for size in sizes]
    request = pb.StreamingOutputCallRequest(response_parameters=parameters)
    call = await begin(path("StreamingOutputCall"), request)
    for size in sizes:
        answer = pb.StreamingOutputCallResponse.FromString(await call.read())
        assert len(answer.payload.body) == size
    assert await call.read() is None


async def ping_pong(begin):
    call = await begin(path("FullDuplexCall"))
    for request_size, response_size in SIZES:
        await call.write(duplex_request(request_size, response_size))
        answer = pb.StreamingOutputCallResponse.FromString(await call.read())
        assert len(answer.payload.body) == response_size
    await call.done_writing()
    assert await call.read() is None


async def empty_stream(begin):
    call = await begin(path("FullDuplexCall"))
    await call.done_writing()
    assert await call.read() is None


async def cancel_after_begin(begin):
    call = await begin(path("StreamingInputCall"))
    call.cancel()
    await assert_ends(call, Status.CANCELLED)


async def cancel_after_first_response(begin):
    call = await begin(path("FullDuplexCall"))
    await call.write(duplex_request(27182, 31415))
    assert await call.read() is not None
    call.cancel()
    await assert_ends(call, Status.CANCELLED)


async def timeout_on_sleeping_server(begin):
    request = pb.StreamingOutputCallRequest(
        payload=payload(27182),
        response_parameters=[pb.ResponseParameters(size=31415, interval_us=1_000_000)],
    )
    call = await begin(path("FullDuplexCall"), request, timeout=0.001)
    await assert_ends(call, Status.DEADLINE_EXCEEDED)


async def status_code_and_message(begin):
    status = pb.EchoStatus(code=2, message="test status message")
    request = pb.SimpleRequest(response_status=status)
    call = await begin(path("UnaryCall"), request)
    await assert_ends(call, Status.UNKNOWN, "test status message")
    call = await begin(path("FullDuplexCall"))
    request = pb.StreamingOutputCallRequest(response_status=status)
    await call.write(request.SerializeToString())
    await call.done_writing()
    await assert_ends(call, Status.UNKNOWN, "test status message")


async def special_status_message(begin):
    status = pb.EchoStatus(code=2, message=SPECIAL)
    call = await begin(path("UnaryCall"), pb.SimpleRequest(response_status=status))
    await assert_ends(call, Status.UNKNOWN, SPECIAL)


async def unimplemented_method(begin):
    call = await begin(path("UnimplementedCall"), pb.Empty())
    await assert_ends(call, Status.UNIMPLEMENTED)


async def unimplemented_service(begin):
    service = "/grpc.testing.UnimplementedService"
    call = await begin(f"{service}/UnimplementedCall", pb.Empty())
    await assert_ends(call, Status.UNIMPLEMENTED)


async def custom_metadata(begin):
    initial, trailing = "test_initial_metadata_value", b"\xab\xab\xab"
    metadata = ((INITIAL, initial), (TRAILING, trailing))
    request = pb.SimpleRequest(response_size=1, payload=payload(1))
    call = await begin(path("UnaryCall"), request, metadata)
    await unary(call, pb.SimpleResponse)
    assert (INITIAL, initial) in await call.initial()
    assert (TRAILING, trailing) in await call.trailing()
    call = await begin(path("FullDuplexCall"), metadata=metadata)
    await call.write(duplex_request(1, 1))
    assert await call.read() is not None
    await call.done_writing()
    assert await call.read() is None
    assert (INITIAL, initial) in await call.initial()
    assert (TRAILING, trailing) in await call.trailing()


CASES = {
    case.__name__: case
    for case in (
        empty_unary,
        large_unary,
        client_streaming,
        server_streaming,
        ping_pong,
        empty_stream,
        cancel_after_begin,
        cancel_after_first_response,
        timeout_on_sleeping_server,
        status_code_and_message,
        special_status_message,
        unimplemented_method,
        unimplemented_service,
        custom_metadata,
    )
}
