"""Throughput over bad networks stays what it was, to the bit."""

import pytest

from tests.netsim.simulation import Case, run
from tests.netsim.table import TABLE, cases, committed, render


@pytest.mark.timeout(600)
def test_no_transfer_gets_a_tenth_slower(request):
    outcomes = {case.name: run(case) for case in cases()}
    if request.config.getoption("--renew"):
        TABLE.write_text(render(outcomes))
        return
    before = committed()
    assert list(before) == list(outcomes), "other rows than committed: --renew"
    worse = [
        f"{name:<48} {before[name]:.3f} -> {outcome.fraction:.3f}"
        for name, outcome in outcomes.items()
        if outcome.fraction < 0.9 * before[name]
    ]
    assert not worse, "\n".join(["of the ideal, before -> now", *worse])


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_transfer_is_the_same_every_time(up):
    case = Case(up=up, delay=1e-3, queue=64, loss=0.01, reorder=0.01, duplicate=0.01)
    assert run(case) == run(case)
