"""A port-forward: one connection to a port of a pod, through the API server.

It is a WebSocket that speaks ``v4.channel.k8s.io``: each message is a channel number and
octets. Of each forwarded port, channel 0 carries the octets and channel 1 an error in
text; the first message on either is the port's number, 16 bits, low octet first
(k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go). Neither end can say that only
one direction has ended. Nobody here sends pings: what runs inside asks for signs of life,
and that keeps the connection from being idle on its way as well.

The connection ends on the loopback of the pod's network: whoever gets there has been let
through by the cluster's RBAC.
"""

import asyncio
import struct
from collections import deque
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from tunstack.cluster.api import Api
from tunstack.errors import ClusterError

PROTOCOL = "v4.channel.k8s.io"

MESSAGE = 256 * 1024
"""Octets after which a message of ours is full. Runtimes take up to 32 MiB. containerd
needs a tenth more CPU for 64 KiB, and two thirds more for 8 KiB."""

_PORT = struct.Struct("<H")
_DATA, _ERROR = 0, 1
_CHANNEL = bytes([_DATA])


class PortForward:
    """A reader and a writer like asyncio's, in one. Made by :func:`open_port_forward`.

    After an error :meth:`read` raises it; after the other end has closed, it gives no
    octets.
    """

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, undo: AsyncExitStack, peer: str
    ) -> None:
        self.peer = peer
        self._socket = socket
        self._undo = undo
        self._outbox: deque[Any] = deque()
        self._closing: asyncio.Task[None] | None = None

    async def read(self, _limit: int = -1) -> bytes | memoryview:
        """Wait for octets; as many as came in one message.

        Raises:
            ClusterError: the pod does not listen there, or the way there broke.
        """
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                data: bytes = message.data
                if len(data) > 1 and data[0] == _DATA:
                    return memoryview(data)[1:]
                if len(data) > 1 and data[0] == _ERROR:
                    text = data[1:].decode("utf-8", "replace")
                    raise ClusterError(f"the port-forward to {self.peer}: {text}")
            elif message.type is aiohttp.WSMsgType.ERROR:
                raise ClusterError(f"the port-forward to {self.peer} broke: {message.data}")
            elif message.type is not aiohttp.WSMsgType.TEXT:
                return b""

    def writelines(self, pieces: Any) -> None:
        """Take octets to send."""
        self._outbox.extend(pieces)

    async def drain(self) -> None:
        """Send what was taken, and wait until there is room for more."""
        outbox = self._outbox
        while outbox:
            message, octets = [_CHANNEL], 0
            while outbox and octets < MESSAGE:
                message.append(outbox.popleft())
                octets += len(message[-1])
            await self._socket.send_bytes(b"".join(message))

    def close(self) -> None:
        """Close the connection; returns at once."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._undo.aclose())


async def open_port_forward(
    api: Api, namespace: str, pod: str, port: int, *, timeout: float
) -> PortForward:
    """Connect to a port of a pod.

    Args:
        api: the way there.
        namespace: of the pod.
        pod: its name.
        port: on its loopback.
        timeout: seconds until it stands (``timeouts.manager_connect``).

    Raises:
        ApiError: forbidden, naming what is missing; or there is no such pod.
        ClusterError: the API is unreachable, or it was not open in time.
    """
    undo = AsyncExitStack()
    try:
        async with asyncio.timeout(timeout):
            socket = await undo.enter_async_context(
                api.websocket(
                    f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
                    PROTOCOL,
                    timeout=timeout,
                    query={"ports": str(port)},
                )
            )
            opened: set[int] = set()
            while opened != {_DATA, _ERROR}:
                message = await socket.receive()
                data = message.data
                if message.type is not aiohttp.WSMsgType.BINARY or data[1:] != _PORT.pack(
                    port
                ):
                    raise ClusterError(
                        f"the port-forward to the pod {pod} was not opened: {data!r}"
                    )
                opened.add(data[0])
    except TimeoutError:
        await undo.aclose()
        raise ClusterError(
            f"the port-forward to the traffic manager timed out after {timeout:g} s"
            " (timeouts.manager_connect)",
            hint="check the health of the node that the pod runs on",
        ) from None
    except BaseException:
        await undo.aclose()
        raise
    return PortForward(socket, undo, f"pod {namespace}/{pod}")
