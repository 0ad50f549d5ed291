"""Pods that go, an API server that restarts, credentials that expire."""

import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.kube import LAB, Kube, wait_until
from tests.support.lab import tunstack

FLOWS = 50

MANAGER = "app.kubernetes.io/component=manager"


@pytest.fixture
def pod(kube: Kube) -> str:
    return kube.pods("testserver", "app=testserver")[0]["status"]["podIP"]


def echo(sock: socket.socket, text: bytes = b"still here") -> bool:
    sock.sendall(text)
    return sock.recv(100) == text


def succeeds(kube: Kube, host: str) -> bool:
    try:
        with kube.tcp(host, 7007, timeout=5) as sock:
            return echo(sock)
    except OSError:
        return False


def reset(sock: socket.socket) -> bool:
    """Whether the connection ends by a reset, and not in silence or in order."""
    sock.settimeout(30)
    try:
        return sock.recv(100) is None
    except ConnectionResetError:
        return True


def restart_api_server() -> None:
    pid = subprocess.check_output([LAB / "node", "pidof", "kube-apiserver"], text=True)
    subprocess.check_call([LAB / "node", "kill", "-9", *pid.split()])


def wait_api(kube: Kube) -> None:
    wait_until(
        lambda: "ok" in kube.kubectl("get", "--raw", "/readyz", check=False), 60, "API"
    )


@pytest.mark.parametrize("grace", ["--grace-period=0", "--grace-period=10"])
def test_flows_of_a_deleted_manager_are_reset_and_new_ones_find_the_next(
    connected, pod, grace
):
    (before,) = connected.pods("tunstack", MANAGER)
    with ExitStack() as stack:
        socks = [stack.enter_context(connected.tcp(pod, 7007)) for _ in range(FLOWS)]
        assert all(map(echo, socks))
        force = ["--force"] if grace.endswith("=0") else []
        name = before["metadata"]["name"]
        connected.kubectl(
            "-n", "tunstack", "delete", "pod", name, grace, *force, "--wait=false"
        )
        wait_until(lambda: succeeds(connected, pod), 30, "a new connection")
        assert all(map(reset, socks))
    status = connected.status()
    assert status["state"] == "connected"
    assert not status["manager"]["address"].endswith(name)


def test_while_a_manager_drains_its_flows_go_on_and_new_ones_go_elsewhere(connected, pod):
    (before,) = connected.pods("tunstack", MANAGER)
    name = before["metadata"]["name"]
    with connected.tcp(pod, 7007) as old:
        assert echo(old)
        connected.kubectl("-n", "tunstack", "delete", "pod", name, "--wait=false")
        wait_until(
            lambda: not connected.status()["manager"]["address"].endswith(name),
            20,
            "another manager",
        )
        assert succeeds(connected, pod)
        assert echo(old)


def test_with_two_replicas_the_other_one_takes_over(kube, pod):
    kube.install("--replicas", "2")
    kube.connect()
    name = kube.status()["manager"]["address"].rpartition("/")[2]
    kube.kubectl("-n", "tunstack", "delete", "pod", name, "--grace-period=0", "--force")
    wait_until(lambda: succeeds(kube, pod), 10, "a new connection")


def test_a_session_survives_a_restart_of_the_api_server(connected, pod):
    address = connected.status()["manager"]["address"]
    with connected.tcp(pod, 7007) as sock:
        assert echo(sock)
        restart_api_server()
        sock.settimeout(30)
        assert echo(sock, b"after the restart")
    wait_api(connected)
    assert connected.status()["manager"]["address"] == address


PLUGIN = """#!/bin/sh
echo asked >>{log}
token=$(cat {token}) || exit 3
cat <<END
{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
  "status": {{"token": "$token", "expirationTimestamp": "{expires}"}}}}
END
"""


@pytest.fixture
def plugin(installed: Kube):
    """A user whose exec plugin gives what is in the file ``token``."""
    folder = installed.folder / "plugin"
    folder.mkdir(exist_ok=True)
    accounts = "system:serviceaccount:testserver:default"
    installed.tunstack("install", "--grant-users", accounts)
    token = folder / "token"
    token.write_text(
        installed.kubectl("-n", "testserver", "create", "token", "default").strip()
    )
    script = folder / "plugin"
    script.write_text(
        PLUGIN.format(log=folder / "log", token=token, expires="2020-01-01T00:00:00Z")
    )
    script.chmod(0o755)
    (folder / "log").write_text("")
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "plugin/plugin",
        "interactiveMode": "Never",
    }
    installed.write("exec", user={"exec": exec_})
    return folder


def asked(folder: Path) -> int:
    return (folder / "log").read_text().count("asked")


def test_an_exec_plugin_is_asked_again_when_a_tunnel_is_lost(installed, plugin, pod):
    words = ("connect", "--no-dns", "--foreground", "--kubeconfig", "exec")
    process = subprocess.Popen(
        installed.laptop.inside(*tunstack(*words)),
        cwd=installed.folder,
        env=installed.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: installed.status()["state"] == "connected", 20, "connected")
        before = asked(plugin)
        assert installed.status()["kubernetes"]["credentials"]["renewal"] == "exec plugin"
        with installed.tcp(pod, 7007) as sock:
            assert echo(sock)
            installed.relay()
            sock.settimeout(20)
            assert echo(sock, b"after the cut")
        assert asked(plugin) > before
    finally:
        process.terminate()
        assert process.wait(20) == 0, process.stderr.read()


def test_expired_credentials_are_said_to_be_expired(installed):
    path = installed.write("expired", user={"token": "nobody's"})
    done = installed.tunstack("connect", "--no-dns", "--kubeconfig", str(path))
    assert done.returncode == 8
    assert "expired" in done.stderr
    assert "hint:" in done.stderr


def test_status_says_when_only_a_new_connect_renews(installed, pod):
    token = installed.kubectl("-n", "testserver", "create", "token", "default").strip()
    path = installed.write("token", user={"token": token})
    installed.tunstack(
        "install", "--grant-users", "system:serviceaccount:testserver:default"
    )
    status = installed.connect("--kubeconfig", str(path))
    credentials = status["kubernetes"]["credentials"]
    assert credentials["expires"] > time.time()
    assert credentials["renewal"] == "connect again"
    assert "needs a new connect" in installed.tunstack("status").stdout
