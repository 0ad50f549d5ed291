"""Who is still there after a time, on a clock of the test's own."""

import asyncio

import pytest

from tunstack.manager.overdue import Overdue


class Loop:
    """A loop's clock and timers."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        self.timers.append((self.now + delay, callback))
        return self.timers[-1]

    def pass_time(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = end


@pytest.fixture
def loop():
    return Loop()


def test_what_is_not_discarded_in_time_is_due_once_and_in_order(loop):
    due = []
    overdue = Overdue(loop, 10, lambda item: due.append((item, loop.now)))
    overdue.add("a")
    loop.pass_time(3)
    overdue.add("b")
    overdue.add("c")
    loop.pass_time(2)
    overdue.discard("b")
    loop.pass_time(100)
    assert due == [("a", 110.0), ("c", 113.0)]


def test_one_timer_serves_all(loop):
    overdue = Overdue(loop, 10, print)
    for item in range(100):
        overdue.add(item)
        loop.pass_time(0.01)
    assert len(loop.timers) == 1


def test_what_comes_when_nothing_is_left_is_waited_for_again(loop):
    due = []
    overdue = Overdue(loop, 10, due.append)
    overdue.add("a")
    overdue.discard("a")
    loop.pass_time(20)
    assert not loop.timers
    overdue.add("b")
    loop.pass_time(10)
    assert due == ["b"]


def test_an_item_that_another_discards_when_it_is_due_is_not(loop):
    due = []

    def end(item):
        due.append(item)
        overdue.discard("b")

    overdue = Overdue(loop, 10, end)
    overdue.add("a")
    overdue.add("b")
    loop.pass_time(10)
    assert due == ["a"]


async def test_it_runs_on_a_real_loop():
    due = asyncio.Queue()
    overdue = Overdue(asyncio.get_running_loop(), 0.02, due.put_nowait)
    overdue.add("a")
    assert await asyncio.wait_for(due.get(), 10) == "a"
