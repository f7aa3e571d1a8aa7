"""Draws loss curves as an SVG picture for the report.

It uses no plotting library: matplotlib would be a 60 MB dependency for forty lines of coordinates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from workbench.plain_text import plain

Point = tuple[float, float]

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 48
_COLORS = ("#1f6feb", "#d4540f", "#1a7f37")
_FONT = "font-family='system-ui, sans-serif' font-size='12' fill='#333'"


@dataclass(frozen=True)
class Line:
    """One curve, with points in order of x. ``marked`` draws a dot on each point, for curves of few points."""

    name: str
    points: Sequence[Point]
    marked: bool = False


def curve_picture(title: str, lines: Sequence[Line], *, x_label: str = "step", y_label: str = "loss") -> str:
    """Draw curves in one chart, as an SVG document; points that are not finite are left out."""
    finite = [Line(line.name, [p for p in line.points if all(map(math.isfinite, p))], line.marked) for line in lines]
    shown = [line for line in finite if line.points]
    parts = [_text(_LEFT, 22, title, "font-weight='bold'")]
    if not shown:
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, "No steps logged yet.", "text-anchor='middle'"))
        return _document(title, parts)
    xs, ys = zip(*(point for line in shown for point in line.points), strict=True)
    scale = _Scale(ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys)))
    parts += _axes(scale, x_label, y_label)
    legend, colored = float(_WIDTH - _RIGHT), list(zip(shown, _COLORS, strict=False))
    for line, color in colored:
        parts += _line(line, color, scale)
    for line, color in reversed(colored):
        parts.append(_text(legend, 22, line.name, f"text-anchor='end' style='fill:{color}'"))
        legend -= 8 * len(line.name) + 24
    return _document(title, parts)


def ticks(low: float, high: float, *, max_count: int = 7, whole: bool = False) -> list[float]:
    """Evenly spaced round numbers for an axis that covers ``low`` to ``high``.

    Args:
        whole: only integers, as for steps.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    decade = 10.0 ** math.floor(math.log10((high - low) / (max_count - 1)))
    for step in (factor * decade * power for power in (1, 10, 100) for factor in (1, 2, 5)):
        if whole and step < 1:
            continue
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < max_count:
            return [round(number * step, 12) for number in range(first, last + 1)]
    return [low, high]


@dataclass(frozen=True)
class _Scale:
    """Maps values to pixel coordinates; the outermost ticks are the edges of the chart."""

    x_ticks: list[float]
    y_ticks: list[float]

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(value, self.x_ticks)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _share(value, self.y_ticks)


def _share(value: float, axis_ticks: list[float]) -> float:
    return (value - axis_ticks[0]) / (axis_ticks[-1] - axis_ticks[0])


def _axes(scale: _Scale, x_label: str, y_label: str) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in scale.y_ticks:
        y = scale.y(value)
        parts.append(f"<path d='M{_LEFT} {y:.1f}H{right}' stroke='#ddd'/>")
        parts.append(_text(_LEFT - 8, y + 4, f"{value:,.6g}", "text-anchor='end'"))
    for value in scale.x_ticks:
        x = scale.x(value)
        parts.append(f"<path d='M{x:.1f} {bottom}v5' stroke='#888'/>")
        parts.append(_text(x, bottom + 20, f"{value:,.6g}", "text-anchor='middle'"))
    parts.append(f"<path d='M{_LEFT} {bottom}H{right}' stroke='#888'/>")
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 8, x_label, "text-anchor='middle'"))
    parts.append(_text(_LEFT - 8, _TOP - 12, y_label, "text-anchor='end'"))
    return parts


def _line(line: Line, color: str, scale: _Scale) -> list[str]:
    pixels = _thin_out([(scale.x(x), scale.y(y)) for x, y in line.points])
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
    parts = [f"<path d='M{path}' fill='none' stroke='{color}' stroke-width='1.6' stroke-linejoin='round'/>"]
    if line.marked or len(pixels) == 1:
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{color}'/>" for x, y in pixels]
    return parts


def _thin_out(points: list[Point]) -> list[Point]:
    """Keep the lowest and the highest point in each pixel column: a small file that still shows every spike."""
    columns: dict[int, list[Point]] = {}
    for point in points:
        columns.setdefault(int(point[0]), []).append(point)
    extremes: list[Point] = []
    for column in columns.values():
        extremes += sorted({min(column, key=lambda point: point[1]), max(column, key=lambda point: point[1])})
    return extremes


def _text(x: float, y: float, content: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} {more}>{escape(plain(content))}</text>"


def _document(title: str, parts: list[str]) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' "
        f"role='img' aria-label={quoteattr(plain(title))}>"
    )
    return "\n".join([head, f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#fff'/>", *parts, "</svg>"]) + "\n"
