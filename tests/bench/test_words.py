import pytest

from tunstack.bench.words import quantity, share


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.717e9, "bit/s", "4.72 Gbit/s"),
        (88_000_000, "bit/s", "88.0 Mbit/s"),
        (372.4e-6, "s", "372 us"),
        (0.2124, "s", "212 ms"),
        (1.5, "s", "1.50 s"),
        (9.996, "s", "10.0 s"),
        (2e-8, "s", "0.0200 us"),
        (9.6e9, "bit/s", "9.60 Gbit/s"),
        (1_293_307, "packets/s", "1 290 000 packets/s"),
        (317.6, "1/s", "318 1/s"),
        (1.874, "s/GB", "1.87 s/GB"),
    ],
)
def test_a_figure_has_three_digits(value, unit, text):
    assert quantity(value, unit) == text


def test_a_share_is_said_in_percent_or_in_times():
    ceiling = {"name": "kernel forwarding"}
    assert share({"ratio": 0.214, "ceiling": ceiling}) == "21 % of kernel forwarding"
    assert share({"ratio": 12.04, "ceiling": ceiling}) == "12.0 times kernel forwarding"
    assert share({"ratio": None, "ceiling": None}) == ""
