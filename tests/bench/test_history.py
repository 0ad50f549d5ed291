import pytest

from tests.bench.documents import make_document
from tunstack.bench import history


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state/bench.jsonl"


def make(number: int) -> dict:
    document = make_document(time=f"run {number}")
    return document | {"rows": document["rows"][:1]}


def test_without_a_file_there_were_no_runs(file):
    assert history.read(file) == []


def test_runs_are_remembered_in_their_order(file):
    for number in range(3):
        history.append(file, make(number))
    assert history.read(file) == [make(number) for number in range(3)]


def test_only_the_last_runs_are_kept(file):
    for number in range(history.RUNS + 5):
        history.append(file, make(number))
    kept = history.read(file)
    assert len(kept) == len(file.read_text().splitlines()) == history.RUNS
    assert kept[0]["time"] == "run 5"
    assert kept[-1]["time"] == f"run {history.RUNS + 4}"


def test_a_line_that_is_no_run_harms_no_other(file):
    history.append(file, make(0))
    with file.open("a") as lines:
        lines.write('{"schema": "of tomorrow", "rows": []}\n{"cut o')
    assert history.read(file) == [make(0)]


def test_nothing_is_left_beside_the_file(file):
    history.append(file, make(0))
    assert list(file.parent.iterdir()) == [file]
