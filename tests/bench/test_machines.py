import pytest

from tunstack.bench import machines
from tunstack.bench.probe import WrongAnswer
from tunstack.mux.session import Mux
from tunstack.stack.stack import Stack


@pytest.mark.parametrize("size", [1460, machines.LARGE])
def test_a_stack_takes_in_text_for_as_long_as_it_is_asked(size):
    assert machines.stack(size)(0.01) > 0


def test_a_mux_carries_text_for_as_long_as_it_is_asked():
    assert machines.mux()(0.01) > 0


def test_a_stack_that_loses_text_has_no_figure(monkeypatch):
    measure = machines.stack(1460)
    whole = Stack.take_events
    monkeypatch.setattr(Stack, "take_events", lambda stack: whole(stack)[1:])
    with pytest.raises(WrongAnswer):
        measure(0.01)


def test_a_mux_that_loses_text_has_no_figure(monkeypatch):
    measure = machines.mux()
    whole = Mux.receive
    monkeypatch.setattr(Mux, "receive", lambda mux, frames: whole(mux, frames)[1:])
    with pytest.raises(WrongAnswer):
        measure(0.01)
