import time

import pytest

from tunstack.bench.probe import WrongAnswer, expect, repeat, spread


def test_what_a_step_did_is_counted_by_cpu_and_not_by_time(monkeypatch):
    times, cpu = iter([10.0, 11.0, 12.0, 13.0]), iter([5.0, 5.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(time, "process_time", lambda: next(cpu))
    assert repeat(lambda: 100, 2.5) == 300 / 0.5


def test_the_spread_of_times_is_said_in_percent():
    figures = spread([at / 1000 for at in range(1001)], "p50", "p99")
    assert figures.values == {"p50": pytest.approx(0.5), "p99": pytest.approx(0.99)}
    assert len(figures.percentiles["p50"]) == 99
    assert figures.percentiles["p50"][24] == pytest.approx(0.25)


def test_one_time_alone_is_every_percentile():
    figures = spread([0.25], "p50", "p99")
    assert figures.values == {"p50": 0.25, "p99": 0.25}


def test_a_wrong_answer_says_what_it_was():
    expect(True, "nothing")
    with pytest.raises(WrongAnswer, match="the third octet"):
        expect(False, "the third octet")
