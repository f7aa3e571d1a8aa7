"""The curves of a run for charts: its loss and what else its journal tells of each step, in little memory."""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING

from workbench.runs.curves.quantities import QUANTITIES
from workbench.runs.curves.series import Series
from workbench.runs.replay import finite

if TYPE_CHECKING:
    from workbench.runs.events import Eval, Step

# Steps are put into the curves that many at a time: faster than one by one.
_STEPS_AT_ONCE = 1024


class ChartCurves:
    """The curves of a run, downsampled for charts so that they take little memory.

    Attributes:
        held_out: held-out loss by step.
    """

    def __init__(self) -> None:
        self.held_out = Series()
        self._train, self._tokens, self._seconds = Series(), Series(), Series()
        self._others: dict[str, Series] = {}
        # Steps that are not in the curves yet.
        self._new: list[Step] = []
        self._last_step = -1
        self._steps_per_point = 0

    def add(self, step: Step) -> None:
        """Add a point."""
        if step.step <= self._last_step:
            # The run was resumed in a part of the journal that was skipped.
            self.cut(step.step - 1)
        self._last_step = step.step
        self._new.append(step)
        if len(self._new) >= _STEPS_AT_ONCE:
            self._add_new()

    def add_evaluation(self, event: Eval) -> None:
        """Add a held-out loss."""
        self.held_out.add(event.step, finite(event.loss))

    def cut(self, step: int) -> None:
        """Remove the points after this step."""
        self._add_new()
        for series in (self._train, self.held_out, self._tokens, self._seconds, *self._others.values()):
            series.cut(step)
        self._last_step = min(self._last_step, step)

    def skip_points(self, steps_per_point: int) -> None:
        """Assume that points are left out from now on, and that each has taken as long as the next one that is there.

        Args:
            steps_per_point: the steps between two points, had none been left out.
        """
        self._add_new()
        self._steps_per_point = steps_per_point

    @property
    def train(self) -> Series:
        """Loss by step."""
        self._add_new()
        return self._train

    @property
    def tokens(self) -> Series:
        """Tokens processed up to a step."""
        self._add_new()
        return self._tokens

    @property
    def seconds(self) -> Series:
        """Seconds of training up to a step."""
        self._add_new()
        return self._seconds

    @property
    def others(self) -> dict[str, Series]:
        """By title of :data:`workbench.runs.curves.quantities.QUANTITIES`, those that the journal holds."""
        self._add_new()
        return self._others

    def _add_new(self) -> None:
        """Add the steps that were collected to the curves."""
        if not self._new:
            return
        steps, self._new = self._new, []
        at = [step.step for step in steps]
        self._train.extend(at, [finite(step.loss) for step in steps])
        self._tokens.extend(at, [step.tokens for step in steps])
        self._seconds.extend(at, self._seconds_up_to(steps))
        for quantity in QUANTITIES:
            values = [value if isinstance(value, int | float) else nan for value in map(quantity.of, steps)]
            if quantity.title in self._others or not all(map(isnan, values)):
                self._others.setdefault(quantity.title, Series()).extend(at, values)

    def _seconds_up_to(self, steps: list[Step]) -> list[float]:
        """Seconds of training up to each step."""
        last_step, seconds = self._seconds.last or (0.0, 0.0)
        up_to = []
        for step in steps:
            points = (step.step - last_step) / self._steps_per_point if self._steps_per_point else 1
            last_step, seconds = step.step, seconds + points * step.seconds
            up_to.append(seconds)
        return up_to
