"""Where questions to the host's own name servers go instead.

By packet filter, so it holds for every program, whatever it reads for its name server.
Where a question goes depends on where it was to go:

==========================  =========================================================
name server                 its questions, UDP and TCP to port 53
==========================  =========================================================
an address of the network   go to our server in the device, of the same IP version;
                            those of containers behind this host as well
on loopback                 go to our port on 127.0.0.1 or ::1: the kernel refuses to
                            send what has a loopback source anywhere else (EINVAL)
IPv6, link-local            stay: their source is link-local too, and gets no answer
                            from another link
IPv6, without a server of   stay
ours that has IPv6
==========================  =========================================================

Our server in turn asks the host's own name servers with sockets that have :data:`MARK`;
their questions stay. A conversation that was there before goes on as it was (conntrack).
"""

from collections.abc import Sequence
from typing import NamedTuple

from tunstack.errors import HostError
from tunstack.host.routes import Address

MARK = 0x35
"""Of the sockets of our server (socket(7), SO_MARK).

Compared as a whole, and no bit of it is in the masks of kube-proxy (0xc000), Tailscale
(0xff0000), Calico (0xffff0000) or Cilium (0xf00).
"""

DNS = 53


class Rewrite(NamedTuple):
    """Where the questions to one name server go."""

    name_server: Address

    server: Address | None
    """``None`` for loopback."""

    port: int


def plan(
    servers: Sequence[Address], name_servers: Sequence[Address], port: int | None
) -> list[Rewrite]:
    """Say where the questions go; a name server whose questions stay is left out.

    Args:
        servers: our addresses in the device, at most one an IP version.
        name_servers: the host's own.
        port: of our server on loopback.

    Raises:
        HostError: all of them would stay, or one on loopback needs a port.
    """
    ours = {server.version: server for server in servers}
    rewrites = []
    for name_server in dict.fromkeys(name_servers):
        if name_server.is_loopback:
            if port is None:
                raise HostError(f"name server {name_server} needs a port on loopback")
            rewrites.append(Rewrite(name_server, None, port))
        elif name_server.version == 6 and name_server.is_link_local:
            continue
        elif (server := ours.get(name_server.version)) not in (None, name_server):
            rewrites.append(Rewrite(name_server, server, DNS))
    if not rewrites:
        which = ", ".join(map(str, name_servers)) or "there is none"
        raise HostError(f"no name server of the host can be overridden: {which}")
    return rewrites
