"""gRPC on asyncio, without grpcio: HTTP/2 framed here, in the loop's own thread."""

from tunstack.rpc.lean.tunnel import connect, serve

__all__ = ["connect", "serve"]
