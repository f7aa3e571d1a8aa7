"""Compares models on the same items: intervals, paired differences, and McNemar's test."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from workbench.evaluation.bootstrap import interval, resampled_sums
from workbench.evaluation.result import BASE, Interval
from workbench.evaluation.task_result import Flips


def paired_means(
    values: Mapping[str, Sequence[float]], *, draws: int, seed: int
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """The mean of each model over items, and base − model of each but the base, with intervals of the same draws.

    Args:
        values: by model, one value per item in the same order; one model is :data:`~workbench.evaluation.result.BASE`.
    """
    columns = np.array(list(values.values()), dtype=np.float64).T
    means, drawn = columns.mean(axis=0), resampled_sums(columns, draws=draws, seed=seed) / len(columns)
    place = {name: column for column, name in enumerate(values)}
    base = place[BASE]
    own = {name: interval(float(means[at]), drawn[:, at]) for name, at in place.items()}
    minus = {
        name: interval(float(means[base] - means[at]), drawn[:, base] - drawn[:, at])
        for name, at in place.items()
        if at != base
    }
    return own, minus


def flips(base: Sequence[float], model: Sequence[float]) -> Flips | None:
    """Items that only one of two models has right; None if some value is neither 0 nor 1."""
    if not set(base) | set(model) <= {0, 1}:
        return None
    gained = sum(after > before for before, after in zip(base, model, strict=True))
    lost = sum(after < before for before, after in zip(base, model, strict=True))
    return Flips(gained=gained, lost=lost, p=mcnemar(gained, lost))


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p-value of McNemar's exact test (McNemar 1947): of a fair coin over the items that differ."""
    differ, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(differ, count) for count in range(fewer + 1))
    return min(1.0, float(Fraction(2 * tail, 2**differ)))
