"""What clients are told of the cluster, and when."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest

from tunstack._version import PROTOCOL
from tunstack.cluster.access import Access
from tunstack.cluster.discovery import Found
from tunstack.cluster.kubeconfig import KubeconfigError
from tunstack.manager import cluster
from tunstack.manager.cluster import View
from tunstack.manager.config import ManagerConfig
from tunstack.manager.session import OUTBOX

PODS = ip_network("10.244.0.0/24")


def view(**settings):
    return View(ManagerConfig(**settings), icmp=True)


def found(*namespaces, subnets=(PODS,), **more):
    return Found(subnets=subnets, namespaces=namespaces, identity="uid", **more)


def test_what_is_said_by_hand_stands_beside_what_is_found():
    one = view(subnets=(ip_network("10.1.0.0/16"),), namespaces=("by-hand",))
    one.take(found("found"))
    assert one.info.namespaces == ["by-hand", "found"]
    assert [s.address for s in one.info.subnets] == [b"\x0a\x01\0\0", b"\x0a\xf4\0\0"]


def test_probes_are_of_the_pod_and_of_the_service():
    one = view(pod_addresses=(ip_address("10.244.0.7"),))
    one.take(found("default", service=(ip_address("10.96.3.4"),)))
    assert one.info.identity == "uid"
    assert [(ip_address(p.address).compressed, p.port) for p in one.info.probes] == [
        ("10.244.0.7", 8080),
        ("10.96.3.4", 8080),
    ]


def test_without_an_identity_nobody_is_asked_to_probe():
    one = view(pod_addresses=(ip_address("10.244.0.7"),))
    one.take(Found(subnets=(PODS,)))
    assert list(one.info.probes) == []


def test_namespaces_alone_are_a_change_for_those_who_know_the_word():
    one = view()
    one.take(found("default", "old"))
    older, newer = one.take(found("default", "new"))
    assert list(older.cluster.namespaces) == ["default", "new"]
    assert older.cluster == one.info
    assert list(newer.namespaces_change.added) == ["new"]
    assert list(newer.namespaces_change.removed) == ["old"]


def test_anything_else_is_told_whole():
    one = view()
    one.take(found("default"))
    news = one.take(found("default", "new", subnets=(PODS, ip_network("10.9.0.0/24"))))
    assert [message.WhichOneof("body") for message in news] == ["cluster", "cluster"]


@pytest.mark.parametrize("version", [1, PROTOCOL])
async def test_clients_hear_of_namespaces_in_words_of_their_version(
    start_manager, new_client, version
):
    manager, address = await start_manager()
    client = await new_client(address)
    await client.hello(protocol=version)
    manager._cluster_changed(found("default"))
    assert list((await client.body("cluster")).namespaces) == ["default"]
    manager._cluster_changed(found("default", "new"))
    if version == 1:
        assert list((await client.body("cluster")).namespaces) == ["default", "new"]
    else:
        assert list((await client.body("namespaces_change")).added) == ["new"]
    late = await new_client(address)
    welcome = await late.hello(protocol=version)
    assert list(welcome.cluster.namespaces) == ["default", "new"]


async def test_who_does_not_read_keeps_nobody_from_the_news(start_manager, new_client):
    manager, address = await start_manager()
    deaf, other = await new_client(address), await new_client(address)
    await deaf.hello()
    stuck = next(iter(manager._sessions.values()))
    await other.hello()
    stuck._outbox.extend([b""] * OUTBOX)
    manager._cluster_changed(found("default"))
    assert list((await other.body("cluster")).namespaces) == ["default"]
    assert manager.session_count == 1


async def test_an_account_that_cannot_be_read_for_once_is_read_again(monkeypatch):
    monkeypatch.setattr(cluster, "RENEW", 0.001)
    account = Access(context="pod", namespace="tunstack", server="http://x", source="pod")
    again = asyncio.Event()
    reads = iter([account, KubeconfigError("the token is gone"), account])

    def read():
        answer = next(reads, None)
        if answer is None:
            loop.call_soon_threadsafe(again.set)
            return account
        if isinstance(answer, Exception):
            raise answer
        return answer

    loop = asyncio.get_running_loop()
    kubernetes = cluster.Kubernetes(read, ManagerConfig(), lambda _: None)
    try:
        await asyncio.wait_for(again.wait(), 10)
    finally:
        await kubernetes.close()
