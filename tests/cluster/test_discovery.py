"""What is found out of a cluster, and what is told when it changes."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest
import pytest_asyncio

from tests.cluster.fake_api import (
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_CIDRS,
    SERVICES,
    document,
    pod,
)
from tunstack.cluster import discovery, reflector
from tunstack.cluster.discovery import Discovery, Found, cluster_domain


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Wait for nothing long."""
    monkeypatch.setattr(discovery, "SETTLE", 0.01)
    monkeypatch.setattr(discovery, "_AGAIN", 0.01)
    monkeypatch.setattr(reflector, "_FIRST", 0.01)


@pytest.fixture
def cluster(fake):
    """A cluster of one node, as its API server shows it."""
    names = ("default", "kube-system", "tunstack")
    fake.load(NAMESPACES, *(document("Namespace", name) for name in names))
    fake.objects[NAMESPACES][None, "kube-system"]["metadata"]["uid"] = "cluster-1"
    fake.load(NODES, node("one", "10.244.0.0/24"))
    fake.load(SERVICE_CIDRS, service_cidr("kubernetes", "10.96.0.0/12"))
    return fake


def node(name, *cidrs):
    return document("Node", name, spec={"podCIDR": cidrs[0], "podCIDRs": list(cidrs)})


def service_cidr(name, *cidrs):
    return document("ServiceCIDR", name, spec={"cidrs": list(cidrs)})


def service(name, *addresses, namespace="default"):
    spec = {"clusterIP": addresses[0], "clusterIPs": list(addresses)}
    return document("Service", name, namespace, spec=spec)


def networks_of(*texts):
    return tuple(map(ip_network, texts))


@pytest_asyncio.fixture
async def discover(api, stack):
    """Follow a cluster; gives a queue of what is told, the first of which is out."""

    async def start(namespace="tunstack"):
        told = asyncio.Queue()
        found = Discovery(api, namespace, told.put_nowait)
        stack.push_async_callback(found.close)
        await found.start()
        return told.get_nowait(), told

    return start


async def test_a_cluster_is_found(cluster, discover):
    found, told = await discover()
    assert found == Found(
        subnets=networks_of("10.96.0.0/12", "10.244.0.0/24"),
        namespaces=("default", "kube-system", "tunstack"),
        identity="cluster-1",
    )
    assert told.empty()


async def test_a_cluster_without_anything_is_found(fake, discover):
    found, _ = await discover()
    assert found == Found()


async def test_a_cluster_of_two_versions_is_found(cluster, discover):
    cluster.load(SERVICE_CIDRS, service_cidr("kubernetes", "10.96.0.0/12", "fd00:96::/112"))
    cluster.load(NODES, node("one", "10.244.0.0/24", "fd00:244::/64"))
    found, _ = await discover()
    assert set(found.subnets) == set(
        networks_of("10.96.0.0/12", "fd00:96::/112", "10.244.0.0/24", "fd00:244::/64")
    )


async def test_whoever_may_not_see_kube_system_goes_by_the_own_namespace(fake, discover):
    fake.load(NAMESPACES, document("Namespace", "tunstack"))
    fake.objects[NAMESPACES][None, "tunstack"]["metadata"]["uid"] = "cluster-2"
    found, _ = await discover()
    assert found.identity == "cluster-2"


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["10.96.7.7"], ["10.96.7.7"]),
        (["10.96.7.7", "fd00:96::7"], ["10.96.7.7", "fd00:96::7"]),
        (["None"], []),
    ],
)
async def test_our_own_service_is_looked_up(cluster, discover, addresses, expected):
    cluster.load(SERVICES, service("tunstack", *addresses, namespace="tunstack"))
    found, _ = await discover()
    assert found.service == tuple(map(ip_address, expected))


async def test_our_own_service_may_be_kept_from_us(cluster, discover):
    path = "/api/v1/namespaces/tunstack/services/tunstack"
    cluster.refused["GET", path] = 403, "services is forbidden"
    found, _ = await discover()
    assert found.service == ()


# Services


