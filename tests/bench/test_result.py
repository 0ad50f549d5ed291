import json

import pytest

from tests.bench.documents import make_document
from tunstack.bench.probe import Figures
from tunstack.bench.result import compare, judge, load, share, summarize
from tunstack.bench.rows import BY_NAME, ROWS, SCALES, Scale
from tunstack.errors import ConfigError

UP, TRIP, LOOPBACK = BY_NAME["up-1"], BY_NAME["round-trip"], BY_NAME["loopback"]

SCALE = Scale("a ceiling", good=0.5, fair=0.25, reason="for a test")


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(2, "good"), (0.5, "good"), (0.49, "fair"), (0.25, "fair"), (0.24, "poor")],
)
def test_a_verdict_begins_with_its_threshold(ratio, verdict):
    assert judge(ratio, SCALE) == verdict


def test_more_is_better_of_a_rate_and_less_of_a_time():
    assert share(UP, 5.0, 20.0) == 0.25
    assert share(TRIP, 400.0, 40.0) == 0.1


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_their_medians():
    rounds = [
        Figures({"up-1": ours, UP.against: theirs})
        for ours, theirs in ((1.0, 10.0), (4.0, 20.0), (9.0, 30.0))
    ]
    row = summarize(UP, rounds)
    assert row["ratio"] == pytest.approx(0.2)
    assert row["ratios"] == pytest.approx([0.1, 0.2, 0.3])
    assert row["value"] == 4.0
    assert row["samples"] == [1.0, 4.0, 9.0]
    assert row["ceiling"] == {
        "name": "kernel forwarding", "value": 20.0, "samples": [10.0, 20.0, 30.0],
    }  # fmt: skip


def test_a_round_that_is_not_over_counts_for_nothing_but_its_value():
    row = summarize(UP, [Figures({"up-1": 1.0, UP.against: 4.0}), Figures({"up-1": 3.0})])
    assert row["ratio"] == 0.25
    assert row["samples"] == [1.0, 3.0]


def test_what_was_not_measured_has_no_row():
    assert summarize(UP, [Figures({UP.against: 4.0})]) is None


def test_a_yardstick_has_no_verdict():
    row = summarize(LOOPBACK, [Figures({"loopback": 1.0})])
    assert (row["ceiling"], row["ratio"], row["verdict"]) == (None, None, None)


def test_percentiles_of_round_trips_are_medians_of_the_rounds():
    rounds = [
        Figures({"round-trip": 1.0, TRIP.against: 1.0}, {"round-trip": [at, 10.0 * at]})
        for at in (1.0, 2.0, 9.0)
    ]
    assert summarize(TRIP, rounds)["percentiles"]["ours"] == [2.0, 20.0]


def test_every_row_that_is_compared_has_a_scale_and_its_ceiling():
    for row in ROWS:
        assert (row.scale is None) == (row.against is None), row.name
        if row.scale is not None:
            assert 0 < SCALES[row.scale].fair < SCALES[row.scale].good


def test_a_document_survives_json():
    document = make_document()
    assert load(json.dumps(document), "here") == document


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"schema": "tunstack-bench/1"}', '"text"',
     '{"schema": "tunstack-bench/1", "rows": [{"name": "up-1"}]}',
     '{"schema": "tunstack-bench/1", "rows": 3}',
     '{"schema": "tunstack-bench/2", "rows": []}',
     '{"schema": "tunstack-bench/1", "rows": [{"name": "up-1", "value": 1,'
     ' "unit": "bit/s", "ratio": 0}]}',
     '{"schema": "tunstack-bench/1", "rows": [{"name": "up-1", "value": 1,'
     ' "unit": "bit/s", "ratio": "much"}]}'],
)  # fmt: skip
def test_what_is_no_document_is_refused_by_its_name(text):
    with pytest.raises(ConfigError, match=r"old\.json"):
        load(text, "old.json")


def test_a_ratio_may_lose_the_tolerance_and_no_more():
    before = make_document(ratio=0.5)
    kept = compare(before, make_document(ratio=0.41), 0.2)
    assert not kept.worse
    lost = compare(before, make_document(ratio=0.39), 0.2)
    assert lost.worse
    assert all(change.worse for change in lost.changes)
    assert lost.changes[0].factor == pytest.approx(0.78)


def test_what_one_round_still_had_is_not_lost():
    disturbed = make_document(ratio=0.1)
    for row in disturbed["rows"]:
        row["ratios"] = [0.1, 0.1, 0.5]
    assert not compare(make_document(ratio=0.5), disturbed, 0.2).worse
    assert compare(make_document(ratio=0.51), disturbed, 0.2).worse


def test_a_slower_machine_is_no_loss():
    slow = make_document()
    for row in slow["rows"]:
        row["value"] /= 10
    comparison = compare(make_document(), slow, 0.0)
    assert comparison.changes
    assert not comparison.worse


def test_rows_of_one_document_alone_are_named_and_are_no_loss():
    before, after = make_document(), make_document()
    before["rows"] = [row for row in before["rows"] if row["name"] != "up-1"]
    after["rows"] = [row for row in after["rows"] if row["name"] != "mux"]
    comparison = compare(before, after, 0.2)
    assert comparison.only_before == ["mux"]
    assert comparison.only_after == ["up-1"]
    assert not comparison.worse
