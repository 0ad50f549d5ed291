"""The names of a real cluster, of its own CoreDNS, on the laptop.

The laptop's own name server is the gateway, where dnsmasq knows a public name.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube import GATEWAY, Kube
from tests.support.lab import wait_until

NEW, PUBLIC = "made-while-connected", "203.0.113.77"


@pytest.fixture(scope="module")
def named(_cluster: Kube) -> Iterator[Kube]:
    """A laptop with a name server of its own, connected; a namespace is called rs."""
    kube = _cluster
    folder = Path("/etc/netns", kube.laptop.name)
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text(f"nameserver {GATEWAY}\n")
    server = kube.gateway.start(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"),
        *("--no-hosts", f"--listen-address={GATEWAY}", "--bind-interfaces", "--pid-file="),
        *(f"--host-record=docs.rs,{PUBLIC}", "--local=//"),
        log="dnsmasq",
    )
    kube.kubectl("create", "namespace", "rs")
    kube.kubectl(
        "-n", "rs", "create", "service", "clusterip", "echo", "--tcp=80:8080", check=False
    )
    kube.install("--replicas", "1")
    kube.connect("-n", "testserver", names=True)
    yield kube
    kube.quit()
    kube.kubectl("delete", "namespace", "rs", NEW, "--ignore-not-found", "--wait=false")
    server.terminate()
    server.wait(10)
    shutil.rmtree(folder)


def lookup(kube: Kube, name: str) -> list[str]:
    """Ask as programs of the C library do."""
    done = subprocess.run(
        kube.laptop.inside("getent", "ahostsv4", name),
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
    )
    return sorted({line.split()[0] for line in done.stdout.splitlines()})


def query(kube: Kube, name: str, kind: str = "A") -> dict[str, Any]:
    done = kube.tunstack("dns", "query", "--json", name, kind)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def rcode(kube: Kube, name: str) -> str:
    """What became of a question; when nobody answers that is an error with code 7."""
    done = kube.tunstack("dns", "query", "--json", name)
    assert done.returncode in (0, 7), done.stderr
    return "SERVFAIL" if done.returncode else str(json.loads(done.stdout)["rcode"])


def within(seconds: float, condition: Callable[[], bool]) -> None:
    """Wait for what the issue promises; the machine may be slow, so twice as long."""
    began = time.monotonic()
    wait_until(condition, 2 * seconds, f"within {seconds} s")
    print(f"after {time.monotonic() - began:.2f} s")


def test_a_service_by_its_short_names(named):
    for name in ("testserver", "testserver.testserver", "testserver.testserver.svc",
                 "testserver.testserver.svc.cluster.local"):  # fmt: skip
        assert lookup(named, name) == [named.service("testserver", "testserver")], name
        assert named.curl(f"http://{name}/healthz") is not None


def test_the_api_server_s_own_name(named):
    assert lookup(named, "kubernetes.default") == [named.service("kubernetes", "default")]


def test_a_headless_service_is_its_pods(named):
    pods = named.pods("testserver", "app=testserver")
    addresses = sorted(pod["status"]["podIP"] for pod in pods)
    assert lookup(named, "testserver-headless.testserver") == addresses
    found = query(named, "_http._tcp.testserver-headless.testserver", "SRV")
    assert len([line for line in found["records"] if " SRV " in line]) == len(addresses)


def test_an_address_has_its_name(named):
    address = named.service("testserver", "testserver")
    said = named.laptop.run("getent", "hosts", address)
    assert said.split()[1] == "testserver.testserver.svc.cluster.local"


def test_a_namespace_that_is_a_public_suffix_takes_no_public_names(named):
    assert lookup(named, "docs.rs") == [PUBLIC]
    assert lookup(named, "echo.rs.svc.cluster.local") == [named.service("echo", "rs")]
    names = named.status()["dns"]
    assert names["skipped"] == [{"namespace": "rs", "reason": "public suffix"}]
    assert "~rs" not in names["domains"]


def test_a_namespace_made_while_connected_has_names_at_once(named):
    named.kubectl("create", "namespace", NEW)
    within(2, lambda: f"~{NEW}" in named.status()["dns"]["domains"])
    named.kubectl("-n", NEW, "create", "service", "clusterip", "echo", "--tcp=80:8080")
    wait_until(lambda: lookup(named, f"echo.{NEW}") != [], 10, "the name of the service")
    assert lookup(named, f"echo.{NEW}") == [named.service("echo", NEW)]
    named.kubectl("delete", "namespace", NEW, "--wait=false")
    wait_until(
        lambda: f"~{NEW}" not in named.status()["dns"]["domains"], 60, "the names are gone"
    )


def test_status_names_the_cluster_s_resolver(named):
    query(named, "kubernetes.default")
    resolver = named.status()["dns"]["resolver"]
    assert resolver["address"] == named.service("kube-dns", "kube-system")
    assert resolver["failures"] == 0
    assert 0 < resolver["p50"] <= resolver["p99"]


def test_a_dead_resolver_is_named_and_denies_nothing(named):
    """CoreDNS is scaled to nothing; what was known before is still answered."""
    coredns = ("-n", "kube-system", "scale", "deployment/coredns")
    address = lookup(named, "testserver.testserver")
    named.kubectl(*coredns, "--replicas=0")
    try:
        wait_until(
            lambda: not named.pods("kube-system", "k8s-app=kube-dns"), 60, "CoreDNS is gone"
        )
        wait_until(
            lambda: rcode(named, "unknown.testserver") == "SERVFAIL",
            60,
            "SERVFAIL",
        )
        assert lookup(named, "testserver.testserver") == address
        assert rcode(named, "docs.rs") == "NOERROR"
        resolver = named.status()["dns"]["resolver"]
        assert resolver["failures"] > 0
        assert "10.96.0.10" in resolver["last_failure"]
    finally:
        named.kubectl(*coredns, "--replicas=1")
        named.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns")
    wait_until(
        lambda: rcode(named, "unknown2.testserver.svc") == "NXDOMAIN", 30, "it is back"
    )


def test_after_quit_the_names_are_gone_and_the_host_s_are_not(named):
    named.quit()
    assert lookup(named, "kubernetes.default") == []
    assert lookup(named, "docs.rs") == [PUBLIC]
    assert named.traces() == ""
    assert named.laptop.run("nft", "list", "ruleset") == ""
    named.connect("-n", "testserver", names=True)
    assert lookup(named, "kubernetes.default") != []
