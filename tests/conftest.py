"""Options of the whole suite."""

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("fuzz", max_examples=10_000, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fastpath",
        choices=("kernels", "reference"),
        help="which arithmetic runs, here and in the processes that tests start",
    )
    parser.addoption(
        "--renew",
        action="store_true",
        help="write golden results instead of comparing with them",
    )


def pytest_configure(config: pytest.Config) -> None:
    choice = config.getoption("--fastpath")
    if choice is None:
        return
    os.environ["TUNSTACK_FASTPATH"] = choice
    loaded = sys.modules.get("tunstack._fastpath")
    if loaded is not None and loaded.NAME != choice:
        raise pytest.UsageError(
            f"a conftest loaded the {loaded.NAME} first: set TUNSTACK_FASTPATH instead"
        )
