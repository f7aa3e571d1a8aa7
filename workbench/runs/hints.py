"""What the course of a loss hints at: that it diverges, or that it does not fall. A hint never stops a run."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

EARLY = 10
"""The first losses, whose mean is the level that a run began at."""

RECENT = 20
"""The last losses, whose mean is the level that it is at."""

FAIR = 60
"""Steps at a learning rate worth the name, after which a loss that learns anything has begun to fall."""

_WELL_ABOVE = 1.3
_FALLEN = 0.02
_NOTHING_LEFT = 0.1
_WARMER = 1.25
_USUAL_LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Hint:
    """What may be wrong with a run that goes on, and what to try."""

    kind: Literal["diverging", "flat", "data", "padding"]
    message: str
    cure: str


def hint_on(early: Sequence[float], recent: Sequence[float], learning_rate: float, idle_steps: int) -> Hint | None:
    """What the losses of single steps hint at, if anything.

    Two means differ where they are two standard errors apart; what may be noise is no hint.

    Args:
        early: the first :data:`EARLY` losses of the run.
        recent: the last :data:`RECENT` ones.
        learning_rate: the present one.
        idle_steps: how many steps were made at a learning rate worth the name without the loss having fallen.
    """
    if len(early) < EARLY or len(recent) < RECENT:
        return None
    before, now = fmean(early), fmean(recent)
    error = _error_of_difference(early, recent)
    levels = f"{now:.3g} over the last {len(recent)} steps, {before:.3g} over the first {len(early)}"
    if now > _WELL_ABOVE * before and now - before > 2 * error and now > _NOTHING_LEFT:
        return Hint(
            "diverging",
            f"The loss rises: {levels}.",
            f"Lower learning_rate (now {learning_rate:.2g}; try a third), warm up longer "
            "(warmup_ratio), or set max_grad_norm to 0.3–1.",
        )
    is_flat = before - now < _FALLEN * before and before - now < 2 * error
    if is_flat and idle_steps >= FAIR and before > _NOTHING_LEFT:
        usual = f"Raise learning_rate (now {learning_rate:.2g}; {_USUAL_LEARNING_RATE:.0e} is usual for LoRA)"
        other = f"Try another learning_rate (now {learning_rate:.2g})"
        return Hint(
            "flat",
            f"The loss does not fall: {levels}.",
            f"{usual if learning_rate < _USUAL_LEARNING_RATE else other}, check the training text and "
            "the template on the Data screen, or choose more target_modules.",
        )
    return None


def _error_of_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Standard error of the difference of two means."""
    return math.hypot(*(stdev(losses) / math.sqrt(len(losses)) for losses in (one, other)))


class LossWatch:
    """Takes a run's losses one by one and gives each kind of hint once.

    It holds :data:`EARLY` + :data:`RECENT` numbers, however long the run is.
    """

    def __init__(self) -> None:
        self._early: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._rate = 0.0
        self._idle_steps = 0
        self._has_fallen = False
        self._told: set[str] = set()

    def see(self, loss: float, learning_rate: float) -> Hint | None:
        """Take one step's loss and learning rate into account.

        Returns:
            A hint, the first time that there is one of its kind. A loss that is no number is left out: the engine deals
            with it.
        """
        if not math.isfinite(loss):
            return None
        if len(self._early) < EARLY:
            self._early.append(loss)
        else:
            self._recent.append(loss)
        self._count_idle(learning_rate)
        hint = hint_on(self._early, self._recent, learning_rate, self._idle_steps)
        if hint is None or hint.kind in self._told:
            return None
        self._told.add(hint.kind)
        return hint

    def _count_idle(self, learning_rate: float) -> None:
        if learning_rate > _WARMER * self._rate:  # warming up: what came before could teach little
            self._rate, self._idle_steps = learning_rate, 0
        if len(self._recent) == RECENT:
            fall = fmean(self._early) - fmean(self._recent)
            self._has_fallen |= fall > 4 * _error_of_difference(self._early, self._recent)
        self._idle_steps = 0 if self._has_fallen else self._idle_steps + (learning_rate >= self._rate / 2)
