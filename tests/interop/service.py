"""``grpc.testing.TestService``, on any server that can carry it.

Source: the gRPC project's description of its interoperability tests.
"""

import asyncio

import grpc

from tests.interop.messages import pb
from tunstack.rpc.http2.status import Status
from tunstack.rpc.lean.call import CallError, method

SERVICE = "grpc.testing.TestService"
INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"


def echo_metadata(call):
    """Say back what the client asks to have said back."""
    given = dict(call.metadata)
    if INITIAL in given:
        call.respond(((INITIAL, given[INITIAL]),))
    if TRAILING in given:
        call.trailing = ((TRAILING, given[TRAILING]),)


def echo_status(request):
    if request.HasField("response_status"):
        status = request.response_status
        raise CallError(Status(status.code), status.message)


async def empty_call(call):
    await call.read()
    await call.write(pb.Empty().SerializeToString())


async def unary_call(call):
    request = pb.SimpleRequest.FromString(await call.read())
    echo_metadata(call)
    echo_status(request)
    response = pb.SimpleResponse(payload=pb.Payload(body=bytes(request.response_size)))
    await call.write(response.SerializeToString())


async def streaming_input_call(call):
    total = 0
    async for message in call:
        total += len(pb.StreamingInputCallRequest.FromString(message).payload.body)
    response = pb.StreamingInputCallResponse(aggregated_payload_size=total)
    await call.write(response.SerializeToString())


async def full_duplex_call(call):
    echo_metadata(call)
    async for message in call:
        request = pb.StreamingOutputCallRequest.FromString(message)
        echo_status(request)
        for parameters in request.response_parameters:
            await asyncio.sleep(parameters.interval_us / 1e6)
            payload = pb.Payload(body=bytes(parameters.size))
            response = pb.StreamingOutputCallResponse(payload=payload)
            await call.write(response.SerializeToString())


METHODS = {
    "EmptyCall": empty_call,
    "UnaryCall": unary_call,
    "StreamingInputCall": streaming_input_call,
    "StreamingOutputCall": full_duplex_call,
    "FullDuplexCall": full_duplex_call,
}

LEAN = {f"/{SERVICE}/{name}": method(serve) for name, serve in METHODS.items()}
"""For :class:`tunstack.rpc.lean.server.Server`."""


CODES = {code.value[0]: code for code in grpc.StatusCode}


class StockCall:
    """A call of ``grpc.aio``, as the methods above want it."""

    def __init__(self, context):
        self.context = context
        self.metadata = context.invocation_metadata()
        self.initial = None
        self.trailing = ()

    def respond(self, metadata):
        self.initial = metadata

    async def read(self):
        message = await self.context.read()
        return None if message is grpc.aio.EOF else message

    def __aiter__(self):
        return self._messages()

    async def _messages(self):
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message):
        await self.begin()
        await self.context.write(message)

    async def begin(self):
        if self.initial is not None:
            await self.context.send_initial_metadata(self.initial)
            self.initial = None


def stock_handler():
    """For ``grpc.aio.Server.add_generic_rpc_handlers``."""

    def handler(serve):
        async def run(_requests, context):
            call = StockCall(context)
            try:
                await serve(call)
            except CallError as error:
                await context.abort(CODES[error.outcome.status], error.outcome.message)
            await call.begin()
            context.set_trailing_metadata(call.trailing)

        return grpc.stream_stream_rpc_method_handler(run)

    handlers = {name: handler(serve) for name, serve in METHODS.items()}
    return grpc.method_handlers_generic_handler(SERVICE, handlers)
