"""A chart of the loss, or another quantity, of one or several runs over their steps."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import is_

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.strip import Strip

from screens.charts.plot import BRAILLE, CLOUD, CURSOR, LEVELS, Frame, Row, draw
from screens.charts.scale import log_ticks, nice_ticks, short_number, steps_shown, tick_labels
from screens.charts.view import View
from screens.widgets.glyphs import GLYPHS, Glyphs
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from screens.widgets.plain import plain
from workbench.runs.curves.series import Series
from workbench.units import loss_text


@dataclass(frozen=True)
class Curve:
    """One line of the chart. With ``marked`` each point is marked and the line is faint.

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
    """A value besides the curves that is named at the cursor."""

    label: str
    series: Series


class LossChart(LinePaintedWidget):
    """Curves on common axes, in braille, with a legend; plain ASCII where the terminal is not UTF-8.

    Points that share a column are drawn as their mean, with a faint cloud from minimum to maximum; a smoothed line has
    the points that it was smoothed from as its cloud.
    """

    # A new run changes a third of the lines at each update: more updates would only send more bytes.
    REDRAWS_A_SECOND = 0.5
    COMPONENT_CLASSES = {  # noqa: RUF012
        "loss-chart--axis",
        "loss-chart--cloud",
        *(f"loss-chart--curve-{index}" for index in range(6)),
    }
    DEFAULT_CSS = """
    LossChart { height: 1fr; min-height: 5; }
    LossChart > .loss-chart--axis { color: $text-muted; }
    LossChart > .loss-chart--cloud { color: $text-accent 30%; }
    LossChart > .loss-chart--curve-0 { color: $text-accent; }
    LossChart > .loss-chart--curve-1 { color: $text-success; text-style: bold; }
    LossChart > .loss-chart--curve-2 { color: $text-warning; }
    LossChart > .loss-chart--curve-3 { color: $text-error; }
    LossChart > .loss-chart--curve-4 { color: $text-primary; }
    LossChart > .loss-chart--curve-5 { color: $text-secondary; }
    """

    def __init__(self, *, glyphs: Glyphs = GLYPHS, **names: str | None) -> None:
        super().__init__(**names)
        self._ascii = not glyphs.is_unicode
        self._curves: Sequence[Curve] = ()
        self._drawn: list[Series] = []
        self._end = 0.0
        self._nothing = ""
        self._view = View()
        self._frame: Frame | None = None
        self._margin = 0
        self._also: Sequence[Reading] = ()
        self._form: Callable[[float], str] = loss_text
        self._axis = "step"

    def show(
        self,
        curves: Iterable[Curve],
        *,
        end: float = 0,
        nothing: str = "",
        also: Sequence[Reading] = (),
        form: Callable[[float], str] = loss_text,
        axis: str = "step",
    ) -> None:
        """Draw these curves. Call this again when their series have grown.

        Args:
            curves: those without points are left out of chart and legend.
            end: the last step of the run; 0 if unknown.
            nothing: the text shown while no curve has points.
            also: what else the cursor reads.
            form: how a value of the curves is written.
            axis: what the cursor's place is called.
        """
        self._curves = tuple(curves)
        self._also, self._form, self._axis = also, form, axis
        self._end = end
        self._nothing = nothing
        wanted = [curve.series for curve in self._curves if curve.series]
        if len(wanted) == len(self._drawn) and all(map(is_, wanted, self._drawn)):
            self.changed()
        else:
            self._drawn = wanted
            self.replaced()

    # -- keys and mouse -------------------------------------------------------------------------------------------

    def act(self, action: str) -> None:
        """Change the view; see :meth:`screens.charts.view.View.after` for the actions."""
        cells = self._frame.width if self._frame is not None else self.size.width
        self._view = self._view.after(action, self._reach, self._steps_with_points, cells)
        self.replaced()

    def on_click(self, event: events.Click) -> None:
        """Read the values at the step that was clicked."""
        offset = event.get_content_offset(self)
        if self._frame is None or offset is None or offset.x <= self._margin:
            return
        frame = self._frame
        share = (offset.x - self._margin - 0.5) / frame.width
        x = frame.x_low + share * (frame.x_high - frame.x_low)
        self._view = self._view.at(x, self._steps_with_points)
        self.replaced()

    @property
    def _reach(self) -> float:
        """The last step of the axis without a zoom."""
        last = max((curve.series.last[0] for curve in self._curves if curve.series.last), default=0.0)
        return steps_shown(last, self._end)

    @property
    def _steps_with_points(self) -> list[float]:
        series = next((curve.series for curve in self._curves if curve.series), None)
        return [x for x, _ in series.points()] if series is not None else []

    # -- painting -------------------------------------------------------------------------------------------------

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        curves = [curve for curve in self._curves if curve.series]
        self._frame = None
        if not curves:
            lines = [Strip.blank(width)] * (height // 2)
            return [*lines, strip_of([(plain(self._nothing).center(width), self._style("axis"))])]
        view = self._view
        raw = [self._scaled(curve.series) for curve in curves]
        x_low, x_high = view.window or (0.0, self._reach)
        low, high = self._range(raw)
        ticks, labels = self._ticks(low, high, max(3, (height - 2) // 3))
        margin = max(map(len, labels.values())) + 1
        legend = self._legend(curves, width)
        frame = Frame(
            x_low, x_high, ticks[0], ticks[-1], max(4, width - margin - 1), max(1, height - len(legend) - 1)
        )  # fmt: skip
        self._frame, self._margin = frame, margin
        is_smooth = [view.span > 1 and not curve.marked for curve in curves]
        drawn = draw(
            [
                (one.smoothed(view.span) if smooth else one, (curve.letter or self._mark) if curve.marked else "")
                for curve, one, smooth in zip(curves, raw, is_smooth, strict=True)
            ],
            frame,
            LEVELS if self._ascii else BRAILLE,
            ["" if curve.marked else curve.letter for curve in curves],
            {}
            if any(curve.letter for curve in curves)
            else {i: raw[i] for i, smooth in enumerate(is_smooth) if smooth},
        )
        if view.cursor is not None and x_low <= view.cursor <= x_high:
            for row in drawn:
                row.setdefault(frame.column(view.cursor), ("|" if self._ascii else "│", CURSOR))
        styles = [
            self._curve_style(index if curve.color is None else curve.color) for index, curve in enumerate(curves)
        ]
        return [*legend, *self._body(drawn, frame, labels, margin, styles), self._steps(frame, margin)]

    def _scaled(self, series: Series) -> Series:
        """The series as it is drawn: on a log axis by the logarithm of its values, of which none is below 1e-12."""
        return series.mapped(lambda y: math.log10(max(y, 1e-12))) if self._view.is_log else series

    def _range(self, series: Sequence[Series]) -> tuple[float, float]:
        """The lowest and the highest value within the window."""
        if self._view.window is None:
            lows, highs = zip(*(one.mean_range for one in series), strict=True)
            return min(lows), max(highs)
        low, high = self._view.window
        values = [y for one in series for x, y in one.points() if low <= x <= high]
        values = values or [y for one in series for _, y in one.points()]
        return min(values), max(values)

    def _ticks(self, low: float, high: float, most: int) -> tuple[list[float], dict[float, str]]:
        """The ticks of the y axis where they are drawn, and their labels."""
        if not self._view.is_log:
            ticks = nice_ticks(low, high, most)
            return ticks, dict(zip(ticks, tick_labels(ticks), strict=True))
        values = log_ticks(10**low, 10**high, most)
        return [math.log10(value) for value in values], {math.log10(value): short_number(value) for value in values}

    def _at_cursor(self, curves: Sequence[Curve], room: int) -> str:
        """The values at the cursor, as many as there is room for: ``step 212 · train 0.412 · eval 0.398``."""
        cursor = self._view.cursor
        if cursor is None:
            return ""
        texts = [f"{self._axis} {cursor:.0f}" if cursor >= 10 or cursor % 1 == 0 else f"{self._axis} {cursor:.3g}"]
        for curve in curves:
            value = curve.series.at(cursor, before=curve.marked)
            if curve.label and value is not None:
                texts.append(f"{plain(curve.letter or curve.label)} {self._form(value)}")
        for reading in self._also:
            if (value := reading.series.at(cursor)) is not None:
                texts.append(f"{reading.label} {short_number(value)}")
        sign = " - " if self._ascii else " · "
        while len(texts) > 1 and cell_len(sign.join(texts)) > room:
            texts.pop()
        return sign.join(texts)

    @property
    def _mark(self) -> str:
        return "o" if self._ascii else "◆"

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"loss-chart--{name}")

    def _curve_style(self, index: int) -> Style:
        return self._style(f"curve-{index % 6}")

    def _legend(self, curves: Sequence[Curve], width: int) -> list[Strip]:
        """Return the names of the curves, aligned right, on as many lines as they need."""
        lines: list[list[Piece]] = [[]]
        for index, curve in enumerate(curves):
            if not curve.label:
                continue
            sign = curve.letter or (self._mark if curve.marked else ("-" if self._ascii else "━"))
            stride = f" (means of {curve.series.stride})" if curve.series.stride > 1 else ""
            value = f" {self._form(curve.series.last[1])}" if curve.series.last else ""
            entry = [
                (f"{sign} ", self._curve_style(index if curve.color is None else curve.color)),
                (f"{plain(curve.label)}{value}{stride}", self._style("axis")),
            ]
            if lines[-1] and _cells([*lines[-1], *entry]) + 3 > width:
                lines.append([])
            lines[-1] += [("   ", UNSTYLED), *entry] if lines[-1] else entry
        hints = [f"smoothed over {self._view.span}"] if self._view.span > 1 else []
        hints += ["log axis"] if self._view.is_log else []
        left = self._at_cursor(curves, width) or ", ".join(hints)
        if left and _cells(lines[0]) + cell_len(left) + 2 > width:
            if self._view.cursor is None:
                left = ""
            else:
                return [strip_of([(left, UNSTYLED)])]
        filled = [strip_of([(" " * max(0, width - _cells(line)), UNSTYLED), *line]) for line in lines]
        gap = " " * max(0, width - _cells(lines[0]) - cell_len(left))
        style = UNSTYLED if self._view.cursor is not None else self._style("axis")
        return [strip_of([(left, style), (gap, UNSTYLED), *lines[0]]), *filled[1:]]

    def _body(
        self, drawn: list[Row], frame: Frame, labels: dict[float, str], margin: int, curves: Sequence[Style]
    ) -> list[Strip]:
        marks = {frame.row(tick): label for tick, label in labels.items()}
        bar, cross = ("|", "+") if self._ascii else ("│", "┤")
        axis = self._style("axis")
        owners = {owner for row in drawn for _, owner in row.values()}
        styles = {
            owner: axis if owner == CURSOR else self._style("cloud") if owner >= CLOUD else curves[owner]
            for owner in owners
        }
        return [
            strip_of(
                [(marks.get(y, "").rjust(margin - 1) + " " + (cross if y in marks else bar), axis), *_run(row, styles)]
            )
            for y, row in enumerate(drawn)
        ]

    def _steps(self, frame: Frame, margin: int) -> Strip:
        text = [" "] * (margin + 1 + frame.width)
        # There is no step 2.5, but 2.5 hours.
        whole = frame.x_high >= 5
        for tick in nice_ticks(frame.x_low, frame.x_high, max(2, frame.width // 14), whole=whole):
            label = short_number(tick) if tick < 10_000 or self._view.window is None else f"{tick:.0f}"
            at = margin + 1 + frame.column(tick)
            start = max(margin + 1, min(at - len(label) // 2, len(text) - len(label)))
            if (
                frame.x_low <= tick <= frame.x_high
                and not "".join(text[max(0, start - 2) : start + len(label) + 1]).strip()
            ):
                text[start : start + len(label)] = label
        return strip_of([("".join(text), self._style("axis"))])


def _cells(pieces: Iterable[Piece]) -> int:
    return sum(cell_len(text) for text, _ in pieces)


def _run(row: Row, styles: dict[int, Style]) -> list[Piece]:
    """Return the cells of a row, neighbors of one owner as one piece: changes of style cost more bytes than text."""
    pieces: list[Piece] = []
    text, style, held, after = "", UNSTYLED, -1, 0
    for x in sorted(row):
        character, owner = row[x]
        if owner != held or x != after:
            pieces += [(text, style), (" " * (x - after), UNSTYLED)]
            text, style, held = "", styles[owner], owner
        text += character
        after = x + 1
    return [*pieces, (text, style)]
