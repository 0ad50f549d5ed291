"""Figures as people write them."""

from collections.abc import Mapping
from typing import Any

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"))
_WITH_PREFIX = ("bit/s", "s")


def quantity(value: float, unit: str) -> str:
    """Write a figure with three digits: ``4.72 Gbit/s``, ``372 us``."""
    if unit not in _WITH_PREFIX:
        if value < 1000:
            return f"{digits(value)} {unit}"
        return f"{float(f'{value:.3g}'):,.0f} {unit}".replace(",", " ")
    found = ((size, prefix) for size, prefix in _PREFIXES if value >= size)
    size, prefix = next(found, _PREFIXES[-1])
    return f"{digits(value / size)} {prefix}{unit}"


def digits(value: float) -> str:
    """Write a number with three digits, or all before the point."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - exponent)}f}"


def share(row: Mapping[str, Any]) -> str:
    """Say a row's ratio: ``21 % of kernel forwarding``, ``12 times the Python twin``."""
    if row["ratio"] is None:
        return ""
    ratio, name = row["ratio"], row["ceiling"]["name"]
    if ratio >= 2:
        return f"{digits(ratio)} times {name}"
    return f"{ratio * 100:.0f} % of {name}"
