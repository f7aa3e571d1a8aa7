"""The top of a chart: the names of its curves, and the values at its cursor."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from screens.charts.scale import short_number
from screens.charts.view import View
from screens.widgets.glyphs import Glyphs
from screens.widgets.line_painted import UNSTYLED, Piece, strip_of
from screens.widgets.plain import plain
from workbench.runs.curves.series import Series


@dataclass(frozen=True)
class Curve:
    """One line of a chart. With ``marked`` each point is marked and the line is faint.

    Attributes:
        label: its name in the legend; empty to leave it out there.
        letter: distinguishes it without color: it is drawn on the line, or as the mark.
        color: the number of its color; by default its position among the curves.
    """

    label: str
    series: Series
    marked: bool = False
    letter: str = ""
    color: int | None = None


@dataclass(frozen=True)
class Reading:
    """A quantity that is not drawn, but whose value at the cursor is shown."""

    label: str
    series: Series


@dataclass(frozen=True)
class Legend:
    """How the curves of a chart are named.

    Attributes:
        form: writes a value of the curves.
        axis: the name of the x axis.
        readings: further quantities to show at the cursor.
        text_style: the style of names and hints.
        color_style: the style of a color's number.
    """

    glyphs: Glyphs
    form: Callable[[float], str]
    axis: str
    readings: Sequence[Reading]
    text_style: Style
    color_style: Callable[[int], Style]

    def lines(self, curves: Sequence[Curve], view: View, width: int) -> list[Strip]:
        """The names of the curves on the right, on as many lines as they need; on the left the cursor's values.

        Where both do not fit on a line, the cursor's values replace the names.
        """
        lines = self._names(curves, width)
        left = self._at_cursor(curves, view.cursor, width) or self._hints(view)
        if left and _cells(lines[0]) + cell_len(left) + 2 > width:
            if view.cursor is not None:
                return [strip_of([(left, UNSTYLED)])]
            left = ""
        gap = " " * max(0, width - _cells(lines[0]) - cell_len(left))
        first = [(left, UNSTYLED if view.cursor is not None else self.text_style), (gap, UNSTYLED), *lines[0]]
        others = [[(" " * max(0, width - _cells(line)), UNSTYLED), *line] for line in lines[1:]]
        return [strip_of(line) for line in (first, *others)]

    def _names(self, curves: Sequence[Curve], width: int) -> list[list[Piece]]:
        """Sign, name and last value of each curve; the first line may be empty, further ones are begun when needed."""
        lines: list[list[Piece]] = [[]]
        for index, curve in enumerate(curves):
            if not curve.label:
                continue
            sign = curve.letter or (mark_of(self.glyphs) if curve.marked else self._stroke)
            stride = f" (means of {curve.series.stride})" if curve.series.stride > 1 else ""
            value = f" {self.form(curve.series.last[1])}" if curve.series.last else ""
            entry = [
                (f"{sign} ", self.color_style(index if curve.color is None else curve.color)),
                (f"{plain(curve.label)}{value}{stride}", self.text_style),
            ]
            if lines[-1] and _cells([*lines[-1], *entry]) + 3 > width:
                lines.append([])
            lines[-1] += [("   ", UNSTYLED), *entry] if lines[-1] else entry
        return lines

    def _at_cursor(self, curves: Sequence[Curve], cursor: float | None, room: int) -> str:
        """The values at the cursor, as many as there is room for: ``step 212 · train 0.412 · eval 0.398``."""
        if cursor is None:
            return ""
        texts = [f"{self.axis} {cursor:.0f}" if cursor >= 10 or cursor % 1 == 0 else f"{self.axis} {cursor:.3g}"]
        for curve in curves:
            value = curve.series.at(cursor, before=curve.marked)
            if curve.label and value is not None:
                texts.append(f"{plain(curve.letter or curve.label)} {self.form(value)}")
        for reading in self.readings:
            if (value := reading.series.at(cursor)) is not None:
                texts.append(f"{reading.label} {short_number(value)}")
        separator = f" {self.glyphs.separator} "
        while len(texts) > 1 and cell_len(separator.join(texts)) > room:
            texts.pop()
        return separator.join(texts)

    @staticmethod
    def _hints(view: View) -> str:
        """How the view differs from the plain one."""
        hints = [f"smoothed over {view.span}"] if view.span > 1 else []
        return ", ".join([*hints, *(["log axis"] if view.is_log else [])])

    @property
    def _stroke(self) -> str:
        return "━" if self.glyphs.is_unicode else "-"


def mark_of(glyphs: Glyphs) -> str:
    """The character that marks the points of a marked curve."""
    return "◆" if glyphs.is_unicode else "o"


def _cells(pieces: Iterable[Piece]) -> int:
    return sum(cell_len(text) for text, _ in pieces)
