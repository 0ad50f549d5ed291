"""A real Kubernetes with the manager of this checkout, and a laptop in front of it."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube import Kube, why_not

_kubes: list[Kube] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.system)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Attach what engines and managers said to a failure."""
    report = (yield).get_result()
    if report.failed:
        for kube in _kubes:
            for log in kube.engine_logs():
                text = log.read_text(errors="replace")[-4000:]
                report.sections.append((log.name, text))
            selector = ("-l", "app.kubernetes.io/name=tunstack")
            managers = kube.kubectl(
                "-n", "tunstack", "logs", *selector, "--tail=40", "--prefix", check=False
            )
            report.sections.append(("managers", managers))


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Kube]:
    if reason := why_not():
        if os.environ.get("TUNSTACK_CLUSTER") == "required":
            pytest.fail(f"no cluster: {reason}")
        pytest.skip(reason)
    kube = Kube()
    _kubes.append(kube)
    try:
        kube.tunstack("uninstall", "--everything")
        kube.serve()
        yield kube
        kube.tunstack("uninstall", "--everything")
    finally:
        _kubes.remove(kube)
        kube.close()


@pytest.fixture
def kube(_cluster: Kube) -> Iterator[Kube]:
    """The cluster and the laptop; no session is left when the test is over."""
    yield _cluster
    for name in _cluster.sessions():
        _cluster.tunstack("quit", "--name", name)


@pytest.fixture
def installed(kube: Kube) -> Kube:
    """With a manager, one replica, that is ready."""
    kube.install("--replicas", "1")
    return kube


@pytest.fixture
def connected(installed: Kube) -> Kube:
    """With a manager and a session."""
    installed.connect()
    return installed
