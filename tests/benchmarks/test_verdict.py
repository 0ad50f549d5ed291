"""The gate's conclusions: what is worse is found, and noise is not."""

import pytest

from benchmarks.gate.table import render
from benchmarks.gate.verdict import (
    FAILURES,
    Finding,
    Limit,
    Row,
    compare,
    least,
    suspects,
)

LIMIT = Limit(share=0.05, elsewhere=0.2, slack=1)
REFERENCE = "count: loop"


def row(name, value, *, limit=LIMIT, reference=None):
    return Row(
        part="count", name=name, value=value, unit="u", limit=limit, reference=reference
    )


def findings(rows, *, same_tools=True, skipped=(), **baseline):
    """What is found, by name; the baseline's values are given by name as well."""
    known = {f"count: {name}": {"value": v, "unit": "u"} for name, v in baseline.items()}
    verdicts = compare(rows, known, same_tools=same_tools, skipped=skipped)
    return {verdict.key.removeprefix("count: "): verdict.finding for verdict in verdicts}


@pytest.mark.parametrize(
    ("now", "finding"),
    [
        (1000, Finding.SAME),
        (1051, Finding.SAME),
        (1052, Finding.WORSE),
        (949, Finding.SAME),
        (948, Finding.BETTER),
    ],
)
def test_a_cost_beyond_share_and_slack_is_a_regression_and_noise_is_none(now, finding):
    assert findings([row("a", now)], a=1000) == {"a": finding}


def test_what_cost_nothing_may_cost_the_slack_and_no_more():
    assert findings([row("a", 1)], a=0) == {"a": Finding.SAME}
    assert findings([row("a", 1.01)], a=0) == {"a": Finding.WORSE}


def test_one_regression_among_many_rows_is_the_one_that_is_named():
    rows = [row(name, 100 if name != "c" else 200) for name in "abcd"]

    found = findings(rows, a=100, b=100, c=100, d=100)

    assert found.pop("c") is Finding.WORSE
    assert set(found.values()) == {Finding.SAME}


def test_a_row_that_is_not_measured_any_more_is_named_and_fails():
    found = findings([row("a", 1)], a=1, b=1)

    assert found == {"a": Finding.SAME, "b": Finding.MISSING}
    assert Finding.MISSING in FAILURES


def test_a_row_that_cannot_be_measured_here_does_not_fail():
    found = findings([], skipped=["count: b"], a=1, b=1)

    assert found == {"a": Finding.MISSING, "b": Finding.SKIPPED}
    assert Finding.SKIPPED not in FAILURES


def test_a_new_row_does_not_fail():
    assert findings([row("a", 1)]) == {"a": Finding.NEW}
    assert Finding.NEW not in FAILURES


def test_another_compiler_that_makes_everything_longer_is_no_regression():
    rows = [row("loop", 200), row("a", 2100, reference=REFERENCE)]

    assert findings(rows, same_tools=False, loop=100, a=1000)["a"] is Finding.SAME


def test_with_another_compiler_what_grows_beside_the_loop_is_a_regression():
    rows = [row("loop", 100), row("a", 1250, reference=REFERENCE)]

    assert findings(rows, same_tools=False, loop=100, a=1000)["a"] is Finding.WORSE
    assert findings(rows, same_tools=True, loop=100, a=1250)["a"] is Finding.SAME


def test_what_has_no_loop_to_compare_with_gets_wider_limits_with_another_compiler():
    for now, finding in ((1200, Finding.SAME), (1202, Finding.WORSE)):
        assert findings([row("a", now)], same_tools=False, a=1000) == {"a": finding}


def test_what_looks_worse_once_and_not_again_is_noise():
    known = {
        "count: a": {"value": 100, "unit": "u"},
        "count: b": {"value": 100, "unit": "u"},
    }
    rows = {row.key: row for row in (row("a", 300), row("b", 100))}

    assert suspects(compare(rows.values(), known, same_tools=True)) == {"count"}
    rows = least(rows, [row("a", 101), row("b", 300)])

    assert suspects(compare(rows.values(), known, same_tools=True)) == set()
    assert [row.value for row in rows.values()] == [101, 100]


def test_the_table_ends_with_what_is_worse_and_says_how_it_was_compared():
    known = {
        "count: a": {"value": 1000, "unit": "u"},
        "count: b": {"value": 1, "unit": "u"},
    }
    verdicts = compare([row("a", 1500), row("b", 1)], known, same_tools=False)
    others = {"cc": ("cc 12", "cc 14")}

    lines = render(verdicts, others, {"syscalls: ": "needs root"}, True).splitlines()

    assert lines[2].split() == [
        "count:",
        "a",
        "u",
        "1,000",
        "1,500",
        "+50.0%",
        "20.1%",
        "WORSE",
    ]
    assert "skipped: syscalls: needs root" in lines
    assert "  cc: cc 12, here cc 14" in lines
    assert lines[-1] == "FAILED"
