import pytest

from tunstack.bench.rows import ROWS, choose
from tunstack.errors import UsageError


def names(*asked: str) -> list[str]:
    return [row.name for row in choose(asked)]


def test_without_a_name_everything_is_chosen():
    assert choose(()) == list(ROWS)


def test_rows_and_groups_are_chosen_once_and_in_the_order_of_the_table():
    assert names("mux", "kernels", "parse") == ["checksum", "parse", "framing", "mux"]


def test_an_unknown_name_is_refused_with_all_there_are():
    with pytest.raises(UsageError, match="warp") as caught:
        choose(["up-1", "warp"])
    for known in ("kernels", "path", "up-1"):
        assert known in caught.value.hint
