"""Charts as SVG text: bars that compare programs, lines that show how a cost grows."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

Spread = tuple[float, float, float]
"""Median, smallest, largest."""

_OURS, _OTHERS, _RANGE, _GREY = "#0969da", "#afb8c1", "#57606a", "#57606a"
_WIDTH, _NAMES, _FIGURES, _ROW, _TOP = 640, 110, 90, 22, 46
_COLUMNS, _SQUARE, _HEIGHT, _PLOT = 3, 220, 195, 120


def bars(title: str, subtitle: str, panels: Mapping[str, Mapping[str, Spread]], marked: str) -> str:
    """One panel below the other, in each a bar for every name, the shortest first, with its spread; each has its own scale.

    The bar named `marked` has the strong colour. A single panel needs no name of its own.
    """
    lines, y = [], _TOP
    for panel, values in panels.items():
        if len(panels) > 1:
            y += 14
            lines.append(_text(8, y, panel, "font-weight='bold' font-size='12'"))
            y += 10
        scale = (_WIDTH - _NAMES - _FIGURES) / max(most for _, _, most in values.values())
        for name, (middle, least, most) in sorted(values.items(), key=lambda item: item[1]):
            end, low, high = (_NAMES + scale * value for value in (middle, least, most))
            lines += [
                _text(_NAMES - 8, y + 13, name, "text-anchor='end'"),
                f"<rect x='{_NAMES}' y='{y}' width='{end - _NAMES:.1f}' height='{_ROW - 5}'"
                f" fill='{_OURS if name == marked else _OTHERS}'/>",
                f"<path d='M{low:.1f} {y + 8.5}H{high:.1f}' stroke='{_RANGE}'/>",
                _text(high + 6, y + 13, _figure(middle)),
            ]
            y += _ROW
    return _svg(_WIDTH, y + 6, title, f"{subtitle}; less is better; the thin line is the spread", lines)


def growth(title: str, subtitle: str, panels: Mapping[str, Mapping[str, Mapping[float, Spread]]]) -> str:
    """Small multiples: in each panel a line for every name, through the medians over the numbers (in powers of ten).

    With each median its spread. All begin at zero; each panel has its own scale, and room for itself where it is the only one.
    """
    lines = []
    columns = min(_COLUMNS, len(panels))
    square = _SQUARE * _COLUMNS // columns
    for number, (panel, series) in enumerate(panels.items()):
        left, top = 40 + number % columns * square, _TOP + 36 + number // columns * _HEIGHT
        most = max(high for points in series.values() for _, _, high in points.values())
        numbers = next(iter(series.values()))
        first, last = log10(max(min(numbers), 1)), log10(max(numbers))
        lines += [
            _text(left - 20, top - 22, panel, "font-weight='bold' font-size='12'"),
            f"<path d='M{left} {top}V{top + _PLOT}H{left + square - 50}' stroke='{_GREY}' fill='none'/>",
        ]
        lines += [
            _text(
                _across(left, square, first, last, x), top + _PLOT + 13, _short(x), "text-anchor='middle' font-size='9'"
            )
            for x in numbers
        ]
        for place, (name, points) in enumerate(series.items()):
            colour = _OTHERS if place else _OURS
            placed: list[tuple[float, Sequence[float]]] = [
                (_across(left, square, first, last, x), [top + _PLOT * (1 - y / most) for y in ys])
                for x, ys in points.items()
            ]
            path = " L".join(f"{x:.1f} {ys[0]:.1f}" for x, ys in placed)
            lines.append(f"<path d='M{path}' stroke='{colour}' fill='none'/>")
            for (x, (middle, low, high)), (cost, _, _) in zip(placed, points.values(), strict=True):
                lines += [
                    f"<path d='M{x:.1f} {low:.1f}V{high:.1f}' stroke='{_RANGE}'/>",
                    f"<circle cx='{x:.1f}' cy='{middle:.1f}' r='2.5' fill='{colour}'/>",
                    _text(x, middle - 7, _figure(cost), "text-anchor='middle' font-size='9'"),
                ]
            if len(series) > 1:
                lines.append(_text(placed[-1][0] - 8, placed[-1][1][0] + 16, name, "text-anchor='end' font-size='11'"))
    rows = -(-len(panels) // columns)
    return _svg(columns * square, _TOP + rows * _HEIGHT, title, subtitle, lines)


def _across(left: float, square: float, first: float, last: float, number: float) -> float:
    return left + (square - 60) * (log10(max(number, 1)) - first) / (last - first)


def _svg(width: int, height: float, title: str, subtitle: str, lines: Sequence[str]) -> str:
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height:g}' font-family='sans-serif' font-size='12'>",
            f"<rect width='{width}' height='{height:g}' fill='#fff'/>",
            _text(8, 20, title, "font-weight='bold' font-size='13'"),
            _text(8, 37, subtitle, f"fill='{_GREY}' font-size='11'"),
            *lines,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _short(number: float) -> str:
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if number >= size and number % size == 0:
            return f"{number / size:g}{unit}"
    return f"{number:,g}"
