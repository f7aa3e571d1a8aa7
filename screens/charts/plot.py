"""Drawing curves with characters: braille has 2 × 4 dots a cell, plain ASCII 1 × 3 levels.

A plot is a list of rows, each a mapping of the cells that are not empty: column → (character, owner). The owner is the
index of the curve that a cell shows, or :data:`CLOUD` more where it shows how far that curve's points scatter. No
styles, no Textual: what it looks like is the widget's affair.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.runs.series import Bucket, Series

CLOUD = 1000
_APART = 12
"""Cells between two letters on one curve."""

Cell = tuple[str, int]
Row = dict[int, Cell]


@dataclass(frozen=True)
class Dots:
    """How a cell is divided: ``spans[column][first][last]`` masks those dot rows, ``characters[mask]`` shows them."""

    across: int
    down: int
    spans: tuple[tuple[tuple[int, ...], ...], ...]
    characters: str


def _dots(bits: tuple[tuple[int, ...], ...], characters: str) -> Dots:
    down = len(bits[0])
    spans = tuple(
        tuple(tuple(sum(column[first : last + 1]) for last in range(down)) for first in range(down)) for column in bits
    )
    return Dots(len(bits), down, spans, characters)


# The dots of a braille cell as Unicode numbers them (The Unicode Standard, "Braille Patterns").
BRAILLE = _dots(
    ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)), "".join(chr(0x2800 + mask) for mask in range(256))
)
LEVELS = _dots(((1, 2, 4),), " '-|.|||")


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is shown, and the cells it is shown in."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int
    height: int

    def column(self, x: float) -> int:
        """The cell column of ``x``."""
        share = (x - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        return min(self.width - 1, max(0, int(share * self.width)))

    def row(self, y: float, dots: int = 1) -> int:
        """The row of ``y`` from the top when a cell is ``dots`` high; outside the frame it lies beyond its rows."""
        share = (self.y_high - y) / ((self.y_high - self.y_low) or 1.0)
        return round(share * (self.height * dots - 1))


def draw(
    curves: Sequence[tuple[Series, str]], frame: Frame, dots: Dots = BRAILLE, letters: Sequence[str] = ()
) -> list[Row]:
    """Curves in a frame, the last one on top.

    Args:
        curves: each with the character that marks its points, or "" for a line in its scatter.
        frame: where; it gives ``frame.height`` rows.
        dots: what a cell is divided into.
        letters: one a curve, by which lines that cross are told apart: it stands on the line here and there, and the
            line's scatter is left out. "" for none.
    """
    rows: list[Row] = [{} for _ in range(frame.height)]
    for index, (series, mark) in enumerate(curves):
        columns = series.columns(frame.x_low, frame.x_high, frame.width * dots.across)
        line = _line(columns, frame, dots.down)
        if mark:
            # Marks count; the line between them is a hint, every second pair of dots.
            _lay(rows, (run for run in line if run[0] % 4 < 2), index, dots)
            for x, y in series.points():
                if frame.x_low <= x <= frame.x_high and 0 <= (row := frame.row(y)) < frame.height:
                    rows[row][frame.column(x)] = (mark, index)
        else:
            if not any(letters):
                _lay(rows, _scatter(columns, frame, dots.down), CLOUD + index, dots)
            _lay(rows, line, index, dots)
    for index, letter in enumerate(letters):
        if letter:
            for x, y in _places(curves[index][0], frame, index, len(letters)):
                rows[y][x] = (letter, index)
    return rows


def _places(series: Series, frame: Frame, index: int, count: int) -> set[tuple[int, int]]:
    """Cells on a curve that are well apart, and beside those of the other curves."""
    columns = series.columns(frame.x_low, frame.x_high, frame.width)
    if not columns:
        return set()
    apart = max(_APART, frame.width // 6)
    wanted = range(apart * (2 * index + 1) // (2 * count), frame.width, apart)
    nearest = {min(columns, key=lambda column: abs(column - x)) for x in (*wanted, max(columns))}
    cells = {(x, frame.row(columns[x].mean)) for x in nearest}
    return {(x, y) for x, y in cells if 0 <= y < frame.height}


Run = tuple[int, int, int]  # dot column, first and last dot row


def _line(columns: Mapping[int, Bucket], frame: Frame, down: int) -> list[Run]:
    """The line through the means, without holes."""
    runs: list[Run] = []
    left, at = -1, 0
    for column, bucket in columns.items():
        row = frame.row(bucket.mean, down)
        if left < 0:
            runs.append((column, row, row))
        else:
            start, width = at, column - left
            for step in range(1, width + 1):
                to = start + (row - start) * step // width
                # From beside the left neighbour's dot to the own one.
                runs.append((left + step, at + 1, to) if to > at else (left + step, to, at - 1 if to < at else at))
                at = to
        left, at = column, row
    return runs


def _scatter(columns: Mapping[int, Bucket], frame: Frame, down: int) -> list[Run]:
    return [
        (column, frame.row(bucket.high, down), frame.row(bucket.low, down))
        for column, bucket in columns.items()
        if bucket.high > bucket.low
    ]


def _lay(rows: list[Row], runs: Iterable[Run], owner: int, dots: Dots) -> None:
    """Put dots over what is there; a cell shows one owner only."""
    down = dots.down
    masks: list[dict[int, int]] = [{} for _ in rows]
    bottom_row = len(rows) * down - 1
    for column, top, bottom in runs:
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
