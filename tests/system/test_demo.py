"""The main job with nothing set up."""

import re

from tests.support.lab import Lab


def test_the_demo_shows_bytes_that_came_back_right(bare: Lab) -> None:
    before = bare.client.state()
    result = bare.tunstack("demo", timeout=60)
    assert result.returncode == 0, result.stderr
    assert re.search(r"[kMG]bit/s", result.stdout)
    assert bare.client.state() == before
    assert bare.client.pids() == []
