"""A bar chart as SVG text."""

from collections.abc import Mapping
from html import escape

_WIDTH, _NAMES, _FIGURES, _ROW, _TOP = 640, 110, 70, 26, 52


def chart(title: str, subtitle: str, values: Mapping[str, float], marked: str) -> str:
    """One horizontal bar for each value, the shortest first; the bar named `marked` has the strong colour."""
    longest = max(values.values())
    height = _TOP + _ROW * len(values) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="8" y="38" fill="#57606a" font-size="11">{escape(subtitle)}; less is better</text>',
    ]
    for row, (name, value) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        y = _TOP + _ROW * row
        length = max(1, round((_WIDTH - _NAMES - _FIGURES) * value / longest))
        colour = "#0969da" if name == marked else "#afb8c1"
        lines += [
            f'<text x="{_NAMES - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_NAMES}" y="{y}" width="{length}" height="{_ROW - 7}" fill="{colour}"/>',
            f'<text x="{_NAMES + length + 6}" y="{y + 14}">{value:.3g}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
