"""A run's loss as a picture: SVG that any browser shows, with nothing in it but lines and plain text.

No plotting library: what it needs of one is forty lines of coordinates, where matplotlib would be 60 MB to install.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from workbench.plain_text import plain

Point = tuple[float, float]

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 48
_COLOURS = ("#1f6feb", "#d4540f", "#1a7f37")
_FONT = "font-family='system-ui, sans-serif' font-size='12' fill='#333'"


@dataclass(frozen=True)
class Line:
    """One curve, points in order of x. ``marked``: a dot on each of its points, which are few."""

    name: str
    points: Sequence[Point]
    marked: bool = False


def curve_picture(title: str, lines: Sequence[Line], *, across: str = "step", up: str = "loss") -> str:
    """The curves over one another, as an SVG document. What is no finite number is left out."""
    kept = [Line(line.name, [p for p in line.points if all(map(math.isfinite, p))], line.marked) for line in lines]
    shown = [line for line in kept if line.points]
    parts = [_text(_LEFT, 22, title, "font-weight='bold'")]
    if not shown:
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, "No steps logged yet.", "text-anchor='middle'"))
        return _document(title, parts)
    every = [point for line in shown for point in line.points]
    scale = _Scale(ticks(*_ends(x for x, _ in every), whole=True), ticks(*_ends(y for _, y in every)))
    parts += _axes(scale, across, up)
    legend, coloured = float(_WIDTH - _RIGHT), list(zip(shown, _COLOURS, strict=False))
    for line, colour in coloured:
        parts += _line(line, colour, scale)
    for line, colour in reversed(coloured):
        parts.append(_text(legend, 22, line.name, f"text-anchor='end' style='fill:{colour}'"))
        legend -= 8 * len(line.name) + 24
    return _document(title, parts)


def ticks(low: float, high: float, *, most: int = 7, whole: bool = False) -> list[float]:
    """At most ``most`` round numbers, evenly apart, that reach from ``low`` or below to ``high`` or above.

    Args:
        whole: no fractions, as for steps.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    decade = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    for step in (factor * decade * up for up in (1, 10, 100) for factor in (1, 2, 5)):
        if whole and step < 1:
            continue
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            return [round(place * step, 12) for place in range(first, last + 1)]
    return [low, high]


@dataclass(frozen=True)
class _Scale:
    """From values to places in the picture; the outermost ticks are its edges."""

    x_ticks: list[float]
    y_ticks: list[float]

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(value, self.x_ticks)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _share(value, self.y_ticks)


def _share(value: float, over: list[float]) -> float:
    return (value - over[0]) / (over[-1] - over[0])


def _ends(values: object) -> tuple[float, float]:
    found = list(values)  # type: ignore[call-overload]
    return min(found), max(found)


def _axes(scale: _Scale, across: str, up: str) -> list[str]:
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
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 8, across, "text-anchor='middle'"))
    parts.append(_text(_LEFT - 8, _TOP - 12, up, "text-anchor='end'"))
    return parts


def _line(line: Line, colour: str, scale: _Scale) -> list[str]:
    places = _thinned([(scale.x(x), scale.y(y)) for x, y in line.points])
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f"<path d='M{path}' fill='none' stroke='{colour}' stroke-width='1.6' stroke-linejoin='round'/>"]
    if line.marked or len(places) == 1:
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>" for x, y in places]
    return parts


def _thinned(places: list[Point]) -> list[Point]:
    """The lowest and the highest of the points that share a pixel's column: no spike is lost, the file stays small."""
    columns: dict[int, list[Point]] = {}
    for place in places:
        columns.setdefault(int(place[0]), []).append(place)
    kept = []
    for column in columns.values():
        ends = {min(column, key=lambda place: place[1]), max(column, key=lambda place: place[1])}
        kept += sorted(ends)
    return kept


def _text(x: float, y: float, content: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} {more}>{escape(plain(content))}</text>"


def _document(title: str, parts: list[str]) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' "
        f"role='img' aria-label={quoteattr(plain(title))}>"
    )
    return "\n".join([head, f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#fff'/>", *parts, "</svg>"]) + "\n"
