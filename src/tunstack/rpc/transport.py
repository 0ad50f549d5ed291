"""Which implementation of gRPC: loaded when it is chosen, as grpcio takes its time."""

from importlib import import_module
from typing import Any


def load(name: str) -> Any:
    """Load one of ``config.TRANSPORTS``.

    Each has the same ``connect`` and ``serve``: see :mod:`.lean.tunnel` for what they
    take, and :mod:`.channel` for what they give.
    """
    return import_module(f"tunstack.rpc.{name}")
