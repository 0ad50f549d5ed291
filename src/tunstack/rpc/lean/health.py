"""``grpc.health.v1`` (the gRPC project's health checking protocol)."""

import asyncio

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2 as pb

from tunstack.rpc.http2.status import Status
from tunstack.rpc.lean.call import CallError, ServerCall, method
from tunstack.rpc.lean.server import Begin

_SERVICE = "/grpc.health.v1.Health"


class Health:
    """Answers how services are, and tells who watches when that changes."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.methods: dict[str, Begin] = {
            f"{_SERVICE}/Check": method(self._check),
            f"{_SERVICE}/Watch": method(self._watch),
        }

    def set(self, service: str, serving: bool) -> None:
        """Set how a service is."""
        states = pb.HealthCheckResponse
        self._states[service] = states.SERVING if serving else states.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, call: ServerCall) -> None:
        service = await _service(call)
        if service not in self._states:
            raise CallError(Status.NOT_FOUND, f"unknown service {service}")
        await call.write(_answer(self._states[service]))

    async def _watch(self, call: ServerCall) -> None:
        service = await _service(call)
        said = None
        while True:
            changed = self._changed
            state = self._states.get(service, pb.HealthCheckResponse.SERVICE_UNKNOWN)
            if state != said:
                await call.write(_answer(state))
                said = state
            await changed.wait()


async def _service(call: ServerCall) -> str:
    question = await call.read()
    try:
        return str(pb.HealthCheckRequest.FromString(question or b"").service)
    except DecodeError:
        raise CallError(Status.INVALID_ARGUMENT, "not a HealthCheckRequest") from None


def _answer(state: int) -> bytes:
    return bytes(pb.HealthCheckResponse(status=state).SerializeToString())
