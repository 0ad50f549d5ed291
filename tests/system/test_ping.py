"""A ping tells whether the target lives, because the target itself answers."""

import socket
import subprocess

import pytest

from tests.support.lab import Lab, Site

ECHO_REQUEST = {
    socket.AF_INET: "ip daddr {} icmp type echo-request",
    socket.AF_INET6: "ip6 daddr {} icmpv6 type echo-request",
}


def ping(lab: Lab, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Ping three times within a second and wait a second for the last answer."""
    command = ("ping", "-n", "-c", "3", "-i", "0.3", "-W", "1", *options, address)
    return subprocess.run(
        lab.client.inside(*command), capture_output=True, text=True, timeout=10
    )


@pytest.mark.parametrize("size", [0, 56, 1472, 8000], ids="{}B".format)
def test_the_target_answers_itself(lab: Lab, site: Site, size: int) -> None:
    whole = "ip frag-off & 0x3fff == 0 " if site.family == socket.AF_INET else ""
    rule = whole + ECHO_REQUEST[site.family].format(site.server) + " counter"
    with lab.server.firewall(rule, hook="input") as asked:
        result = ping(lab, site.server, "-s", str(size))
        assert result.returncode == 0, result.stdout
        assert "3 received" in result.stdout
        assert lab.server.counted(asked) == [3]


@pytest.mark.parametrize("where", ["silent", "dead", "unreachable"])
def test_a_dead_target_does_not_answer(lab: Lab, site: Site, where: str) -> None:
    result = ping(lab, getattr(site, where))
    assert result.returncode == 1, result.stdout
    assert " 0 received" in result.stdout
