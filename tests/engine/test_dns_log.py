"""What one who looks is told of questions, with names that the settings answer."""

import asyncio

import pytest

from tunstack.config import DnsConfig, NameMapping
from tunstack.dns.rules import Names, Rules
from tunstack.engine.nameserver import NameServer


@pytest.fixture
async def server():
    """A name server that never has to ask."""
    config = DnsConfig(mappings=(NameMapping("printer.lan", "192.0.2.7"),))
    return NameServer(None, config, Rules(Names(config=config)), None, lambda: None)


async def follow(server, reports):
    async for report in server.log():
        reports.append(report)


async def begun(server):
    while not server.observers:
        await asyncio.sleep(0)


async def test_each_question_is_told_to_all_who_look(server):
    seen = [[], []]
    looking = [asyncio.ensure_future(follow(server, reports)) for reports in seen]
    while len(server.observers) < 2:
        await asyncio.sleep(0)
    asked = await server.query("printer.lan", 1)
    while not all(seen):
        await asyncio.sleep(0)
    for (report,) in seen:
        assert report["missed"] == 0
        for key in ("name", "type", "rule", "by", "rcode"):
            assert report[key] == asked[key]
    server.close()
    await asyncio.gather(*looking)


async def test_the_end_of_the_server_is_the_end_of_the_log(server):
    reports = []
    looking = asyncio.ensure_future(follow(server, reports))
    await begun(server)
    await server.query("printer.lan", 1)
    server.close()
    async with asyncio.timeout(5):
        await looking
    assert len(reports) == 1  # what there was is told
    assert not server.observers
