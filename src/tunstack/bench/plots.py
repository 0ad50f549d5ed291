"""Plots as inline SVG: bars, spreads of times, and lines over runs.

Colours are classes, which the page's style gives for light and for dark.
"""

import math
from collections.abc import Sequence
from html import escape

from tunstack.bench.words import digits, quantity

_WIDTH, _LABEL, _VALUE = 720, 130, 90
_BAR, _GAP = 22, 8
_HEIGHT, _LEFT, _BOTTOM, _TOP = 260, 60, 34, 12


def bars(figures: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw one bar each, by orders of magnitude: what is in memory only is far ahead."""
    low = math.floor(math.log10(min(value for _, value in figures))) - 0.5
    high = math.log10(max(value for _, value in figures))
    scale = (_WIDTH - _LABEL - _VALUE) / (high - low)
    bottom = len(figures) * (_BAR + _GAP)
    parts = []
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        x = _LABEL + (exponent - low) * scale
        parts.append(_rule(x, 0, x, bottom))
        parts.append(_text(x, bottom + 16, quantity(10.0**exponent, unit), "middle"))
    for at, (name, value) in enumerate(figures):
        top = at * (_BAR + _GAP)
        middle = top + _BAR / 2 + 5
        width = (math.log10(value) - low) * scale
        parts += [
            _text(_LABEL - 8, middle, name, "end"),
            f'<rect class="ours" x="{_LABEL}" y="{top}" width="{width:.1f}"'
            f' height="{_BAR}" rx="3"/>',
            _text(_LABEL + width + 8, middle, quantity(value, unit), "start"),
        ]
    return _svg(bottom + 24, parts, "bars")


def spreads(curves: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Draw how times are spread: which share of them was at most so long.

    Args:
        curves: name, class of its colour, and percentiles from the 1st to the 99th, in
            seconds.
    """
    times = [time for _, _, percentiles in curves for time in percentiles]
    low, high = math.log10(min(times)), math.log10(max(times))
    scale = (_WIDTH - _LEFT - 20) / max(high - low, 1e-9)

    def x(time: float) -> float:
        return _LEFT + (math.log10(time) - low) * scale

    def y(percent: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - percent / 100)

    parts = []
    for percent in (0, 25, 50, 75, 100):
        parts += [_rule(_LEFT, y(percent), _WIDTH - 20, y(percent))]
        parts += [_text(_LEFT - 8, y(percent) + 4, f"{percent} %", "end")]
    for exponent in range(math.ceil(low * 3), math.floor(high * 3) + 1):
        time = 10 ** (exponent / 3)
        parts += [_rule(x(time), _TOP, x(time), y(0))]
        parts += [_text(x(time), _HEIGHT - _BOTTOM + 18, quantity(time, "s"), "middle")]
    for name, colour, percentiles in curves:
        points = [(x(time), y(at)) for at, time in enumerate(percentiles, 1)]
        parts.append(_line(points, colour))
        end = points[len(points) // 2]
        parts.append(_text(end[0] + 8, end[1] + 4, name, "start"))
    return _svg(_HEIGHT, parts, "spread")


def lines(values: Sequence[float], labels: Sequence[str]) -> str:
    """Draw a value over runs, the first at the left, from 0 up.

    Args:
        values: one a run.
        labels: what each run was, shown when pointed at.
    """
    height, most = 70, max(values)
    step = (_WIDTH - 2 * _LEFT) / max(len(values) - 1, 1)
    points = [
        (_LEFT + at * step, 8 + (height - 16) * (1 - value / most))
        for at, value in enumerate(values)
    ]
    parts = [
        _rule(_LEFT, height - 8, _WIDTH - _LEFT, height - 8),
        _text(_LEFT - 8, 13, digits(most), "end"),
        _text(_LEFT - 8, height - 4, "0", "end"),
        _line(points, "ours"),
    ]
    parts += [
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3">'
        f"<title>{escape(label)}</title></circle>"
        for (x, y), label in zip(points, labels, strict=True)
    ]
    return _svg(height, parts, "history")


def _svg(height: float, parts: Sequence[str], what: str) -> str:
    return (
        f'<svg class="{what}" viewBox="0 0 {_WIDTH} {height:.0f}" role="img"'
        f' xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="rule" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="line {colour}" d="M{path}"/>'
