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
class Metric:
    """A metric of one model: over all records, and over each resampled set of them ``(draws,)``."""

    value: float
    drawn: NDArray[np.float64]


@dataclass(frozen=True)
class Rejected:
    """The rejected responses of pairs: labeled tokens of each, and by model its summed losses in nats."""

    tokens: Sequence[int]
    loss: Mapping[str, Sequence[float]]


def compute_metrics(
    tokens: Sequence[int],
    tallies: Mapping[str, Tally],
    answered: Sequence[AnsweredPrompt],
    *,
    draws: int,
    seed: int,
    rejected: Rejected | None = None,
) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    """Compute the metrics of each model, and base − model for each except the base.

    Args:
        tokens: labeled tokens of each record. tallies: by model name; one is :data:`BASE`.
        answered: replies of all models; those with a reference are scored.
        rejected: of pairs, what the chosen responses are compared with.
    """
    by_model = _likelihoods(tokens, tallies, draws, seed)
    if rejected is not None:
        for name, preferences in _preferences(tokens, tallies, rejected, draws, seed).items():
            by_model[name] |= preferences
    for name, scores in _scores(
        list(tallies), [prompt for prompt in answered if prompt.reference], draws, seed
    ).items():
        by_model[name] |= scores
    return figures_and_differences(by_model, BASE)


def figures_and_differences(
    by_model: Mapping[str, Mapping[str, Metric]], baseline: str
) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    """The metrics of each model with intervals, and the baseline − model for each other one."""
    figures = {name: _with_intervals(metrics) for name, metrics in by_model.items()}
    base = by_model[baseline]
    minus = {name: _with_intervals(_difference(base, tuned)) for name, tuned in by_model.items() if name != baseline}
    return figures, minus


def preference_metrics(
    margins: Mapping[str, NDArray[np.float64]], draws: int, seed: int
) -> dict[str, dict[str, Metric]]:
    """How often, and by how much, each model prefers the chosen response. ``margins``: by model, of each pair."""
    columns = [column for margin in margins.values() for column in ((margin > 0).astype(np.float64), margin)]
    matrix = np.array(columns).T
    means, drawn = matrix.mean(axis=0), resampled_sums(matrix, draws=draws, seed=seed) / len(matrix)
    return {
        name: {
            "preference_accuracy": Metric(float(means[2 * number]), drawn[:, 2 * number]),
            "preference_margin": Metric(float(means[2 * number + 1]), drawn[:, 2 * number + 1]),
        }
        for number, name in enumerate(margins)
    }


def _likelihoods(
    tokens: Sequence[int], tallies: Mapping[str, Tally], draws: int, seed: int
) -> dict[str, dict[str, Metric]]:
    columns = [tokens, *(column for tally in tallies.values() for column in (tally.loss, tally.correct))]
    matrix = np.array(columns, dtype=np.float64).T
    totals, drawn = matrix.sum(axis=0), resampled_sums(matrix, draws=draws, seed=seed)
    by_model = {}
    for number, name in enumerate(tallies):
        loss, correct = 1 + 2 * number, 2 + 2 * number
        mean, means = totals[loss] / totals[0], drawn[:, loss] / drawn[:, 0]
        by_model[name] = {
            "loss": Metric(float(mean), means),
            "perplexity": Metric(perplexity(float(mean)), np.exp(np.minimum(means, _MAX_LOSS))),
            "token_accuracy": Metric(float(totals[correct] / totals[0]), drawn[:, correct] / drawn[:, 0]),
        }
    return by_model


def _preferences(
    tokens: Sequence[int], tallies: Mapping[str, Tally], rejected: Rejected, draws: int, seed: int
) -> dict[str, dict[str, Metric]]:
    """How often, and by how much, each model finds the chosen response likelier per token."""
    chosen_tokens, rejected_tokens = (np.array(counts, dtype=np.float64) for counts in (tokens, rejected.tokens))
    margins = {
        name: np.array(rejected.loss[name]) / rejected_tokens - np.array(tally.loss) / chosen_tokens
        for name, tally in tallies.items()
    }
    return preference_metrics(margins, draws, seed)


def _scores(
    names: Sequence[str], answered: Sequence[AnsweredPrompt], draws: int, seed: int
) -> dict[str, dict[str, Metric]]:
    if not answered:
        return {}
    rows = [
        [score for name in names for score in _reply_scores(prompt.replies[name], prompt.reference)]
        for prompt in answered
    ]
    matrix = np.array(rows, dtype=np.float64)
    means, drawn = matrix.mean(axis=0), resampled_sums(matrix, draws=draws, seed=seed) / len(matrix)
    return {
        name: {
            score: Metric(float(means[column]), drawn[:, column])
            for column, score in enumerate(_SCORES, start=len(_SCORES) * number)
        }
        for number, name in enumerate(names)
    }


def _reply_scores(reply: str, reference: str | None) -> tuple[float, float, float]:
    expected = reference or ""
    return float(is_exact(reply, expected)), float(contains(reply, expected)), rouge_l(reply, expected)


def _difference(base: Mapping[str, Metric], tuned: Mapping[str, Metric]) -> dict[str, Metric]:
    return {
        name: Metric(base[name].value - metric.value, base[name].drawn - metric.drawn) for name, metric in tuned.items()
    }


def _with_intervals(metrics: Mapping[str, Metric]) -> ModelMetrics:
    intervals: dict[str, Interval] = {name: interval(metric.value, metric.drawn) for name, metric in metrics.items()}
    return ModelMetrics(**intervals)


def perplexity(loss: float) -> float:
    """exp(loss); infinity if that overflows."""
    return math.exp(loss) if loss < _MAX_LOSS else math.inf
