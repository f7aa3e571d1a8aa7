"""Accuracy and macro-F1 of predicted labels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def label_counts(actual: Sequence[int], predicted: Sequence[int], labels: int) -> NDArray[np.float64]:
    """By label: how often it was predicted rightly, predicted, and right; (3, labels)."""
    found = np.zeros((3, labels))
    for right, guess in zip(actual, predicted, strict=True):
        found[0, right] += right == guess
        found[1, guess] += 1
        found[2, right] += 1
    return found


def macro_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean F1 over the labels that are right or predicted for some record (scikit-learn's ``macro``).

    Args:
        counts: as :func:`label_counts`; (..., 3, labels).

    Returns:
        (...), 0 without records.
    """
    right, total = counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :]
    occurs = total > 0
    f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=occurs)
    mean: NDArray[np.float64] = f1.sum(-1) / np.maximum(occurs.sum(-1), 1)
    return mean