async def test_new_ranges_of_services_are_told(cluster, discover):
    _, told = await discover()
    await cluster.put(SERVICE_CIDRS, service_cidr("more", "10.200.0.0/16"))
    found = await told.get()
    assert found.subnets == networks_of("10.96.0.0/12", "10.200.0.0/16", "10.244.0.0/24")
    await cluster.remove(SERVICE_CIDRS, "more")
    assert (await told.get()).subnets == networks_of("10.96.0.0/12", "10.244.0.0/24")


@pytest.mark.parametrize("range_", ["10.96.0.0/12", "fd00:96::/112"])
async def test_an_older_server_names_the_range_in_a_refusal(cluster, discover, range_):
    cluster.unknown.add(SERVICE_CIDRS)
    cluster.service_range = range_
    found, _ = await discover()
    assert found.subnets[0] == ip_network(range_)
    (asked,) = [each for each in cluster.requests if each[0] == "POST"]
    _, path, query, body = asked
    assert path == "/api/v1/namespaces/tunstack/services"
    assert query == {"dryRun": "All"}
    assert body["kind"] == "Service"
    assert SERVICES not in cluster.asked("GET")


async def test_ranges_that_may_not_be_seen_are_asked_for_like_that(cluster, discover):
    cluster.refused["GET", SERVICE_CIDRS] = 403, "servicecidrs is forbidden"
    cluster.service_range = "10.96.0.0/12"
    found, _ = await discover()
    assert found.subnets == networks_of("10.96.0.0/12", "10.244.0.0/24")


async def test_otherwise_services_show_where_they_are(cluster, discover):
    cluster.unknown.add(SERVICE_CIDRS)
    cluster.load(
        SERVICES,
        service("kubernetes", "10.96.0.1"),
        service("dns", "10.96.0.10", "fd00:96::a", namespace="kube-system"),
        service("headless", "None"),
        document("Service", "outside", "default", spec={"type": "ExternalName"}),
    )
    found, told = await discover()
    assert found.subnets == networks_of("10.96.0.0/24", "fd00:96::/64", "10.244.0.0/24")
    await cluster.put(SERVICES, service("web", "10.100.1.1"))
    assert ip_network("10.100.1.0/24") in (await told.get()).subnets


async def test_an_old_service_says_one_address(cluster, discover):
    cluster.unknown.add(SERVICE_CIDRS)
    old = document("Service", "kubernetes", "default", spec={"clusterIP": "10.96.0.1"})
    cluster.load(SERVICES, old)
    found, _ = await discover()
    assert found.subnets == networks_of("10.96.0.0/24", "10.244.0.0/24")


async def test_a_server_that_cannot_be_asked_yet_is_awaited(cluster, discover):
    cluster.refused["GET", SERVICE_CIDRS] = 500, "etcd is on its way"
    starting = asyncio.ensure_future(discover())
    await cluster.until(lambda: cluster.asked("GET").count(SERVICE_CIDRS) >= 3)
    assert not starting.done()
    cluster.refused.clear()
    found, _ = await starting
    assert found.subnets == networks_of("10.96.0.0/12", "10.244.0.0/24")


# Pods


async def test_new_nodes_are_told(cluster, discover):
    _, told = await discover()
    await cluster.put(NODES, node("two", "10.244.1.0/24"), node("three", "10.250.0.0/24"))
    found = await told.get()
    assert found.subnets == networks_of("10.96.0.0/12", "10.244.0.0/23", "10.250.0.0/24")
    await cluster.remove(NODES, "two")
    assert (await told.get()).subnets[1:] == networks_of("10.244.0.0/24", "10.250.0.0/24")


async def test_a_node_may_say_one_network_or_none(cluster, discover):
    old = document("Node", "old", spec={"podCIDR": "10.250.0.0/24"})
    cluster.load(NODES, old, document("Node", "bare", spec={}))
    found, _ = await discover()
    assert found.subnets[1:] == networks_of("10.244.0.0/24", "10.250.0.0/24")


