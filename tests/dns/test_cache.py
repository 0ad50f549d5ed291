"""What is kept of the cluster's answers, for how long, and how much."""

import pytest

from tests.support.questions import SOA, answer, query, read, texts
from tunstack.dns.cache import MOST_STALE, Cache, Entry
from tunstack.dns.message import complete, parse_answer, parse_question, wire

FULL = "echo.default.svc.cluster.local."


def key(name, kind=1):
    return wire(name), kind, False, 0


def positive(ttl=100, name=FULL):
    return parse_answer(answer(query(name), f"@ {ttl} A 10.96.0.7"))


def denial(name=FULL, rcode="NXDOMAIN"):
    return parse_answer(answer(query(name), rcode=rcode, authority=[SOA]))


def test_an_answer_is_fresh_for_its_time_and_of_use_for_a_day_more():
    cache = Cache()
    cache.put(key(FULL), positive(100), 1000.0)
    assert cache.get(key(FULL), 1000.0).fresh(1000.0)
    assert cache.get(key(FULL), 1099.9).fresh(1099.9)
    assert not cache.get(key(FULL), 1100.0).fresh(1100.0)
    assert cache.get(key(FULL), 1099 + MOST_STALE)
    assert len(cache) == 1
    assert cache.get(key(FULL), 1100 + MOST_STALE) is None
    assert (len(cache), cache.octets) == (0, 0)


def test_a_denial_is_of_no_use_after_its_time():
    cache = Cache()
    cache.put(key(FULL), denial(), 1000.0)
    assert cache.get(key(FULL), 1019.9).denies
    assert cache.get(key(FULL), 1020.0) is None
    assert len(cache) == 0


def test_that_a_name_has_no_such_record_does_not_deny_the_name():
    cache = Cache()
    entry = cache.put(key(FULL), denial(rcode="NOERROR"), 1000.0)
    assert not entry.denies
    assert not entry.fresh(1020.0)
    assert cache.get(key(FULL), 1020.0) is entry


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_what_may_not_be_kept_is_given_and_not_kept(rcode):
    cache = Cache()
    for given in (positive(0), denial(rcode=rcode)):
        assert cache.put(key(FULL), given, 0.0).answer is given
        assert cache.get(key(FULL), 0.0) is None
    assert (len(cache), cache.octets) == (0, 0)


def test_what_may_not_be_kept_takes_the_place_of_what_was():
    cache = Cache()
    cache.put(key(FULL), positive(), 0.0)
    cache.put(key(FULL), positive(0), 1.0)
    assert cache.get(key(FULL), 1.0) is None
    assert cache.octets == 0


def test_a_newer_answer_takes_the_place_of_the_older():
    cache = Cache()
    cache.put(key(FULL), positive(), 0.0)
    newer = positive(50)
    cache.put(key(FULL), newer, 10.0)
    assert cache.get(key(FULL), 10.0).answer is newer
    assert (len(cache), cache.octets) == (1, len(newer.body))


def test_type_dnssec_and_checking_are_part_of_what_was_asked():
    cache = Cache()
    cache.put((wire(FULL), 1, False, 0), positive(), 0.0)
    for other in ((28, False, 0), (1, True, 0), (1, False, 16)):
        assert cache.get((wire(FULL), *other), 0.0) is None


def test_the_entry_not_used_for_longest_makes_room():
    cache = Cache(most_entries=3)
    for name in ("a", "b", "c"):
        cache.put(key(name), positive(name=name), 0.0)
    cache.get(key("a"), 1.0)
    cache.put(key("d"), positive(name="d"), 2.0)
    cache.put(key("e"), positive(name="e"), 3.0)
    kept = [name for name in "abcde" if cache.get(key(name), 4.0)]
    assert kept == ["a", "d", "e"]


def test_octets_are_bounded():
    size = len(positive(name="a").body)
    cache = Cache(most_octets=3 * size + 1)
    for number in range(20):
        name = chr(ord("a") + number)
        cache.put(key(name), positive(name=name), 0.0)
        assert cache.octets == len(cache) * size <= 3 * size
    assert [name for name in "abcdefghijklmnopqrst" if cache.get(key(name), 0.0)] == [
        *"rst"
    ]


def test_one_answer_that_is_too_large_is_not_kept():
    cache = Cache(most_octets=10)
    cache.put(key(FULL), positive(), 0.0)
    assert (len(cache), cache.octets) == (0, 0)


def test_the_bounds_hold_in_a_storm():
    cache = Cache(most_entries=100)
    given = positive()
    for number in range(10_000):
        cache.put(key(f"n{number}"), given, number / 1000)
    assert len(cache) == 100
    assert cache.octets == 100 * len(given.body)
    assert all(cache.get(key(f"n{number}"), 10.0) for number in range(9_900, 10_000))


def test_denials_are_forgotten_and_nothing_else():
    cache = Cache()
    cache.put(key("a"), positive(name="a"), 0.0)
    cache.put(key("b"), denial("b"), 0.0)
    cache.put(key("c"), denial("c", rcode="NOERROR"), 0.0)
    cache.forget_denials()
    assert [name for name in "abc" if cache.get(key(name), 0.0)] == ["a", "c"]
    assert cache.octets == sum(len(cache.get(key(name), 0.0).answer.body) for name in "ac")


@pytest.mark.parametrize(
    ("used", "now", "due"),
    [
        (False, 1099.0, False),
        (True, 1000.0, False),
        (True, 1090.0, False),
        (True, 1090.1, True),
        (True, 1099.9, True),
    ],
)
def test_only_what_is_used_is_fetched_anew_when_a_tenth_is_left(used, now, due):
    entry = Entry(positive(100), 1000.0)
    entry.used = used
    assert entry.due(now) is due


def view(entry, name):
    question = parse_question(query(name, payload=None))
    found = entry.view(wire(FULL), question)
    return found, texts(read(complete(found, question, age=0, ttl=None)).answer)


def test_an_answer_is_seen_under_other_names():
    entry = Entry(positive(), 0.0)
    found, shown = view(entry, FULL)
    assert found is entry.answer
    assert shown == [f"{FULL} 100 A 10.96.0.7"]
    for name in ("echo.", "Echo.default.", "echo.default.svc.", "echo.", "ECHO."):
        assert view(entry, name)[1] == [f"{name} 100 A 10.96.0.7"]
    assert view(entry, "echo.")[0] is view(entry, "ECHO.")[0]


def test_views_are_bounded():
    """Whoever maps many names to one does not fill the memory."""
    entry = Entry(positive(), 0.0)
    for number in range(100):
        assert view(entry, f"n{number}.")[1] == [f"n{number}. 100 A 10.96.0.7"]
    assert len(entry.views) <= 4
