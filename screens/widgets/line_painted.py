"""The base of widgets that redraw often, such as charts and gauges: only changed lines are sent to the terminal."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from screens.widgets.throttle import Throttle

Piece = tuple[str, Style]
"""Text of one line, with its style."""

UNSTYLED = Style()


class LinePaintedWidget(Widget):
    """A widget painted line by line.

    A subclass implements :meth:`paint` from its own data and calls :meth:`changed` when that data has changed. However
    often that is called, the widget repaints at most :attr:`REDRAWS_A_SECOND` times a second. It then sends only the
    lines that differ, up to the last column that does. Before its first layout it paints nothing.
    """

    REDRAWS_A_SECOND: ClassVar[float] = 4

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._lines: Sequence[Strip] | None = None
        self._redraws = Throttle(self, self._repaint, self.REDRAWS_A_SECOND)

    # No ABC: Textual's widgets have a metaclass of their own. The type checker enforces this one.
    @abstractmethod
    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """Return the content for a size in cells, from the top; missing lines are blank, surplus ones are cut."""

    def changed(self) -> None:
        """Repaint soon: the data has changed."""
        self._redraws.call_soon()

    def replaced(self) -> None:
        """Repaint at once: other data is shown from now on."""
        self._redraws.call_now()

    def render_line(self, y: int) -> Strip:
        if self._lines is None:
            self._lines = self._painted()
        width, base = self.size.width, self.rich_style
        if y >= len(self._lines):
            return Strip.blank(width, base)
        return _joined(self._lines[y].apply_style(base).adjust_cell_length(width, base))

    def notify_style_update(self) -> None:
        self._lines = None
        super().notify_style_update()

    def on_resize(self) -> None:
        self._lines = None
        self.refresh()

    def on_show(self, _: events.Show) -> None:
        self._repaint()

    def _painted(self) -> Sequence[Strip]:
        width, height = self.size
        return self.paint(width, height)[:height] if width and height else ()

    def _repaint(self) -> None:
        if not self.is_attached or not self.size:
            return
        before, self._lines = self._lines, self._painted()
        if before is None:
            self.refresh()
        elif regions := [
            Region(0, y, _last_difference(old, new), 1)
            for y, (old, new) in enumerate(zip_longest(before, self._lines, fillvalue=Strip.blank(0)))
            if old != new
        ]:
            self.refresh(*regions)


def strip_of(pieces: Sequence[Piece]) -> Strip:
    """Return one line made of pieces of text, each with its style."""
    return Strip([Segment(text, style) for text, style in pieces if text])


def _joined(line: Strip) -> Strip:
    """Return a line that looks the same with fewer style changes, which cost more bytes than the text itself.

    Neighbors of one style are joined, and spaces take the style before them if the background is the same.
    """
    pieces: list[Segment] = []
    for piece in line:
        before = pieces[-1].style if pieces else None
        looks_alike = before and piece.style and piece.text.isspace() and _ground(before) == _ground(piece.style)
        pieces.append(Segment(piece.text, before) if looks_alike else piece)
    return Strip(pieces, line.cell_length).simplify()


def _ground(style: Style) -> tuple[object, ...]:
    """Return the part of a style that shows on a blank cell."""
    return style.bgcolor, style.reverse and style.color, style.underline, style.strike, style.link


def _last_difference(old: Strip, new: Strip) -> int:
    """Return the column after the last one in which two lines differ."""
    length = max(old.cell_length, new.cell_length)
    a, b = (_cells(line) for line in (old, new))
    if len(a) != len(b) or len(a) != length:  # wide characters: columns are not characters
        return length
    return next((x for x in range(length, 0, -1) if a[x - 1] != b[x - 1]), 0)


def _cells(line: Strip) -> list[tuple[str, Style | None]]:
    return [(character, style) for text, style, _ in line for character in text]
