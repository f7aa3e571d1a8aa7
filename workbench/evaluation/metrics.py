"""Computes each model's metrics from its per-record results, with bootstrap intervals and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.evaluation.bootstrap import interval, resampled_sums
from workbench.evaluation.overlap import contains, is_exact, rouge_l
from workbench.evaluation.result import BASE, AnsweredPrompt, Interval, ModelMetrics

_SCORES = ("exact", "contains", "rouge_l")
# exp overflows above this.
_MAX_LOSS = 700.0


@dataclass(frozen=True)
class Tally:
    """One model's results on each record: summed loss in nats, and correctly predicted tokens."""

    loss: Sequence[float]
    correct: Sequence[int]


@dataclass(frozen=True)
class _Metric:
    """A metric of one model: over all records, and over each resampled set of them ``(draws,)``."""

    value: float
    drawn: NDArray[np.float64]


def compute_metrics(
    tokens: Sequence[int], tallies: Mapping[str, Tally], answered: Sequence[AnsweredPrompt], *, draws: int, seed: int
) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    """Compute the metrics of each model, and base − model for each except the base.

    Args:
        tokens: labeled tokens of each record. tallies: by model name; one is :data:`BASE`.
        answered: replies of all models; those with a reference are scored.
    """
    by_model = _likelihoods(tokens, tallies, draws, seed)
    for name, scores in _scores(list(tallies), [one for one in answered if one.reference], draws, seed).items():
        by_model[name] |= scores
    figures = {name: _with_intervals(metrics) for name, metrics in by_model.items()}
    base = by_model[BASE]
    minus = {name: _with_intervals(_difference(base, tuned)) for name, tuned in by_model.items() if name != BASE}
    return figures, minus


def _likelihoods(
    tokens: Sequence[int], tallies: Mapping[str, Tally], draws: int, seed: int
) -> dict[str, dict[str, _Metric]]:
    columns = [tokens, *(column for tally in tallies.values() for column in (tally.loss, tally.correct))]
    matrix = np.array(columns, dtype=np.float64).T
    totals, drawn = matrix.sum(axis=0), resampled_sums(matrix, draws=draws, seed=seed)
    by_model = {}
    for number, name in enumerate(tallies):
        loss, correct = 1 + 2 * number, 2 + 2 * number
        mean, means = totals[loss] / totals[0], drawn[:, loss] / drawn[:, 0]
        by_model[name] = {
            "loss": _Metric(float(mean), means),
            "perplexity": _Metric(perplexity(float(mean)), np.exp(np.minimum(means, _MAX_LOSS))),
            "token_accuracy": _Metric(float(totals[correct] / totals[0]), drawn[:, correct] / drawn[:, 0]),
        }
    return by_model


def _scores(
    names: Sequence[str], answered: Sequence[AnsweredPrompt], draws: int, seed: int
) -> dict[str, dict[str, _Metric]]:
    if not answered:
        return {}
    rows = [[score for name in names for score in _pair_scores(one.replies[name], one.reference)] for one in answered]
    matrix = np.array(rows, dtype=np.float64)
    means, drawn = matrix.mean(axis=0), resampled_sums(matrix, draws=draws, seed=seed) / len(matrix)
    return {
        name: {
            score: _Metric(float(means[column]), drawn[:, column])
            for column, score in enumerate(_SCORES, start=len(_SCORES) * number)
        }
        for number, name in enumerate(names)
    }


def _pair_scores(reply: str, reference: str | None) -> tuple[float, float, float]:
    expected = reference or ""
    return float(is_exact(reply, expected)), float(contains(reply, expected)), rouge_l(reply, expected)


def _difference(base: Mapping[str, _Metric], tuned: Mapping[str, _Metric]) -> dict[str, _Metric]:
    return {
        name: _Metric(base[name].value - metric.value, base[name].drawn - metric.drawn)
        for name, metric in tuned.items()
    }


def _with_intervals(metrics: Mapping[str, _Metric]) -> ModelMetrics:
    intervals: dict[str, Interval] = {name: interval(metric.value, metric.drawn) for name, metric in metrics.items()}
    return ModelMetrics(**intervals)


def perplexity(loss: float) -> float:
    """exp(loss); infinity if that overflows."""
    return math.exp(loss) if loss < _MAX_LOSS else math.inf
