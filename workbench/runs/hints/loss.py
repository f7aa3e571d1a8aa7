"""Watches a run's loss and gives hints when it diverges or does not fall. A hint never stops the run."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

EARLY = 10
"""How many of the first losses are averaged as the run's starting level."""

RECENT = 20
"""How many of the last losses are averaged as the run's present level."""

PATIENCE = 60
"""Steps at a non-negligible learning rate after which the loss of a run that learns has begun to fall."""

_DIVERGING_RATIO = 1.3
_FLAT_SHARE = 0.02
_LOW_LOSS = 0.1
_WARM_UP_RATIO = 1.25
_USUAL_LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Hint:
    """A possible problem of a running run, and what to try."""

    kind: Literal["diverging", "flat", "data", "padding"]
    message: str
    cure: str


def hint_on(early: Sequence[float], recent: Sequence[float], learning_rate: float, idle_steps: int) -> Hint | None:
    """Check the losses of single steps for divergence or a flat curve.

    Two means count as different if they are two standard errors apart, so that noise gives no hint.

    Args:
        early: the first :data:`EARLY` losses of the run.
        recent: the last :data:`RECENT` ones.
        learning_rate: of the last step.
        idle_steps: steps at a non-negligible learning rate during which the loss has not fallen.
    """
    if len(early) < EARLY or len(recent) < RECENT:
        return None
    start, now = fmean(early), fmean(recent)
    error = _error_of_difference(early, recent)
    levels = f"{now:.3g} over the last {len(recent)} steps, {start:.3g} over the first {len(early)}"
    if now > _DIVERGING_RATIO * start and now - start > 2 * error and now > _LOW_LOSS:
        return Hint(
            "diverging",
            f"The loss rises: {levels}.",
            f"Lower learning_rate (now {learning_rate:.2g}; try a third), warm up longer "
            "(warmup_ratio), or set max_grad_norm to 0.3–1.",
        )
    is_flat = start - now < _FLAT_SHARE * start and start - now < 2 * error
    if is_flat and idle_steps >= PATIENCE and start > _LOW_LOSS:
        raise_it = f"Raise learning_rate (now {learning_rate:.2g}; {_USUAL_LEARNING_RATE:.0e} is usual for LoRA)"
        change_it = f"Try another learning_rate (now {learning_rate:.2g})"
        return Hint(
            "flat",
            f"The loss does not fall: {levels}.",
            f"{raise_it if learning_rate < _USUAL_LEARNING_RATE else change_it}, check the training text and "
            "the template on the Data screen, or choose more target_modules.",
        )
    return None


def _error_of_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Standard error of the difference of two means."""
    return math.hypot(*(stdev(losses) / math.sqrt(len(losses)) for losses in (one, other)))


class LossWatch:
    """Follows the losses of a run and gives each kind of hint once.

    Stores :data:`EARLY` + :data:`RECENT` numbers, however long the run is.
    """

    def __init__(self) -> None:
        self._early: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._rate = 0.0
        self._idle_steps = 0
        self._has_fallen = False
        self._given: set[str] = set()

    def add(self, loss: float, learning_rate: float) -> Hint | None:
        """Add one step; a loss that is not finite is ignored, as the trainer handles it.

        Returns:
            A hint, if there is one of a kind that was not given before.
        """
        if not math.isfinite(loss):
            return None
        if len(self._early) < EARLY:
            self._early.append(loss)
        else:
            self._recent.append(loss)
        self._count_idle(learning_rate)
        hint = hint_on(self._early, self._recent, learning_rate, self._idle_steps)
        if hint is None or hint.kind in self._given:
            return None
        self._given.add(hint.kind)
        return hint

    def _count_idle(self, learning_rate: float) -> None:
        if learning_rate > _WARM_UP_RATIO * self._rate:  # warming up: the steps before could learn little
            self._rate, self._idle_steps = learning_rate, 0
        if len(self._recent) == RECENT:
            fall = fmean(self._early) - fmean(self._recent)
            self._has_fallen |= fall > 4 * _error_of_difference(self._early, self._recent)
        self._idle_steps = 0 if self._has_fallen else self._idle_steps + (learning_rate >= self._rate / 2)
