"""The engine with a device of its own: what carries the packets in a benchmark.

``python -m tunstack.bench.engine MANAGER SUBNET`` says ``ready`` when the subnet is routed
into the device. It is the engine of `connect` without helper, names and daemons, because
those need a second user, whom a user namespace made without root does not have.
"""

import asyncio
import sys
from ipaddress import ip_network

from tunstack.config import Config
from tunstack.engine.session import connect
from tunstack.host import routes_linux
from tunstack.host.device import Device, open_tun
from tunstack.rpc.loop import run

DEVICE = "ts0"
_ADDRESS = "198.18.0.1/30"


def _open() -> Device:
    """Open a device with the settings that `connect` has."""
    settings = Config().routing
    fd, vnet = open_tun(DEVICE, offload=settings.offload)
    routes_linux.configure(
        DEVICE, mtu=settings.mtu, txqueuelen=settings.txqueuelen, addresses=[_ADDRESS]
    )
    return Device(fd, name=DEVICE, mtu=settings.mtu, vnet=vnet)


async def _carry(device: Device, manager: str) -> None:
    async with connect(manager, insecure=True) as session:
        session.attach(device)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main(manager: str, subnet: str) -> None:
    """Be the engine."""
    device = _open()
    routes_linux.set_routes(DEVICE, [ip_network(subnet)])
    run(_carry(device, manager))


if __name__ == "__main__":
    main(*sys.argv[1:])
