"""The chart of one run: its loss, or another quantity that its journal holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screens.charts.legend import Curve, Reading
from screens.charts.loss_chart import LossChart
from screens.charts.scale import short_number
from workbench.runs.curves.quantities import QUANTITIES
from workbench.units import loss_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.runs.chart_curves import ChartCurves

LOSS = "loss"


class RunChart(LossChart):
    """Shows one quantity of a run at a time; at the cursor also the values of the others."""

    quantity = LOSS
    """The title of the quantity that is shown."""

    _run: ChartCurves | None = None
    _options: tuple[float, str] = (0.0, "")

    def show_run(self, curves: ChartCurves, *, end: float, placeholder: str) -> None:
        """Draw a run. Call this again when its curves have grown.

        Args:
            end: the last step of the run; 0 if unknown.
            placeholder: the text shown while there are no points.
        """
        self._run, self._options = curves, (end, placeholder)
        if self.quantity not in titles([curves]):
            self.quantity = LOSS
        readings = [
            Reading(quantity.label, curves.others[quantity.title])
            for quantity in QUANTITIES
            if quantity.title in curves.others and quantity.title != self.quantity
        ]
        if self.quantity == LOSS:
            shown = [Curve("train", curves.train), Curve("eval", curves.held_out, marked=True)]
        else:
            shown = [Curve(self.quantity, curves.others[self.quantity])]
            readings = [Reading("train", curves.train), *readings]
        form = loss_text if self.quantity == LOSS else short_number
        self.show(shown, end=end, placeholder=placeholder, readings=readings, form=form)

    def act(self, action: str) -> None:
        if action not in ("next", "previous"):
            super().act(action)
        elif self._run is not None:
            self.quantity = neighbor(titles([self._run]), self.quantity, action)
            end, placeholder = self._options
            self.show_run(self._run, end=end, placeholder=placeholder)


def titles(runs: Iterable[ChartCurves]) -> list[str]:
    """The loss and the quantities that any of these runs has."""
    found = {title for run in runs for title in run.others}
    return [LOSS, *(quantity.title for quantity in QUANTITIES if quantity.title in found)]


def neighbor(known: list[str], shown: str, action: str) -> str:
    """The title after the one that is shown, or before it; the list is a ring."""
    at = known.index(shown) if shown in known else 0
    return known[(at + (1 if action == "next" else -1)) % len(known)]
