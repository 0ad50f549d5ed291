"""`tunstack bench`: what it says, where, and how it exits. Runs are made short."""

import json
from functools import partialmethod
from xml.etree import ElementTree

import pytest

from tests.support.command_line import assert_two_lines, run
from tunstack.bench.rows import GROUPS, ROWS
from tunstack.bench.run import Run
from tunstack.cli.bench import bench


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """Where runs are remembered; they are short."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    short = partialmethod(Run.measure, rounds=1, seconds=0.01)
    monkeypatch.setattr(Run, "measure", short)
    return tmp_path / "tunstack/bench.jsonl"


@pytest.fixture
def measured(capfd):
    """The document of a run of the kernels."""
    code, out, err = run(capfd, "bench", "kernels", "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def save(tmp_path, document: dict, factor: float = 1.0) -> str:
    """Write a document whose ratios were so many times as good."""
    for row in document["rows"]:
        row["ratio"] *= factor
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_the_list_has_every_row_and_its_question(capfd):
    code, out, err = run(capfd, "bench", "--list")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(ROWS)
    for row, line in zip(ROWS, out.splitlines(), strict=True):
        assert line.split()[:2] == [row.group, row.name]
        assert line.endswith(row.question)


def test_people_read_a_figure_and_its_share_of_the_ceiling(capfd):
    code, out, err = run(capfd, "bench", "checksum")
    assert (code, err) == (0, "")
    group, line = out.splitlines()
    assert group == "kernels"
    name, _, rest = line.strip().partition(" ")
    assert name == "checksum"
    assert "bit/s" in rest
    assert "the Python twin" in rest
    assert rest.split()[-1] in ("good", "fair", "poor")


def test_what_is_piped_has_no_colour(capfd):
    _, out, _ = run(capfd, "bench", "checksum")
    assert "\x1b" not in out


def test_programs_read_one_document_with_the_machine_and_every_sample(measured):
    assert measured["schema"] == "tunstack-bench/1"
    assert measured["time"].endswith("Z")
    assert measured["machine"].keys() == {
        "cpu", "cores", "kernel", "python", "fastpath", "transport", "user",
    }  # fmt: skip
    assert [row["name"] for row in measured["rows"]] == ["checksum", "parse", "framing"]
    for row in measured["rows"]:
        assert row["ratio"] == pytest.approx(row["value"] / row["ceiling"]["value"])
        assert len(row["samples"]) == len(row["ceiling"]["samples"]) == 1


def test_an_unknown_name_is_a_matter_of_usage(capfd):
    code, out, err = run(capfd, "bench", "warp")
    assert (code, out) == (2, "")
    assert_two_lines(err)
    assert "there is no benchmark warp" in err
    assert "kernels" in err
    assert "up-1" in err


def test_a_run_that_has_lost_nothing_exits_0(capfd, tmp_path, measured):
    earlier = save(tmp_path, measured, factor=0.01)
    code, out, _ = run(capfd, "bench", "kernels", "--compare", earlier)
    assert code == 0
    assert "compared" in out
    assert "worse" not in out


def test_a_run_that_has_lost_more_than_the_tolerance_exits_1(capfd, tmp_path, measured):
    earlier = save(tmp_path, measured, factor=100)
    code, out, err = run(capfd, "bench", "kernels", "--compare", earlier)
    assert (code, err) == (1, "")
    assert [line.split()[0] for line in out.splitlines() if line.endswith("worse")] == [
        "checksum",
        "parse",
        "framing",
    ]


def test_the_tolerance_is_what_was_asked_for(capfd, tmp_path, measured):
    earlier = save(tmp_path, measured, factor=100)
    words = ("bench", "kernels", "--compare", earlier, "--tolerance", "100")
    code, _, _ = run(capfd, *words)
    assert code == 0


def test_a_comparison_is_part_of_the_one_document(capfd, tmp_path, measured):
    earlier = save(tmp_path, measured, factor=100)
    words = ("bench", "checksum", "--json", "--compare", earlier)
    code, out, _ = run(capfd, *words)
    assert code == 1
    comparison = json.loads(out)["comparison"]
    assert comparison["worse"]
    assert [row["name"] for row in comparison["rows"]] == ["checksum"]
    assert comparison["only_before"] == ["parse", "framing"]


def test_rows_of_one_run_alone_are_named(capfd, tmp_path, measured):
    earlier = save(tmp_path, measured, factor=0.01)
    code, out, _ = run(capfd, "bench", "checksum", "--compare", earlier)
    assert code == 0
    assert "only before: parse, framing" in out


@pytest.mark.parametrize("text", [None, "{}", "\udcff"])
def test_what_is_no_result_is_refused_before_anything_is_measured(
    capfd, tmp_path, state, text
):
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text, errors="surrogateescape")
    code, out, err = run(capfd, "bench", "--compare", str(path))
    assert (code, out) == (3, "")
    assert_two_lines(err)
    assert str(path) in err
    assert not state.exists()


def test_every_run_is_remembered_and_shown_on_the_page(capfd, tmp_path, measured, state):
    file = tmp_path / "page.html"
    code, _, _ = run(capfd, "bench", "kernels", "--html", str(file))
    assert code == 0
    first, second = map(json.loads, state.read_text().splitlines())
    assert first == measured
    text = file.read_text()
    ElementTree.fromstring(text)
    assert first["time"] in text
    assert second["time"] in text


def test_a_page_that_cannot_be_written_costs_no_figures(capfd, tmp_path):
    code, out, err = run(capfd, "bench", "checksum", "--html", str(tmp_path / "no/page"))
    assert code == 3
    assert "checksum" in out
    assert_two_lines(err)


def test_a_state_that_cannot_be_written_costs_no_figures(capfd, monkeypatch, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(in_the_way / "below"))
    code, out, err = run(capfd, "bench", "checksum")
    assert code == 0
    assert "checksum" in out
    assert "not remembered" in err


def test_a_shell_completes_rows_and_groups():
    (argument,) = [param for param in bench.params if param.name == "names"]
    context = bench.make_context("bench", ["--list"])
    found = {item.value for item in argument.shell_complete(context, "")}
    assert found == {*GROUPS, *(row.name for row in ROWS)}
    some = {item.value for item in argument.shell_complete(context, "up")}
    assert some == {"up-1", "up-8"}
