"""Bootstrap confidence intervals of evaluation metrics, by resampling records.

Records are drawn with replacement, as many as there are, and the metric is computed again; the middle 95 % of many such
draws are its interval (the percentile method, Efron & Tibshirani 1993, §13.3). All models are evaluated on the same
draws, so that their differences are paired.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.evaluation.result import Interval

DRAWS = 2000
LEVEL = 0.95

# Array elements gathered at a time, to limit memory.
_CHUNK_ELEMENTS = 4_000_000


def resampled_sums(columns: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """Sum each column over records drawn with replacement, many times.

    Args:
        columns: ``(records, k)``: k values per record.
        seed: of the draws.

    Returns:
        ``(draws, k)`` in float64.
    """
    values = np.asarray(columns, dtype=np.float64)
    records, width = values.shape
    generator = np.random.default_rng(seed)
    sums = np.empty((draws, width))
    step = max(_CHUNK_ELEMENTS // max(records * width, 1), 1)
    for start in range(0, draws, step):
        end = min(start + step, draws)
        drawn = generator.integers(0, records, size=(end - start, records))
        sums[start:end] = values[drawn].sum(axis=1)
    return sums


def interval(value: float, draws: ArrayLike, level: float = LEVEL) -> Interval:
    """A metric with the middle ``level`` of its resampled values as interval; without bounds if one is not finite."""
    resampled = np.asarray(draws, dtype=np.float64)
    if not (np.isfinite(value) and np.isfinite(resampled).all()):
        return Interval(value=value)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))
