"""The chart of a run; on a large terminal with three more quantities beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Grid

from screens.charts.run_chart import RunChart

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from workbench.runs.chart_curves import ChartCurves

_BESIDE = ("learning rate", "grad norm", "tokens per second")


class FixedChart(RunChart):
    """Shows one quantity of a run and no other."""

    def __init__(self, quantity: str) -> None:
        super().__init__()
        self.border_title = f"{quantity} over steps"
        self.quantity = self._fixed = quantity

    def show_run(self, curves: ChartCurves, *, end: float, placeholder: str) -> None:
        if self._fixed in curves.others:
            self.quantity = self._fixed
            super().show_run(curves, end=end, placeholder=placeholder)
        else:
            self.show((), placeholder=placeholder or f"No {self._fixed} was logged.")


class ChartGrid(Grid):
    """A chart whose quantity can be changed, and with the class ``-roomy`` three others.

    Attributes:
        main: the chart whose quantity can be changed.
    """

    DEFAULT_CSS = """
    ChartGrid { height: 1fr; grid-size: 1; }
    ChartGrid.-roomy { grid-size: 2 2; }
    ChartGrid FixedChart { display: none; }
    ChartGrid.-roomy FixedChart { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.main = RunChart()
        self._beside = [FixedChart(quantity) for quantity in _BESIDE]

    def compose(self) -> ComposeResult:
        yield self.main
        yield from self._beside

    def show_run(self, curves: ChartCurves, *, end: float, placeholder: str) -> None:
        """Draw a run. Call this again when its curves have grown."""
        self.main.show_run(curves, end=end, placeholder=placeholder)
        if self.has_class("-roomy"):
            for chart in self._beside:
                chart.show_run(curves, end=end, placeholder=placeholder)

    def act(self, action: str) -> None:
        """Change the view of all charts, or the quantity of the first one."""
        self.main.act(action)
        if action not in ("next", "previous") and self.has_class("-roomy"):
            for chart in self._beside:
                chart.act(action)
