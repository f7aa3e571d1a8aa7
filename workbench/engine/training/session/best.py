"""Tracks the best evaluation of a run, and decides on early stopping."""

import math
from dataclasses import dataclass


@dataclass
class BestSoFar:
    """The evaluation with the lowest held-out loss.

    Args:
        patience: stop after this many evaluations in a row without a better one; 0 never stops.
        min_delta: an evaluation is better if its loss is lower than the best by more than this.
        loss: loss of the best evaluation, at ``step``.
        misses: evaluations since then.
    """

    patience: int
    min_delta: float
    loss: float = math.inf
    step: int = 0
    misses: int = 0

    def add(self, step: int, loss: float) -> bool:
        """Add an evaluation; returns whether it is the best so far."""
        if not loss < self.loss - self.min_delta:
            self.misses += 1
            return False
        self.loss, self.step, self.misses = loss, step, 0
        return True

    @property
    def is_over(self) -> bool:
        """Whether the run should stop early."""
        return 0 < self.patience <= self.misses
