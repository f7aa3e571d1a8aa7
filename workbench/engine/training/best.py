"""Which evaluation was the best so far, and whether it is time to stop."""

import math
from dataclasses import dataclass


@dataclass
class BestSoFar:
    """Follows the held-out loss of a run.

    Args:
        patience: evaluations in a row without a better one after which the run is over; 0 never ends it.
        min_delta: an evaluation is better when its loss is lower than the best by more than this.
    """

    patience: int
    min_delta: float
    loss: float = math.inf
    step: int = 0
    misses: int = 0

    def add(self, step: int, loss: float) -> bool:
        """Take an evaluation; returns whether it is the best so far."""
        if not loss < self.loss - self.min_delta:
            self.misses += 1
            return False
        self.loss, self.step, self.misses = loss, step, 0
        return True

    @property
    def is_over(self) -> bool:
        return 0 < self.patience <= self.misses
