"""Which namespaces must not become domains, since names on the Internet end so."""

import re

import pytest

from tunstack.engine.public_suffixes import single_labels


@pytest.mark.parametrize("label", ["rs", "dev", "app", "im", "cloud", "com", "np", "zip"])
def test_what_anybody_may_register_under_is_public(label):
    assert label in single_labels()


@pytest.mark.parametrize(
    "label",
    ["default", "kube-system", "kube-public", "monitoring", "local", "svc", "cluster"],
)
def test_what_namespaces_are_called_is_not(label):
    assert label not in single_labels()


@pytest.mark.parametrize("label", ["blogspot", "github", "www", "amazonaws"])
def test_what_stands_before_a_dot_in_the_list_is_not(label):
    """``blogspot.com``, ``github.io``, ``!www.ck``: names of two labels."""
    assert label not in single_labels()


def test_all_are_labels_as_they_are_asked_for():
    label = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
    assert not [each for each in single_labels() if not label.fullmatch(each)]
    assert "xn--p1ai" in single_labels()  # .рф
    assert 1000 < len(single_labels()) < 10_000
