"""A chart of the loss of one or several runs over their steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import is_

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from screens.charts.plot import BRAILLE, CLOUD, LEVELS, Frame, Row, draw
from screens.charts.scale import nice_ticks, short_number, steps_shown, tick_labels
from screens.widgets.glyphs import GLYPHS, Glyphs
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from screens.widgets.plain import plain
from workbench.runs.series import Series


@dataclass(frozen=True)
class Curve:
    """One line of the chart. With ``marked`` each point is marked and the line is faint.

    Attributes:
        label: its name in the legend; empty to leave it out there.
        letter: distinguishes it without colour: it is drawn on the line, or as the mark.
        colour: the number of its colour; by default its position among the curves.
    """

    label: str
    series: Series
    marked: bool = False
    letter: str = ""
    colour: int | None = None


class LossChart(LinePaintedWidget):
    """Curves on common axes, in braille, with a legend; plain ASCII where the terminal is not UTF-8.

    Points that share a column are drawn as their mean, with a faint cloud from minimum to maximum.
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
        self._ascii = not glyphs.eighths
        self._curves: Sequence[Curve] = ()
        self._drawn: list[Series] = []
        self._end = 0.0
        self._nothing = ""

    def show(self, curves: Iterable[Curve], *, end: float = 0, nothing: str = "") -> None:
        """Draw these curves. Call this again when their series have grown.

        Args:
            curves: those without points are left out of chart and legend.
            end: the last step of the run; 0 if unknown.
            nothing: the text shown while no curve has points.
        """
        self._curves = tuple(curves)
        self._end = end
        self._nothing = nothing
        wanted = [curve.series for curve in self._curves if curve.series]
        if len(wanted) == len(self._drawn) and all(map(is_, wanted, self._drawn)):
            self.changed()
        else:
            self._drawn = wanted
            self.replaced()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        curves = [curve for curve in self._curves if curve.series]
        if not curves:
            lines = [Strip.blank(width)] * (height // 2)
            return [*lines, strip_of([(plain(self._nothing).center(width), self._style("axis"))])]
        lows, highs = zip(*(curve.series.mean_range for curve in curves), strict=True)
        ticks = nice_ticks(min(lows), max(highs), max(3, (height - 2) // 3))
        labels = dict(zip(ticks, tick_labels(ticks), strict=True))
        margin = max(map(len, labels.values())) + 1
        last = max(curve.series.last[0] for curve in curves if curve.series.last)
        legend = self._legend(curves, width)
        frame = Frame(
            0,
            steps_shown(last, self._end),
            ticks[0],
            ticks[-1],
            max(4, width - margin - 1),
            max(1, height - len(legend) - 1),
        )
        drawn = draw(
            [(curve.series, (curve.letter or self._mark) if curve.marked else "") for curve in curves],
            frame,
            LEVELS if self._ascii else BRAILLE,
            ["" if curve.marked else curve.letter for curve in curves],
        )
        styles = [
            self._curve_style(index if curve.colour is None else curve.colour) for index, curve in enumerate(curves)
        ]
        return [*legend, *self._body(drawn, frame, labels, margin, styles), self._steps(frame, margin)]

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
            value = f" {curve.series.last[1]:.4g}" if curve.series.last else ""
            entry = [
                (f"{sign} ", self._curve_style(index if curve.colour is None else curve.colour)),
                (f"{plain(curve.label)}{value}{stride}", self._style("axis")),
            ]
            if lines[-1] and _cells([*lines[-1], *entry]) + 3 > width:
                lines.append([])
            lines[-1] += [("   ", UNSTYLED), *entry] if lines[-1] else entry
        return [strip_of([(" " * max(0, width - _cells(line)), UNSTYLED), *line]) for line in lines]

    def _body(
        self, drawn: list[Row], frame: Frame, labels: dict[float, str], margin: int, curves: Sequence[Style]
    ) -> list[Strip]:
        marks = {frame.row(tick): label for tick, label in labels.items()}
        bar, cross = ("|", "+") if self._ascii else ("│", "┤")
        axis = self._style("axis")
        owners = {owner for row in drawn for _, owner in row.values()}
        styles = {owner: self._style("cloud") if owner >= CLOUD else curves[owner] for owner in owners}
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
            label = short_number(tick)
            at = margin + 1 + frame.column(tick)
            start = max(margin + 1, min(at - len(label) // 2, len(text) - len(label)))
            if tick <= frame.x_high and not "".join(text[max(0, start - 2) : start + len(label) + 1]).strip():
                text[start : start + len(label)] = label
        return strip_of([("".join(text), self._style("axis"))])


def _cells(pieces: Iterable[Piece]) -> int:
    return sum(cell_len(text) for text, _ in pieces)


def _run(row: Row, styles: dict[int, Style]) -> list[Piece]:
    """Return the cells of a row, neighbours of one owner as one piece: changes of style cost more bytes than text."""
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
