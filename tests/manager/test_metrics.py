"""What a manager tells Prometheus."""

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tunstack.errors import HostError


async def scrape(manager) -> dict[str, float]:
    url = f"http://127.0.0.1:{manager.metrics_port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    text = await asyncio.to_thread(read)
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_metrics_count_sessions_and_flows(
    start_manager, new_client, listener, accept
):
    manager, address = await start_manager(metrics=("127.0.0.1", 0))
    before = await scrape(manager)
    assert (before["tunstack_sessions"], before["tunstack_flows"]) == (0, 0)
    client = await new_client(address)
    await client.hello()
    flow = await client.connect(listener.getsockname())
    far = await accept()
    during = await scrape(manager)
    assert (during["tunstack_sessions"], during["tunstack_flows"]) == (1, 1)
    assert during["tunstack_flows_opened_total"] == 1
    assert during["process_open_fds"] > 0
    assert flow
    far.close()


async def test_nothing_is_served_unless_asked_for(start_manager):
    manager, _ = await start_manager()
    assert manager.metrics_port is None


async def test_an_address_that_is_taken_is_said(start_manager, listener):
    with pytest.raises(HostError, match="cannot serve metrics"):
        await start_manager(metrics=listener.getsockname())
