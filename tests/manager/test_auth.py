import os

import pytest

from tunstack.errors import ConfigError
from tunstack.manager.auth import Tokens


def test_each_line_is_a_token(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# ours\n\n  first \nsecond\n")
    tokens = Tokens(path)
    assert tokens.accept("first")
    assert tokens.accept("second")
    for other in ("", "firs", "first ", "# ours", "third", "é"):
        assert not tokens.accept(other), other


def test_a_changed_file_counts_at_once(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("old\n")
    tokens = Tokens(path)
    fresh = tmp_path / "fresh"
    fresh.write_text("new\n")
    os.replace(fresh, path)
    assert tokens.accept("new")
    assert not tokens.accept("old")


def test_a_file_that_goes_away_lets_nobody_in_until_it_is_back(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("old\n")
    tokens = Tokens(path)
    path.unlink()
    assert not tokens.accept("old")
    path.write_text("old\n")
    assert tokens.accept("old")


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused_at_the_start(tmp_path, content):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="tokens"):
        Tokens(path)
