import re
from xml.etree import ElementTree

import pytest

from tests.bench.documents import make_document
from tunstack.bench import page
from tunstack.bench.rows import ROWS

LEFT = {"name": "connect", "reason": "needs <root> & more"}


@pytest.fixture(scope="module")
def text() -> str:
    document = make_document() | {"left_out": [LEFT]}
    document["rows"] = [row for row in document["rows"] if row["name"] != "connect"]
    return page.render(document, [make_document(ratio=0.4, time="<before>")])


@pytest.fixture(scope="module")
def tree(text) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # raises where it is not well-formed


def plots(tree: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [
        svg
        for svg in tree.iter("{http://www.w3.org/2000/svg}svg")
        if svg.get("class") == kind
    ]


def words(tree: ElementTree.Element) -> str:
    return "\n".join(tree.itertext())


def test_every_row_is_in_the_table(tree):
    heads = {th.text for th in tree.find("body/table").iter("th")}
    assert {row.name for row in ROWS} <= heads


def test_what_was_left_out_says_why(tree):
    assert "left out: needs <root> & more" in words(tree)


def test_the_machine_is_named_as_it_is(tree):
    assert "a <b> & c, 2 cores" in words(tree)


def test_the_page_loads_nothing(text):
    assert not re.search(r"<script|<link|<img|@import|url\(|\bsrc=|\bhref=", text)


def test_there_is_a_style_for_light_and_for_dark(text):
    assert "prefers-color-scheme: dark" in text


def test_stages_have_a_bar_each_the_longest_for_the_most(tree):
    (bars,) = plots(tree, "bars")
    assert len(list(bars.iter("{http://www.w3.org/2000/svg}rect"))) == 5


def test_round_trips_have_a_curve_of_ours_and_one_of_the_ceiling(tree):
    spreads = plots(tree, "spread")
    assert len(spreads) == 2
    for spread in spreads:
        classes = {element.get("class") for element in spread.iter()}
        assert {"line ours", "line theirs"} <= classes


def test_history_has_a_point_for_each_run_of_a_row(tree):
    histories = plots(tree, "history")
    assert len(histories) == sum(row.against is not None for row in ROWS)
    titles = [
        title.text for title in histories[0].iter("{http://www.w3.org/2000/svg}title")
    ]
    assert [title.partition(": ")[0] for title in titles] == [
        "<before>",
        "2026-01-02T03:04:05Z",
    ]


def test_a_first_run_has_no_history():
    tree = ElementTree.fromstring(page.render(make_document(), []))
    assert plots(tree, "history") == []


def test_a_run_of_one_row_has_a_page_too():
    document = make_document()
    document["rows"] = document["rows"][:1]
    tree = ElementTree.fromstring(page.render(document, []))
    assert plots(tree, "bars") == plots(tree, "spread") == []
