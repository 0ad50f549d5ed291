"""The network that throughput is measured over is the one that was asked for."""

import pytest

from tests.netsim.link import Link

PACKETS = 20_000


def arrivals(**chances):
    link = Link("seed", rate=1e6, delay=0.25, queue=8, **chances)
    return [link.send(1000, now) for now in range(PACKETS)]


def test_a_packet_takes_its_time_on_the_wire_and_the_delay():
    link = Link("seed", rate=1e6, delay=0.25, queue=8)
    assert link.send(1000, 5.0) == [pytest.approx(5.251)]
    assert link.send(500, 5.0) == [pytest.approx(5.2515)]


def test_what_the_queue_has_no_room_for_is_dropped():
    link = Link("seed", rate=1e6, delay=0.25, queue=8)
    came = [link.send(1000, 0.0) for _ in range(10)]
    assert [len(times) for times in came] == [1] * 8 + [0] * 2
    assert link.overflows == 2
    assert link.send(1000, 0.0011) != []


def test_luck_comes_as_often_as_was_asked_for():
    lost = sum(not times for times in arrivals(loss=0.05))
    twice = sum(len(times) == 2 for times in arrivals(duplicate=0.05))
    late = sum(times[0] > now + 0.2511 for now, times in enumerate(arrivals(reorder=0.05)))
    assert 0.04 < lost / PACKETS < 0.06
    assert 0.04 < twice / PACKETS < 0.06
    assert 0.04 < late / PACKETS < 0.06


def test_one_chance_does_not_change_what_the_others_do():
    alone = [not times for times in arrivals(loss=0.05)]
    assert alone == [not times for times in arrivals(loss=0.05, duplicate=0.5)]
