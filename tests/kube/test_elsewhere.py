"""Laptops that reach the cluster anyway, clients in a pod, and the network listener."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.support.keys import make_keys
from tests.support.kube import IMAGE, Kube, wait_until

MANAGER = "app.kubernetes.io/component=manager"

NODE = "172.30.0.1"

VPN = "172.30.0.2"


@contextmanager
def vpn(kube: Kube, *networks: str):
    """A link between the laptop and the node, as a VPN or a flat network would be."""
    laptop, node = kube.laptop.name, "kube-lab"
    peer = f"peer name laptop-vpn netns {node}"
    command = f"ip link add vpn netns {laptop} type veth {peer}"
    subprocess.run(command.split(), check=True)
    try:
        for where, name, address in ((laptop, "vpn", VPN), (node, "laptop-vpn", NODE)):
            for command in (f"address add {address}/24 dev {name}", f"link set {name} up"):
                subprocess.run(["ip", "-n", where, *command.split()], check=True)
        for network in networks:
            kube.laptop.ip(f"route add {network} via {NODE}")
        yield
    finally:
        kube.laptop.ip("link del vpn")


def test_what_is_reached_by_a_vpn_is_left_to_it(installed):
    service = installed.service("testserver", "testserver")
    # kube-proxy answers for services on whatever interface the node has.
    with vpn(installed, "10.0.0.0/8"):
        status = installed.connect()
        assert status["routes"]["reachable"] == ["10.96.0.0/12", "10.244.0.0/24"]
        assert status["routes"]["proxied"] == []
        assert "reached anyway" in installed.tunstack("status").stdout
        seen = json.loads(installed.curl(f"http://{service}/"))
        assert seen["remote"].startswith(("172.30.", "10.244.0.1:"))


def test_a_route_of_its_own_to_the_pods_is_no_conflict_when_they_are_reached(installed):
    with vpn(installed, "10.244.0.0/24"):
        status = installed.connect()
        assert status["routes"]["reachable"] == ["10.244.0.0/24"]
        assert status["routes"]["proxied"] == ["10.96.0.0/12"]
        installed.curl(f"http://{installed.service('testserver', 'testserver')}/healthz")


def test_a_route_to_somewhere_else_is_a_conflict(installed):
    installed.laptop.ip("route add 10.244.0.0/24 via 10.77.0.1")
    try:
        done = installed.tunstack("connect", "--no-dns")
    finally:
        installed.laptop.ip("route del 10.244.0.0/24")
    assert done.returncode == 5
    assert "10.244.0.0/24" in done.stderr
    assert installed.traces() == ""


@contextmanager
def pod(kube: Kube, program: str, *arguments: str, account: str = "default"):
    """Run a program in a pod of our image; gives what it said when it is over."""
    container = {
        "name": "client",
        "image": IMAGE,
        "command": [sys._base_executable, "-c", program, *arguments],
    }
    spec = {"containers": [container], "serviceAccountName": account}
    words = ["-n", "testserver"]
    kube.kubectl(
        *words, "run", "client", f"--image={IMAGE}", "--restart=Never",
        f"--overrides={json.dumps({'spec': spec})}",
    )  # fmt: skip

    def over() -> bool:
        found = kube.get(*words, "pod", "client")
        return found["status"]["phase"] in ("Succeeded", "Failed")

    try:
        wait_until(over, 60, "the program in the pod has ended")
        yield kube.kubectl(*words, "logs", "client")
    finally:
        kube.kubectl(*words, "delete", "pod", "client", "--now")


IN_A_POD = """
import asyncio, sys, tunstack
async def main():
    async with tunstack.connect() as session:
        reader, writer = await session.open_connection(sys.argv[1], 80)
        writer.write(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
        print((await reader.readline()).decode().strip())
asyncio.run(main())
"""


def test_the_library_in_a_pod_uses_the_pods_account(installed):
    account = "system:serviceaccount:testserver:default"
    installed.tunstack("install", "--grant-users", account)
    service = installed.service("testserver", "testserver")
    with pod(installed, IN_A_POD, service) as said:
        assert said.strip().endswith("200 OK"), said


BY_TOKEN = """
import asyncio, sys, tunstack
async def main():
    manager, token, ca, target = sys.argv[1:]
    async with tunstack.connect(manager, token=token, tls_ca=ca) as session:
        reader, writer = await session.open_connection(target, 7007)
        writer.write(b"by token")
        print((await reader.readexactly(8)).decode())
asyncio.run(main())
"""


def test_the_network_listener_wants_a_token_made_out_to_it(connected, tmp_path):
    host = connected.service("tunstack", "tunstack")
    keys = make_keys(tmp_path, f"IP:{host}")
    words = ["-n", "tunstack", "create", "secret", "tls", "listener"]
    connected.kubectl(*words, f"--cert={keys.certificate}", f"--key={keys.key}")
    target = connected.pods("testserver", "app=testserver")[0]["status"]["podIP"]

    def attempt(token: str) -> subprocess.CompletedProcess[str]:
        arguments = (f"{host}:7778", token, str(keys.certificate), target)
        return subprocess.run(
            connected.laptop.inside(sys.executable, "-c", BY_TOKEN, *arguments),
            env=connected.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    create = ("-n", "testserver", "create", "token", "default")
    try:
        connected.install("--tls-secret", "listener")
        good = connected.kubectl(*create, "--audience=tunstack").strip()
        done = attempt(good)
        assert done.stdout == "by token\n", done.stderr
        for token in (connected.kubectl(*create).strip(), "nobody's"):
            done = attempt(token)
            assert done.returncode != 0
            assert "AuthError" in done.stderr
            assert "does not know the token" in done.stderr
        done = attempt("")
        assert "a token is needed" in done.stderr
    finally:
        connected.tunstack("quit")
        connected.tunstack("uninstall")
        connected.kubectl("-n", "tunstack", "delete", "secret", "listener")


@pytest.mark.parametrize("transport", ["lean", "stock"])
def test_either_transport_goes_through_the_port_forward(installed, transport):
    status = installed.connect(TUNSTACK_TUNNEL_TRANSPORT=transport)
    service = installed.service("testserver", "testserver")
    for _ in range(3):
        installed.curl(f"http://{service}/healthz")
    assert status["manager"]["address"].startswith("tunstack/")
    installed.quit()
    assert installed.traces() == ""


def test_several_port_forwards_share_the_load(installed):
    status = installed.connect(TUNSTACK_CLUSTER_PORT_FORWARDS="3")
    target = installed.pods("testserver", "app=testserver")[0]["status"]["podIP"]
    (manager,) = installed.pods("tunstack", MANAGER)
    assert status["state"] == "connected"

    def sessions() -> int:
        log = installed.kubectl("-n", "tunstack", "logs", manager["metadata"]["name"])
        opened = [line for line in log.splitlines() if ": 127.0.0.1:" in line]
        over = [line for line in log.splitlines() if ": over: " in line]
        return len(opened) - len(over)

    wait_until(lambda: sessions() == 3, 20, "three sessions")
    for _ in range(6):
        with installed.tcp(target, 7007) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"


def test_a_new_namespace_is_known_to_connected_clients(connected):
    def names() -> list[str]:
        return connected.status()["kubernetes"]["namespaces"]

    assert "brand-new" not in names()
    connected.kubectl("create", "namespace", "brand-new")
    try:
        wait_until(lambda: "brand-new" in names(), 2, "the namespace is known")
    finally:
        connected.kubectl("delete", "namespace", "brand-new", "--wait=false")
    wait_until(lambda: "brand-new" not in names(), 20, "the namespace is forgotten")
