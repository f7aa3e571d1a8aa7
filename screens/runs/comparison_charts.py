"""The charts of a comparison: one whose quantity can be changed, and on a large terminal three more beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.containers import Grid

from screens.charts.legend import Curve
from screens.charts.loss_chart import LossChart
from screens.charts.run_chart import LOSS
from screens.charts.scale import short_number
from screens.widgets.sizes import ROOMY_FROM
from workbench.runs.curves.series import Series
from workbench.runs.library.comparison import letters
from workbench.units import loss_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from textual import events
    from textual.app import ComposeResult

    from workbench.runs.live_run import LiveRun

Losses = Literal["train and held-out", "train", "held-out"]
Axis = Literal["step", "tokens", "time"]

_ROOMY_HEIGHT = 18
_BESIDE: tuple[tuple[str, Losses], ...] = ((LOSS, "held-out"), ("learning rate", "train"), ("grad norm", "train"))


@dataclass(frozen=True)
class Scale:
    """The x axis of all charts: what it shows, the size of its unit, and its name."""

    axis: Axis
    unit: float
    title: str


def scale_of(axis: Axis, runs: Sequence[LiveRun]) -> Scale:
    """Return an axis in the unit that suits these runs."""
    if axis == "step":
        return Scale(axis, 1, "steps")
    if axis == "tokens":
        return Scale(axis, 1, "tokens")
    longest = max((live.replay.curves.seconds.last[1] for live in runs if live.replay.curves.seconds.last), default=0.0)
    unit, name = (3600, "hours") if longest > 7200 else (60, "minutes") if longest > 120 else (1, "seconds")
    return Scale(axis, unit, f"training time ({name})")


class ComparisonCharts(Grid):
    """The curves of several runs; with the class ``-roomy`` held-out loss, learning rate and grad norm beside them."""

    DEFAULT_CSS = """
    ComparisonCharts { grid-size: 1; }
    ComparisonCharts.-roomy { grid-size: 2 2; grid-gutter: 0 1; }
    ComparisonCharts .beside { display: none; border: round $border; border-title-color: $text-muted; }
    ComparisonCharts.-roomy .beside { display: block; }
    ComparisonCharts.-roomy #main { border: round $border; border-title-color: $text-muted; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._main = LossChart(id="main")
        self._beside = [LossChart(classes="beside") for _ in _BESIDE]
        self._shown: tuple[Sequence[LiveRun], Sequence[str], Scale, str] | None = None

    def compose(self) -> ComposeResult:
        yield self._main
        yield from self._beside

    def on_resize(self, event: events.Resize) -> None:
        is_roomy = event.size.width >= ROOMY_FROM - 10 and event.size.height >= _ROOMY_HEIGHT
        if is_roomy != self.has_class("-roomy"):
            self.set_class(is_roomy, "-roomy")
            self._show_beside()

    def show(
        self, runs: Sequence[LiveRun], names: Sequence[str], scale: Scale, quantity: str, losses: Losses, empty: str
    ) -> None:
        """Draw the curves of these runs.

        Args:
            quantity: what the first chart shows: the loss, or the title of another quantity.
            losses: which losses it shows.
            empty: what it says without curves.
        """
        self._shown = runs, names, scale, empty
        self._main.border_title = title_of(quantity, losses)
        _draw(self._main, *self._shown, quantity, losses)
        self._show_beside()

    def _show_beside(self) -> None:
        if self._shown is not None and self.has_class("-roomy"):
            for chart, (quantity, losses) in zip(self._beside, _BESIDE, strict=True):
                chart.border_title = title_of(quantity, losses)
                _draw(chart, *self._shown, quantity, losses)

    def act(self, action: str) -> None:
        """Change the view of all charts."""
        for chart in (self._main, *self._beside):
            chart.act(action)


def title_of(quantity: str, losses: Losses) -> str:
    """``held-out loss``, or the title of another quantity."""
    return f"{losses} loss" if quantity == LOSS else quantity


def _draw(
    chart: LossChart,
    runs: Sequence[LiveRun],
    names: Sequence[str],
    scale: Scale,
    empty: str,
    quantity: str,
    losses: Losses,
) -> None:
    curves = list(_curves(runs, names, scale, quantity, losses))
    is_over = all(live.replay.is_over for live in runs)
    ends = [curve.series.last[0] for curve in curves if curve.series.last]
    chart.show(
        curves,
        end=max(ends, default=0.0) if is_over else 0.0,
        form=loss_text if quantity == LOSS else short_number,
        axis="step" if scale.axis == "step" else scale.title,
        placeholder=empty if quantity == LOSS else f"No run has logged its {quantity}.",
    )


def _curves(
    runs: Sequence[LiveRun], names: Sequence[str], scale: Scale, quantity: str, losses: Losses
) -> Iterator[Curve]:
    """Yield the curves, held-out losses last: they have few marks, which lines must not hide."""
    shown = losses if quantity == LOSS else "train"
    known = list(enumerate(zip(runs, names, letters(len(runs)), strict=True)))
    if shown != "held-out":
        for color, (live, name, letter) in known:
            yield Curve(name, _along(_series_of(live, quantity), live, scale), letter=letter, color=color)
    if shown != "train":
        for color, (live, name, letter) in known:
            label = name if shown == "held-out" else ""
            series = _along(live.replay.curves.held_out, live, scale)
            yield Curve(label, series, marked=True, letter=letter.lower(), color=color)


def _series_of(live: LiveRun, quantity: str) -> Series:
    curves = live.replay.curves
    return curves.train if quantity == LOSS else curves.others.get(quantity, Series())


def _along(series: Series, live: LiveRun, scale: Scale) -> Series:
    match scale.axis:
        case "tokens":
            return series.along(live.replay.curves.tokens, scale.unit)
        case "time":
            return series.along(live.replay.curves.seconds, scale.unit)
    return series
