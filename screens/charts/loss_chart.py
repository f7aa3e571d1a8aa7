"""A chart of the loss, or another quantity, of one or several runs over their steps."""

import math
from collections.abc import Callable, Iterable, Sequence
from operator import is_

from rich.style import Style
from textual import events
from textual.strip import Strip

from screens.charts.legend import Curve, Legend, Reading, mark_of
from screens.charts.plot import BRAILLE, CLOUD, CURSOR, LEVELS, Frame, Row, draw
from screens.charts.scale import log_ticks, nice_ticks, short_number, steps_shown, tick_labels
from screens.charts.view import View
from screens.widgets.glyphs import GLYPHS, Glyphs
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from screens.widgets.plain import plain
from workbench.runs.curves.series import Series
from workbench.units import loss_text


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
        self._glyphs = glyphs
        self._curves: Sequence[Curve] = ()
        self._drawn: list[Series] = []
        self._end = 0.0
        self._placeholder = ""
        self._view = View()
        self._frame: Frame | None = None
        self._margin = 0
        self._readings: Sequence[Reading] = ()
        self._form: Callable[[float], str] = loss_text
        self._axis = "step"

    def show(
        self,
        curves: Iterable[Curve],
        *,
        end: float = 0,
        placeholder: str = "",
        readings: Sequence[Reading] = (),
        form: Callable[[float], str] = loss_text,
        axis: str = "step",
    ) -> None:
        """Draw these curves. Call this again when their series have grown.

        Args:
            curves: those without points are left out of chart and legend.
            end: the last step of the run; 0 if unknown.
            placeholder: the text shown while no curve has points.
            readings: quantities that are not drawn, and shown at the cursor.
            form: writes a value of the curves.
            axis: the name of the x axis.
        """
        self._curves = tuple(curves)
        self._readings, self._form, self._axis = readings, form, axis
        self._end = end
        self._placeholder = placeholder
        series = [curve.series for curve in self._curves if curve.series]
        if len(series) == len(self._drawn) and all(map(is_, series, self._drawn)):
            self.changed()
        else:
            self._drawn = series
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
            return [*lines, strip_of([(plain(self._placeholder).center(width), self._style("axis"))])]
        scaled = [self._scaled(curve.series) for curve in curves]
        ticks, labels = self._ticks(*self._range(scaled), max(3, (height - 2) // 3))
        margin = max(map(len, labels.values())) + 1
        legend = self._legend.lines(curves, self._view, width)
        x_low, x_high = self._view.window or (0.0, self._reach)
        frame = Frame(
            x_low, x_high, ticks[0], ticks[-1], max(4, width - margin - 1), max(1, height - len(legend) - 1)
        )  # fmt: skip
        self._frame, self._margin = frame, margin
        rows = self._plot(curves, scaled, frame)
        styles = [
            self._color_style(index if curve.color is None else curve.color) for index, curve in enumerate(curves)
        ]
        return [*legend, *self._body(rows, frame, labels, margin, styles), self._steps(frame, margin)]

    def _plot(self, curves: Sequence[Curve], scaled: Sequence[Series], frame: Frame) -> list[Row]:
        """Draw the curves, whose series are ``scaled``, and the cursor."""
        view = self._view
        is_smooth = [view.span > 1 and not curve.marked for curve in curves]
        has_letters = any(curve.letter for curve in curves)
        rows = draw(
            [
                (
                    series.smoothed(view.span) if smooth else series,
                    (curve.letter or mark_of(self._glyphs)) if curve.marked else "",
                )
                for curve, series, smooth in zip(curves, scaled, is_smooth, strict=True)
            ],
            frame,
            BRAILLE if self._glyphs.is_unicode else LEVELS,
            ["" if curve.marked else curve.letter for curve in curves],
            {} if has_letters else {index: scaled[index] for index, smooth in enumerate(is_smooth) if smooth},
        )
        if view.cursor is not None and frame.x_low <= view.cursor <= frame.x_high:
            line = "│" if self._glyphs.is_unicode else "|"
            for row in rows:
                row.setdefault(frame.column(view.cursor), (line, CURSOR))
        return rows

    def _scaled(self, series: Series) -> Series:
        """The series as it is drawn: on a log axis by the logarithm of its values, of which none is below 1e-12."""
        return series.mapped(lambda y: math.log10(max(y, 1e-12))) if self._view.is_log else series

    def _range(self, series: Sequence[Series]) -> tuple[float, float]:
        """The lowest and the highest value within the window."""
        if self._view.window is None:
            lows, highs = zip(*(curve.mean_range for curve in series), strict=True)
            return min(lows), max(highs)
        low, high = self._view.window
        points = [point for curve in series for point in curve.points()]
        values = [y for x, y in points if low <= x <= high] or [y for _, y in points]
        return min(values), max(values)

    def _ticks(self, low: float, high: float, most: int) -> tuple[list[float], dict[float, str]]:
        """The ticks of the y axis where they are drawn, and their labels."""
        if not self._view.is_log:
            ticks = nice_ticks(low, high, most)
            return ticks, dict(zip(ticks, tick_labels(ticks), strict=True))
        values = log_ticks(10**low, 10**high, most)
        return [math.log10(value) for value in values], {math.log10(value): short_number(value) for value in values}

    @property
    def _legend(self) -> Legend:
        return Legend(
            self._glyphs, self._form, self._axis, self._readings, self._style("axis"), self._color_style
        )  # fmt: skip

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"loss-chart--{name}")

    def _color_style(self, index: int) -> Style:
        return self._style(f"curve-{index % 6}")

    def _body(
        self, rows: list[Row], frame: Frame, labels: dict[float, str], margin: int, curves: Sequence[Style]
    ) -> list[Strip]:
        """The y axis with its labels, and the rows of the plot."""
        marks = {frame.row(tick): label for tick, label in labels.items()}
        bar, cross = ("│", "┤") if self._glyphs.is_unicode else ("|", "+")
        axis = self._style("axis")
        owners = {owner for row in rows for _, owner in row.values()}
        styles = {
            owner: axis if owner == CURSOR else self._style("cloud") if owner >= CLOUD else curves[owner]
            for owner in owners
        }
        lines = []
        for y, row in enumerate(rows):
            label = f"{marks.get(y, ''):>{margin - 1}} {cross if y in marks else bar}"
            lines.append(strip_of([(label, axis), *_pieces_of(row, styles)]))
        return lines

    def _steps(self, frame: Frame, margin: int) -> Strip:
        """The labels of the x axis."""
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


def _pieces_of(row: Row, styles: dict[int, Style]) -> list[Piece]:
    """Return the cells of a row, neighbors of one owner as one piece: changes of style cost more bytes than text."""
    pieces: list[Piece] = []
    text, style, last_owner, after = "", UNSTYLED, -1, 0
    for x in sorted(row):
        character, owner = row[x]
        if owner != last_owner or x != after:
            pieces += [(text, style), (" " * (x - after), UNSTYLED)]
            text, style, last_owner = "", styles[owner], owner
        text += character
        after = x + 1
    return [*pieces, (text, style)]
