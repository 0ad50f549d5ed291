"""A process in the engine's place: takes a device, routes, says so, and holds it.

Its first argument is the descriptor of its end of the helper's socket. It lets go when
the helper is lost, as the engine does.
"""

import asyncio
import socket
import sys
from ipaddress import ip_network

from tunstack.host.helper_client import Helper


async def main() -> None:
    lost = asyncio.Event()
    helper = Helper(socket.socket(fileno=int(sys.argv[1])), on_lost=lost.set)
    device = await helper.open_device(
        "ts0", mtu=65_520, offload=True, txqueuelen=4096, addresses=["198.18.0.1/30"]
    )
    await helper.set_routes([ip_network("10.96.0.0/12")])
    print("ready", flush=True)
    await lost.wait()
    device.close()


asyncio.run(main())
