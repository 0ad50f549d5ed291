from tests.rpc.conftest import pytest_asyncio_loop_factories  # noqa: F401
