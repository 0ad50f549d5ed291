"""The library carries packets of anything that has a descriptor."""

import sys

from tests.support.lab import MANAGER, Lab, Site
from tests.support.servers import ECHO_PORT

PROGRAM = """
import asyncio, socket, sys
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
import tunstack

async def main(manager, source, target, port):
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    network = IPv6 if ":" in target else IP
    async with tunstack.connect(manager=manager, insecure=True) as session:
        theirs.setblocking(False)
        device = tunstack.Device(theirs.detach(), name="none", mtu=1500, vnet=0)
        session.attach(device)
        question = network(src=source, dst=target) / UDP(sport=7, dport=port) / Raw(b"?")
        await loop.sock_sendall(ours, bytes(question))
        answer = network(await asyncio.wait_for(loop.sock_recv(ours, 65_536), 10))
    assert (answer.src, answer.dst, answer.dport) == (target, source, 7)
    print(bytes(answer[UDP].payload).decode())
    assert await loop.sock_recv(ours, 1) == b""  # the session let the device go

asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
"""


def test_packets_of_a_socket_reach_the_cluster(tunnel: Lab, site: Site) -> None:
    source = "fd00::77" if ":" in site.server else "192.0.2.77"
    said = tunnel.client.run(
        sys.executable, "-c", PROGRAM, MANAGER, source, site.server, str(ECHO_PORT)
    )
    assert said == "?\n"
