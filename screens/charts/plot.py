"""Drawing curves with characters: braille has 2 × 4 dots a cell, plain ASCII 1 × 3 levels.

A plot is a list of rows; each maps the columns of its non-empty cells to (character, owner). The owner is the index of
the curve in a cell, or that index plus :data:`CLOUD` for the scatter of its points. Styles are up to the widget.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.runs.curves.series import Bucket, Series

CLOUD = 1000
CURSOR = 2000
_APART = 12
"""The cells between two letters on a curve."""

Cell = tuple[str, int]
Row = dict[int, Cell]


@dataclass(frozen=True)
class Dots:
    """How a cell is divided: ``spans[column][first][last]`` is a mask of dot rows, ``characters[mask]`` shows it.

    ``point`` shows a curve of a single point, of which a dot would be overlooked.
    """

    across: int
    down: int
    spans: tuple[tuple[tuple[int, ...], ...], ...]
    characters: str
    point: str


def _dots(bits: tuple[tuple[int, ...], ...], characters: str, point: str) -> Dots:
    down = len(bits[0])
    spans = tuple(
        tuple(tuple(sum(column[first : last + 1]) for last in range(down)) for first in range(down)) for column in bits
    )
    return Dots(len(bits), down, spans, characters, point)


# The dots of a braille cell as Unicode numbers them (The Unicode Standard, "Braille Patterns").
BRAILLE = _dots(
    ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)), "".join(chr(0x2800 + mask) for mask in range(256)), "●"
)
LEVELS = _dots(((1, 2, 4),), " '-|.|||", "o")


@dataclass(frozen=True)
class Frame:
    """The range of values that is shown, and the size in cells."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int
    height: int

    def column(self, x: float) -> int:
        """Return the cell column of ``x``."""
        share = (x - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        return min(self.width - 1, max(0, int(share * self.width)))

    def row(self, y: float, dots: int = 1) -> int:
        """Return the row of ``y`` from the top, in dots of which a cell has ``dots``; it may lie outside the frame."""
        share = (self.y_high - y) / ((self.y_high - self.y_low) or 1.0)
        return round(share * (self.height * dots - 1))


def draw(
    curves: Sequence[tuple[Series, str]],
    frame: Frame,
    dots: Dots = BRAILLE,
    letters: Sequence[str] = (),
    clouds: Mapping[int, Series] | None = None,
) -> list[Row]:
    """Draw curves in a frame, the last one on top.

    Args:
        curves: each with the character that marks its points, or "" for a line in its scatter.
        frame: the range and size; the result has ``frame.height`` rows.
        dots: how a cell is divided.
        letters: one per curve, drawn on it at intervals to tell crossing lines apart; the scatter is then left out.
            "" for none.
        clouds: by the index of a smoothed curve, the points that it was smoothed from.
    """
    rows: list[Row] = [{} for _ in range(frame.height)]
    for index, (series, mark) in enumerate(curves):
        columns = series.columns(frame.x_low, frame.x_high, frame.width * dots.across)
        line = _line(columns, frame, dots.down)
        if mark:
            # The line between marks is faint: every second pair of dots.
            _lay(rows, (stroke for stroke in line if stroke[0] % 4 < 2), index, dots)
            for x, y in series.points():
                if frame.x_low <= x <= frame.x_high and 0 <= (row := frame.row(y)) < frame.height:
                    rows[row][frame.column(x)] = (mark, index)
        else:
            if clouds and index in clouds:
                raw = clouds[index].columns(frame.x_low, frame.x_high, frame.width * dots.across)
                _lay(rows, _scatter(raw, frame, dots.down, points=True), CLOUD + index, dots)
            elif not any(letters):
                _lay(rows, _scatter(columns, frame, dots.down), CLOUD + index, dots)
            _lay(rows, line, index, dots)
            if len(columns) == 1 and 0 <= (row := frame.row(next(iter(columns.values())).mean)) < frame.height:
                rows[row][next(iter(columns)) // dots.across] = (dots.point, index)
    for index, letter in enumerate(letters):
        if letter:
            for x, y in _places(curves[index][0], frame, index, len(letters)):
                rows[y][x] = (letter, index)
    return rows


def _places(series: Series, frame: Frame, index: int, count: int) -> set[tuple[int, int]]:
    """Return cells on a curve for its letter, apart from each other and from those of the other curves."""
    columns = series.columns(frame.x_low, frame.x_high, frame.width)
    if not columns:
        return set()
    apart = max(_APART, frame.width // 6)
    wanted = range(apart * (2 * index + 1) // (2 * count), frame.width, apart)
    nearest = {min(columns, key=lambda column: abs(column - x)) for x in (*wanted, max(columns))}
    cells = {(x, frame.row(columns[x].mean)) for x in nearest}
    return {(x, y) for x, y in cells if 0 <= y < frame.height}


Stroke = tuple[int, int, int]
"""A vertical line of dots in a dot column: the column, its first and its last dot row."""


def _line(columns: Mapping[int, Bucket], frame: Frame, down: int) -> list[Stroke]:
    """Return the line through the means, without gaps."""
    strokes: list[Stroke] = []
    left, at = -1, 0
    for column, bucket in columns.items():
        row = frame.row(bucket.mean, down)
        if left < 0:
            strokes.append((column, row, row))
        else:
            start, width = at, column - left
            for step in range(1, width + 1):
                to = start + (row - start) * step // width
                # From next to the left neighbor's dot to this one.
                strokes.append((left + step, at + 1, to) if to > at else (left + step, to, at - 1 if to < at else at))
                at = to
        left, at = column, row
    return strokes


def _scatter(columns: Mapping[int, Bucket], frame: Frame, down: int, *, points: bool = False) -> list[Stroke]:
    return [
        (column, frame.row(bucket.high, down), frame.row(bucket.low, down))
        for column, bucket in columns.items()
        if points or bucket.high > bucket.low
    ]


def _lay(rows: list[Row], strokes: Iterable[Stroke], owner: int, dots: Dots) -> None:
    """Draw dots over what is there; a cell shows one owner only."""
    down = dots.down
    masks: list[dict[int, int]] = [{} for _ in rows]
    bottom_row = len(rows) * down - 1
    for column, top, bottom in strokes:
        x, dot = divmod(column, dots.across)
        spans = dots.spans[dot]
        first, top_dot = divmod(max(0, top), down)
        last, bottom_dot = divmod(min(bottom_row, bottom), down)
        for y in range(first, last + 1):
            mask = spans[top_dot if y == first else 0][bottom_dot if y == last else down - 1]
            masks[y][x] = masks[y].get(x, 0) | mask
    for row, found in zip(rows, masks, strict=True):
        for x, mask in found.items():
            row[x] = (dots.characters[mask], owner)
