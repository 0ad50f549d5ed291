"""What a worker says of a group, here one of the test's own."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tunstack.bench import worker
from tunstack.bench.probe import Probe, Unavailable, expect, probe
from tunstack.errors import HostError


@pytest.fixture
def asked() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def say(monkeypatch, capfd, asked) -> Callable[..., list[dict]]:
    """Be a worker for three probes, of which the last one may be replaced."""

    def ask(name: str) -> Probe:
        def measure(seconds: float) -> float:
            asked.append((name, seconds))
            return len(asked)

        return probe(name, measure)

    def work(*names: str, rounds: int = 2, opening: Exception | None = None, last=None):
        @contextmanager
        def group(_wanted: frozenset[str]) -> Iterator[list[Probe]]:
            if opening is not None:
                raise opening
            yield [ask("a"), ask("b"), last or ask("c")]

        monkeypatch.setattr(worker, "_GROUPS", {"group": group})
        monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
        worker.main("group", str(rounds), "0.5", *names)
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return work


def test_probes_are_asked_in_turns_after_a_warm_up_that_is_not_told(say, asked):
    said = say("a", "b", "c")
    assert [name for name, _ in asked] == ["a", "b", "c"] * 3
    assert {seconds for _, seconds in asked[:3]} == {0.1}
    assert {seconds for _, seconds in asked[3:]} == {0.5}
    assert [message["values"] for message in said] == [
        {"a": 4}, {"b": 5}, {"c": 6}, {"a": 7}, {"b": 8}, {"c": 9},
    ]  # fmt: skip
    assert [message["done"] for message in said] == [1, 2, 3, 4, 5, 6]
    assert {message["of"] for message in said} == {6}


def test_only_what_is_wanted_is_asked(say, asked):
    say("b")
    assert {name for name, _ in asked} == {"b"}


def test_a_group_that_cannot_be_had_is_left_out(say):
    assert say("a", opening=Unavailable("needs a miracle")) == [
        {"left_out": "needs a miracle"}
    ]


def test_a_wrong_answer_is_a_bug_and_ends_it(say, asked):
    wrong = probe("c", lambda _: expect(False, "one octet") or 1.0)
    (message,) = say("a", "c", last=wrong)
    assert message["error"]["code"] == 70
    assert "one octet" in message["error"]["message"]


def test_an_error_keeps_its_code_and_its_hint(say):
    (message,) = say("a", opening=HostError("it broke", hint="mend it"))
    assert message == {"error": {"code": 5, "message": "it broke", "hint": "mend it"}}


def test_whatever_else_happens_is_a_bug(say):
    (message,) = say("a", opening=ZeroDivisionError("division by zero"))
    assert message["error"]["code"] == 70
    assert "ZeroDivisionError" in message["error"]["message"]
