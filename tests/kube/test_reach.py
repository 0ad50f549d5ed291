"""From a laptop that reaches the API server's port and nothing else, into the cluster."""

import json
import socket
import subprocess
import sys
import time

import dns.message
import dns.query
import pytest

from tests.support.kube import API, Kube

NEW = "tunstack-test-new"


@pytest.fixture
def service(connected: Kube) -> str:
    return connected.service("testserver", "testserver")


@pytest.fixture
def pod(connected: Kube) -> str:
    return connected.pods("testserver", "app=testserver")[0]["status"]["podIP"]


def test_http_by_cluster_ip_and_by_pod_ip(connected, service, pod):
    seen = json.loads(connected.curl(f"http://{service}/"))
    assert seen["name"] == service
    connected.curl(f"http://{pod}:8080/healthz")
    # The manager is who calls: a pod like any other.
    (manager,) = connected.pods("tunstack", "app.kubernetes.io/component=manager")
    assert seen["remote"].rpartition(":")[0] == manager["status"]["podIP"]


@pytest.mark.parametrize("where", ["service", "pod"])
def test_tcp_echo(connected, request, where):
    host = request.getfixturevalue(where)
    with connected.tcp(host, 7 if where == "service" else 7007) as sock:
        sock.sendall(b"hello" * 1000)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while piece := sock.recv(65536):
            received += piece
    assert received == b"hello" * 1000


@pytest.mark.parametrize("where", ["service", "pod"])
def test_udp_echo(connected, request, where):
    host = request.getfixturevalue(where)
    with connected.laptop:
        sock = socket.socket(type=socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(10)
        sock.connect((host, 7 if where == "service" else 7007))
        sock.send(b"datagram")
        assert sock.recv(100) == b"datagram"


def test_the_api_server_by_its_cluster_ip(connected):
    words = ("--insecure", "--output", "/dev/null", "--write-out", "%{http_code}")
    code = connected.laptop.run(
        "curl", "--silent", "--max-time", "10", *words, "https://10.96.0.1/"
    )
    assert code in ("401", "403")


def test_a_question_to_the_clusters_dns(connected, service):
    with connected.laptop:
        answer = dns.query.udp(
            dns.message.make_query("testserver.testserver.svc.cluster.local", "A"),
            "10.96.0.10",
            timeout=10,
        )
    assert [str(record) for record in answer.answer[0]] == [service]


def test_ping_to_a_pod(connected, pod):
    assert " 0% packet loss" in connected.laptop.run("ping", "-c", "2", "-W", "5", pod)


def test_a_closed_port_of_a_pod_refuses(connected, pod):
    with pytest.raises(ConnectionRefusedError):
        connected.tcp(pod, 9)


def test_a_new_service_is_there_two_seconds_after_its_creation(connected):
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NEW, "namespace": "testserver"},
        "spec": {
            "selector": {"app": "testserver"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }
    connected.apply(manifest)
    try:
        # The kernel of the node needs its time as well: kube-proxy's.
        time.sleep(2)
        connected.curl(f"http://{connected.service(NEW, 'testserver')}/healthz")
    finally:
        connected.kubectl("-n", "testserver", "delete", "service", NEW)


def test_the_library_needs_no_device(installed):
    address = installed.service("testserver", "testserver")
    program = """
import asyncio, tunstack
async def main():
    async with tunstack.connect() as session:
        reader, writer = await session.open_connection("testserver.testserver", 80)
        writer.write(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
        print((await reader.readline()).decode())
        print(await session.resolve("testserver.testserver"))
asyncio.run(main())
"""
    done = subprocess.run(
        installed.laptop.inside(sys.executable, "-c", program),
        env=installed.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "200 OK" in done.stdout
    assert address in done.stdout


def test_after_quit_nothing_is_left(installed):
    before = installed.laptop.ip("route show"), installed.laptop.ip("-brief link show")
    installed.connect()
    address = installed.service("testserver", "testserver")
    installed.curl(f"http://{address}/healthz")
    installed.quit()
    assert installed.traces() == ""
    assert (
        installed.laptop.ip("route show"),
        installed.laptop.ip("-brief link show"),
    ) == before
    with pytest.raises(OSError):
        installed.tcp(address, 80, timeout=2)


def test_status_says_where_we_are(connected):
    status = connected.status()
    assert status["kubernetes"]["context"] == "kube-lab"
    assert status["kubernetes"]["server"] == f"https://{API[0]}:{API[1]}"
    assert status["kubernetes"]["namespace"] == "default"
    assert status["manager"]["namespace"] == "tunstack"
    assert status["routes"]["api_server"] == [f"{API[0]}/32"]
    assert status["routes"]["proxied"] == ["10.96.0.0/12", "10.244.0.0/24"]
    said = connected.tunstack("status").stdout
    for part in ("kube-lab", API[0], "tunstack/", "10.96.0.0/12"):
        assert part in said
