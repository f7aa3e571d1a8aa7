"""A chart of memory and load over the last minutes, with a time scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from screens.charts.plot import BRAILLE, LEVELS, Frame, draw
from screens.widgets.glyphs import GLYPHS, Glyphs
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from workbench.runs.curves.series import Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.strip import Strip

    from screens.charts.plot import Row
    from screens.hardware_history import HardwareReading

_SPANS = (60, 300, 900)
_MARGIN = 6
_APART = 14


class HistoryChart(LinePaintedWidget):
    """Memory and load in percent over the shortest of 1, 5 and 15 minutes that has all readings."""

    REDRAWS_A_SECOND = 1
    COMPONENT_CLASSES = {"history--axis", "history--memory", "history--load"}  # noqa: RUF012
    DEFAULT_CSS = """
    HistoryChart { height: 1fr; min-height: 5; }
    HistoryChart > .history--axis { color: $text-muted; }
    HistoryChart > .history--memory { color: $text-success; }
    HistoryChart > .history--load { color: $text-primary; }
    """

    def __init__(self, *, glyphs: Glyphs = GLYPHS, **names: str | None) -> None:
        super().__init__(**names)
        self._ascii = not glyphs.is_unicode
        self._readings: Sequence[HardwareReading] = ()
        self._load_name = "load"

    def show(self, readings: Sequence[HardwareReading], load_name: str) -> None:
        """Show these readings, oldest first; ``load_name`` is what the load is called."""
        self._readings, self._load_name = tuple(readings), load_name
        self.changed()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        readings = self._readings
        if not readings or width < _MARGIN + 8 or height < 3:
            return [strip_of([("waiting for the first reading", self._style("axis"))])]
        now = readings[-1].at
        span = next((one for one in _SPANS if now - readings[0].at <= one), _SPANS[-1])
        frame = Frame(-span, 0.0, 0.0, 100.0, width - _MARGIN, height - 2)
        memory = Series((r.at - now, 100 * r.memory) for r in readings if r.memory is not None and r.at >= now - span)
        load = Series((r.at - now, 100 * r.load) for r in readings if r.load is not None and r.at >= now - span)
        rows = draw([(load, ""), (memory, "")], frame, LEVELS if self._ascii else BRAILLE)
        return [self._legend(memory, load), *self._body(rows, frame), self._axis(span, frame)]

    def _style(self, name: str):  # type: ignore[no-untyped-def]
        return self.get_component_rich_style(f"history--{name}")

    def _legend(self, memory: Series, load: Series) -> Strip:
        line = "-" if self._ascii else "━"
        pieces: list[Piece] = []
        for name, label, series in (("memory", "memory", memory), ("load", self._load_name, load)):
            value = f"{series.last[1]:.0f} %" if series.last else "N/A"
            pieces += [(f"{line} ", self._style(name)), (f"{label} {value}   ", self._style("axis"))]
        return strip_of(pieces)

    def _body(self, rows: list[Row], frame: Frame) -> list[Strip]:
        labels = {frame.row(tick): f"{tick:.0f} %" for tick in (100.0, 50.0, 0.0)}
        bar, cross = ("|", "+") if self._ascii else ("│", "┤")
        axis = self._style("axis")
        styles = (self._style("load"), self._style("memory"))
        lines = []
        for y, row in enumerate(rows):
            head = labels.get(y, "").rjust(_MARGIN - 1) + (cross if y in labels else bar)
            pieces: list[Piece] = [(head, axis)]
            for x in range(frame.width):
                character, owner = row.get(x, (" ", -1))
                pieces.append((character, styles[owner % 1000 % 2] if owner >= 0 else UNSTYLED))
            lines.append(strip_of(_joined(pieces)))
        return lines

    def _axis(self, span: int, frame: Frame) -> Strip:
        text = [" "] * (_MARGIN + frame.width)
        count = max(1, min(5, frame.width // _APART))
        for part in range(count + 1):
            seconds = span * (count - part) / count
            label = _ago(seconds)
            at = _MARGIN + frame.column(-seconds)
            start = max(0, min(at - cell_len(label) // 2, len(text) - len(label)))
            text[start : start + len(label)] = label
        return strip_of([("".join(text), self._style("axis"))])


def _ago(seconds: float) -> str:
    if seconds == 0:
        return "now"
    if seconds < 60:
        return f"-{seconds:.0f} s"
    return f"-{seconds / 60:g} min" if seconds % 6 == 0 else f"-{seconds / 60:.1f} min"


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Join neighbors of one style."""
    found: list[Piece] = []
    for text, style in pieces:
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + text, style)
        else:
            found.append((text, style))
    return found
