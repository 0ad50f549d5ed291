"""tunstack: your computer inside a Kubernetes cluster.

::

    import tunstack

    async with tunstack.connect(manager="127.0.0.1:7777") as session:
        reader, writer = await session.open_connection("echo.default", 80)

The names in ``__all__`` are the library, stable within a minor version. Each is loaded
when it is first used: importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tunstack import _version

if TYPE_CHECKING:
    from tunstack.config import Config
    from tunstack.engine.datagrams import DatagramSocket
    from tunstack.engine.link import Cluster, Manager
    from tunstack.engine.session import Session, Status, connect
    from tunstack.errors import (
        AuthError,
        ClusterError,
        ConfigError,
        TunnelError,
        TunstackError,
    )
    from tunstack.host.device import Device

__all__ = [
    "AuthError",
    "Cluster",
    "ClusterError",
    "Config",
    "ConfigError",
    "DatagramSocket",
    "Device",
    "Manager",
    "Session",
    "Status",
    "TunnelError",
    "TunstackError",
    "__version__",
    "connect",
]

__version__ = _version.PRODUCT

_HOMES = {
    "AuthError": "errors",
    "Cluster": "engine.link",
    "ClusterError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "DatagramSocket": "engine.datagrams",
    "Device": "host.device",
    "Manager": "engine.link",
    "Session": "engine.session",
    "Status": "engine.session",
    "TunnelError": "errors",
    "TunstackError": "errors",
    "connect": "engine.session",
}


def __getattr__(name: str) -> object:
    """Load what is asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    """Name the library."""
    return __all__
