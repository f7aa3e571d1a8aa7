"""How far a figure would move on other records of the same kind: the bootstrap over records.

Records are drawn with replacement, as many as there are, and the figure is computed again; the middle 95 % of many such
draws are its interval (the percentile method, Efron & Tibshirani 1993, §13.3). All that is compared is drawn together,
so that the difference of two models is a paired one.
"""

from typing import Any

import numpy as np

from workbench.evaluation.result import Interval

DRAWS = 2000
LEVEL = 0.95

# Numbers gathered at a time.
_AT_ONCE = 4_000_000


def resampled_sums(columns: Any, *, draws: int = DRAWS, seed: int = 0) -> Any:
    """Sums over records drawn with replacement.

    Args:
        columns: ``(records, k)``: what is summed of each record.
        seed: the same one draws the same records.

    Returns:
        ``(draws, k)`` in float64.
    """
    columns = np.asarray(columns, dtype=np.float64)
    records, width = columns.shape
    generator = np.random.default_rng(seed)
    sums = np.empty((draws, width))
    step = max(_AT_ONCE // max(records * width, 1), 1)
    for start in range(0, draws, step):
        end = min(start + step, draws)
        drawn = generator.integers(0, records, size=(end - start, records))
        sums[start:end] = columns[drawn].sum(axis=1)
    return sums


def interval(value: float, drawn: Any, level: float = LEVEL) -> Interval:
    """A figure with the interval that holds the middle ``level`` of what was drawn; none where that has no number."""
    drawn = np.asarray(drawn, dtype=np.float64)
    if not (np.isfinite(value) and np.isfinite(drawn).all()):
        return Interval(value=value)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))
