"""A table comparing runs: one column per run, or one line per run if columns do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich.align import Align
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain
from workbench.runs.library.comparison import letters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from rich.console import RenderableType

    from workbench.runs.library.comparison import Rows

# Longer texts, such as a list of modules, are wrapped.
_MOST = 24
_LEAST = 6
_MOST_OF_A_NAME = 20
_GAP = 2


def table_of(
    title: str,
    names: Sequence[str],
    rows: Rows,
    place: int,
    accent: str,
    best: Mapping[str, Set[int]] | None = None,
) -> RenderableType:
    """Return the table for a width in cells; each run has its letter and name.

    Args:
        best: of a table of metrics, the runs with the best value by the row's label. Its numbers are aligned right.
    """
    if best is not None:
        mark = " ★" if GLYPHS.is_unicode else " *"
        rows = [
            (label, [cell + (mark if index in best.get(label, ()) else "") for index, cell in enumerate(cells)])
            for label, cells in rows
        ]
    runs = [f"{letter} {plain(name)}" for letter, name in zip(letters(len(names)), names, strict=True)]
    rows = [(plain(label), [plain(cell) for cell in cells]) for label, cells in rows]
    heading = Text(title, style=f"bold {accent}")
    widths = [
        max(_LEAST, min(_MOST, max(map(cell_len, (run, *(cells[index] for _, cells in rows))))))
        for index, run in enumerate(runs)
    ]
    labels = max(cell_len(label) for label in (title, *(label for label, _ in rows)))
    if labels + sum(_GAP + width for width in widths) <= place:
        return _upright(heading, runs, rows, is_numeric=best is not None)
    return Group(*_turned(heading, runs, rows, place))


def _upright(heading: Text, runs: Sequence[str], rows: Rows, *, is_numeric: bool) -> Table:
    table = _empty()
    table.add_column(heading, no_wrap=True)
    for run in runs:
        justify: Literal["left", "right"] = "right" if is_numeric else "left"
        table.add_column(Text(run, style="bold"), overflow="fold", min_width=_LEAST, max_width=_MOST, justify=justify)
    for label, cells in rows:
        table.add_row(Text(label), *map(_cell, cells))
    return table


def _turned(heading: Text, runs: Sequence[str], rows: Rows, place: int) -> Iterator[RenderableType]:
    """Yield a table with a line per run; values that do not fit beside each other follow in further tables."""
    yield heading
    names = min(_MOST_OF_A_NAME, max(map(cell_len, runs)))
    for number, part in enumerate(_parts(rows, place - names)):
        if number:
            yield Text("")
        table = _empty()
        table.add_column(width=names)
        for label, cells in part:
            head = Align.left(Text(_broken(label)), vertical="bottom")
            table.add_column(head, width=_width(label, cells), overflow="fold")
        for index, run in enumerate(runs):
            name = Text(run, style="bold", no_wrap=True, overflow="ellipsis")
            table.add_row(name, *(_cell(cells[index]) for _, cells in part))
        yield table


def _cell(text: str) -> Text:
    """A value; the best of its kind is bold."""
    return Text(text, style="bold" if text.endswith((" ★", " *")) else "")


def _parts(rows: Rows, place: int) -> Iterator[Rows]:
    """Split the rows into groups that fit beside each other."""
    part: Rows = []
    left = place
    for label, cells in rows:
        width = _GAP + _width(label, cells)
        if part and width > left:
            yield part
            part, left = [], place
        part.append((label, cells))
        left -= width
    if part:
        yield part


def _width(label: str, cells: Sequence[str]) -> int:
    return max(*map(cell_len, _broken(label).split()), min(_MOST, max(map(cell_len, cells))))


def _broken(label: str) -> str:
    """Break a dotted key into lines at its dots."""
    return label.replace(".", ".\n")


def _empty() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), expand=False)
