import gc
import os
import resource
from contextlib import suppress

import pytest

from tunstack.manager import limits

LIMIT = 8
REFUSED, OPENED = 3, 2


@pytest.mark.parametrize(
    ("wanted", "open_files", "flows"),
    [(65_536, 20_000, 19_744), (100, 20_000, 100), (65_536, 200, 1)],
)
def test_flows_leave_files_for_everything_else(wanted, open_files, flows):
    assert limits.flow_limit(wanted, open_files) == flows


@pytest.fixture
def open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_are_open_as_may_be(open_files):
    open_files(1000)
    assert limits.raise_open_files() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000


@pytest.fixture
def use_up_files(open_files):
    """Give two functions: leave so many files that can still be opened, and undo it."""
    hogs = []

    def use_up(left):
        gc.collect()  # files of other tests must not be closed meanwhile
        open_files(max(map(int, os.listdir("/proc/self/fd"))) + left + 2)
        with suppress(OSError):
            while True:
                hogs.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(hogs.pop())

    def undo():
        while hogs:
            os.close(hogs.pop())

    yield use_up, undo
    undo()


async def test_flows_are_refused_while_files_are_used_up(client, listener, use_up_files):
    use_up, undo = use_up_files
    use_up(left=2)
    for expected in (OPENED, OPENED, REFUSED, REFUSED):
        flow = await client.open(listener.getsockname())
        kind, payload = await client.frame(flow)
        assert kind == expected
    assert payload[0] == LIMIT
    undo()
    await client.connect(listener.getsockname())