async def test_pods_that_are_in_no_nodes_network_are_covered(cluster, discover):
    cluster.load(
        PODS,
        pod("inside", addresses=["10.244.0.7"]),
        pod("stray", addresses=["10.50.3.7", "fd00:50::7"]),
    )
    found, told = await discover()
    expected = {"10.50.3.0/24", "10.244.0.0/24", "fd00:50::/64"}
    assert set(found.subnets[1:]) == set(networks_of(*expected))
    await cluster.put(PODS, pod("another", addresses=["10.51.0.1"]))
    assert ip_network("10.51.0.0/24") in (await told.get()).subnets


@pytest.mark.parametrize(
    "ignored",
    [
        pod("agent", addresses=["192.168.7.7"], spec={"hostNetwork": True}),
        pod("done", addresses=["10.50.3.7"], status={"phase": "Succeeded"}),
        pod("failed", addresses=["10.50.3.7"], status={"phase": "Failed"}),
        pod("pending", status={"phase": "Pending"}),
        pod("odd", status={"podIPs": [{}, {"ip": ""}]}),
    ],
    ids=lambda found: found["metadata"]["name"],
)
async def test_pods_without_an_address_of_their_own_do_not_count(
    cluster, discover, ignored
):
    cluster.load(PODS, ignored)
    found, _ = await discover()
    assert found.subnets == networks_of("10.96.0.0/12", "10.244.0.0/24")


async def test_pods_that_come_within_known_networks_are_no_news(cluster, discover):
    _, told = await discover()
    await cluster.put(PODS, pod("inside", addresses=["10.244.0.7"]))
    await cluster.remove(PODS, "inside", "tunstack")
    await cluster.put(NODES, node("two", "10.250.0.0/24"))
    assert (await told.get()).subnets[1:] == networks_of("10.244.0.0/24", "10.250.0.0/24")
    assert told.empty()


# Namespaces


async def test_namespaces_that_come_and_go_are_told(cluster, discover):
    before, told = await discover()
    await cluster.put(NAMESPACES, document("Namespace", "shop"))
    found = await told.get()
    assert found.namespaces == ("default", "kube-system", "shop", "tunstack")
    assert found.subnets == before.subnets
    await cluster.remove(NAMESPACES, "shop")
    assert await told.get() == before


async def test_many_changes_are_told_together(cluster, discover, monkeypatch):
    monkeypatch.setattr(discovery, "SETTLE", 0.3)
    _, told = await discover()
    names = [f"team-{number:02}" for number in range(20)]
    await cluster.put(NAMESPACES, *(document("Namespace", name) for name in names))
    found = await told.get()
    assert set(names) < set(found.namespaces)
    assert told.empty()


async def test_what_is_closed_watches_nothing(cluster, api):
    found = Discovery(api, "tunstack", lambda _: None)
    await found.start()
    begun = {await cluster.watched.get() for _ in range(4)}
    await found.close()
    assert {await cluster.unwatched.get() for _ in range(4)} == begun
    assert begun == {NAMESPACES, NODES, PODS, SERVICE_CIDRS}


# The domain


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("search tunstack.svc.cluster.local svc.cluster.local cluster.local\n", None),
        ("search a.svc.k8s.test svc.k8s.test k8s.test example.com\n", "k8s.test"),
        ("search\ta.svc.k8s.test\tsvc.k8s.test.\n", "k8s.test"),
        ("nameserver 10.96.0.10\nsearch svc.k8s.test\noptions ndots:5\n", "k8s.test"),
        ("search svc.svc.k8s.test svc.k8s.test k8s.test\n", "k8s.test"),
        ("search svc. svc.k8s.test\n", "k8s.test"),
        ("search example.com\n", None),
        ("search\n", None),
        ("# search svc.k8s.test\n", None),
        ("searching svc.k8s.test\n", None),
        ("", None),
    ],
)
def test_the_domain_is_in_the_search_list(tmp_path, text, domain):
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    assert cluster_domain(file) == (domain or "cluster.local")


def test_without_a_file_the_domain_is_the_usual_one(tmp_path):
    assert cluster_domain(tmp_path / "missing") == "cluster.local"
