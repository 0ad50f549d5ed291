"""The manager and what speaks HTTP/2: h2spec, nghttp, h2load."""

import asyncio
import re
from xml.etree import ElementTree

import pytest
import pytest_asyncio

from tests.interop import tools
from tests.support.keys import make_keys
from tunstack.manager.config import ManagerConfig
from tunstack.manager.server import Manager

PATIENCE = 60

EXPLAINED = {}
"""Cases of h2spec that fail, each with the reason why that is right. There are none:
what is not gRPC is answered as HTTP, with status 415 and a body."""

CASES = 145

HEALTH = "/grpc.health.v1.Health/Check"
GRPC = ("-H:method: POST", "-Hcontent-type: application/grpc", "-Hte: trailers")


@pytest.fixture(scope="module", params=["http", "https"])
def scheme(request):
    return request.param


@pytest_asyncio.fixture
async def address(scheme, tmp_path):
    """A manager's address."""
    files = {}
    if scheme == "https":
        keys = make_keys(tmp_path, "DNS:manager.test")
        files = {"tls_cert": keys.certificate, "tls_key": keys.key}
    manager = Manager(ManagerConfig(port=0, **files))
    host, port = await manager.start()
    yield f"{host}:{port}"
    await manager.drain(0)


async def run(*command):
    """Run a program that must succeed; gives what it says."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_h2spec(address, scheme, tmp_path):
    host, port = address.split(":")
    report = tmp_path / "report"
    options = ["-h", host, "-p", port, "-o", "2", "-j", report]
    if scheme == "https":
        options += ["-t", "-k"]
    process = await asyncio.create_subprocess_exec(
        tools.find("h2spec"), *map(str, options), stdout=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait_for(process.wait(), PATIENCE)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if len(case.findall("*"))
    }
    assert len(cases) == CASES
    assert failed == set(EXPLAINED)


async def test_nghttp_gets_an_answer_to_what_is_not_grpc(address, scheme):
    said = await run(tools.find("nghttp"), "-v", f"{scheme}://{address}/")
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert ":status: 415" in plain
    assert "This is a gRPC server" in plain


async def test_nghttp_asks_for_health(address, scheme, tmp_path):
    question = tmp_path / "question"
    question.write_bytes(bytes(5))  # an empty HealthCheckRequest
    said = await run(
        tools.find("nghttp"), "-v", *GRPC, "-d", question, f"{scheme}://{address}{HEALTH}"
    )
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert ":status: 200" in plain
    assert "grpc-status: 0" in plain
    assert "SERVING" not in plain  # it is protobuf


async def test_h2load_asks_for_health_many_times(address, scheme, tmp_path):
    question = tmp_path / "question"
    question.write_bytes(bytes(5))
    said = await run(
        tools.find("h2load"), *("-n", 2000, "-c", 4, "-m", 8), "-d", question, *GRPC,
        f"{scheme}://{address}{HEALTH}",
    )  # fmt: skip
    assert (
        "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored" in said
    )
    assert "2000 2xx" in said
