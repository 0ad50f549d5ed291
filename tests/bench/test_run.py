"""Runs with workers of their own, short ones."""

import os

import pytest

from tunstack.bench import run as runs
from tunstack.bench.probe import WrongAnswer
from tunstack.bench.rows import choose
from tunstack.bench.run import Run
from tunstack.errors import TunstackError

BRIEF = 0.01

STAGES = {
    "loopback", "grpc", "transport", "mux", "stack", "stack-1460", "loopback-echo",
    "transport-echo",
}  # fmt: skip


def values(document: dict) -> dict[str, float]:
    return {row["name"]: row["value"] for row in document["rows"]}


def test_a_run_of_the_stages_measures_them_all_without_root():
    run = Run(choose(["stages"]))
    run.measure(rounds=2, seconds=BRIEF)
    document = run.document()
    assert values(document).keys() == STAGES
    assert all(value > 0 for value in values(document).values())
    by_name = {row["name"]: row for row in document["rows"]}
    assert len(by_name["transport"]["samples"]) == 2
    assert by_name["transport"]["ceiling"]["samples"] == by_name["loopback"]["samples"]
    assert len(by_name["transport-echo"]["percentiles"]["ours"]) == 99
    assert document["left_out"] == []


def test_a_run_of_one_row_measures_its_ceiling_and_shows_it_with_the_row_alone():
    run = Run(choose(["mux"]))
    run.measure(rounds=1, seconds=BRIEF)
    (row,) = run.results()
    assert row["name"] == "mux"
    assert row["ceiling"]["value"] > 0


def test_a_run_says_how_far_it_is_and_what_there_is_by_then():
    seen = []
    run = Run(choose(["kernels"]))
    run.measure(
        lambda run: seen.append((run.done, len(run.results()))), rounds=1, seconds=BRIEF
    )
    done = [done for done, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert seen[0][1] < seen[-1][1] == 3


def replace_worker(monkeypatch, tmp_path, text: str) -> None:
    """Have another program be the worker."""
    worker = tmp_path / "worker"
    worker.write_text(f"#!/bin/sh\n{text}\n")
    worker.chmod(0o755)
    monkeypatch.setattr(runs.sys, "executable", str(worker))


def test_a_wrong_answer_of_a_worker_is_an_error_of_the_run(monkeypatch, tmp_path):
    error = '{"error": {"code": 70, "message": "a wrong answer", "hint": "none"}}'
    replace_worker(monkeypatch, tmp_path, f"echo '{error}'")
    with pytest.raises(TunstackError, match="a wrong answer") as caught:
        Run(choose(["kernels"])).measure()
    assert caught.value.exit_code == WrongAnswer.exit_code == 70


def test_a_worker_that_fails_without_a_word_is_an_error_of_the_run(monkeypatch, tmp_path):
    replace_worker(monkeypatch, tmp_path, "exit 3")
    with pytest.raises(TunstackError, match="kernels ended with code 3"):
        Run(choose(["kernels"])).measure()


def test_what_a_worker_leaves_out_is_named_and_the_rest_goes_on(monkeypatch, tmp_path):
    replace_worker(
        monkeypatch, tmp_path,
        """case "$4" in
        start) echo '{"left_out": "needs a helper"}';;
        *) echo '{"values": {"checksum": 3, "checksum, twin": 1}, "percentiles": {},'\
                ' "done": 1, "of": 1}';;
        esac""",
    )  # fmt: skip
    run = Run(choose(["connect", "checksum"]))
    run.measure()
    document = run.document()
    assert document["left_out"] == [{"name": "connect", "reason": "needs a helper"}]
    assert values(document) == {"checksum": 3}


def test_a_run_that_is_broken_off_ends_its_worker(monkeypatch, tmp_path):
    said = '{"values": {}, "percentiles": {}, "done": 1, "of": 9}'
    pid, told = tmp_path / "pid", tmp_path / "told"
    replace_worker(
        monkeypatch,
        tmp_path,
        f"trap 'echo > {told}; kill $!; exit' TERM; sleep 100 & echo $$ > {pid};"
        f" echo '{said}'; wait",
    )

    def interrupt(_: Run) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(choose(["kernels"])).measure(interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert told.exists(), "it could end what it had started"
