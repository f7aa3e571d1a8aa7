"""From what each model did on each record to its figures, with intervals and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.evaluation.bootstrap import interval, resampled_sums
from workbench.evaluation.overlap import contains, is_exact, rouge_l
from workbench.evaluation.result import BASE, Answered, Figures, Interval

_SCORES = ("exact", "contains", "rouge_l")
_MOST = 700.0


@dataclass(frozen=True)
class Tally:
    """What one model did on each record: summed loss in nats, and tokens that were its first choice."""

    loss: Sequence[float]
    correct: Sequence[int]


@dataclass(frozen=True)
class _Measured:
    """A figure of one model: over all records, and over each draw of them ``(draws,)``."""

    value: float
    drawn: Any


def figures_of(
    tokens: Sequence[int], tallies: Mapping[str, Tally], answered: Sequence[Answered], *, draws: int, seed: int
) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """The figures of each model, and base − model for each but the base.

    Args:
        tokens: labelled tokens of each record. tallies: by name of the model; one is :data:`BASE`.
        answered: replies of all models; those with a reference are scored.
    """
    measured = _likelihoods(tokens, tallies, draws, seed)
    for name, scores in _scores(list(tallies), [one for one in answered if one.reference], draws, seed).items():
        measured[name] |= scores
    figures = {name: _as_figures(own) for name, own in measured.items()}
    minus = {name: _as_figures(_difference(measured[BASE], own)) for name, own in measured.items() if name != BASE}
    return figures, minus


def _likelihoods(
    tokens: Sequence[int], tallies: Mapping[str, Tally], draws: int, seed: int
) -> dict[str, dict[str, _Measured]]:
    columns = [tokens, *(column for tally in tallies.values() for column in (tally.loss, tally.correct))]
    matrix = np.array(columns, dtype=np.float64).T
    whole, drawn = matrix.sum(axis=0), resampled_sums(matrix, draws=draws, seed=seed)
    measured = {}
    for number, name in enumerate(tallies):
        loss, correct = 1 + 2 * number, 2 + 2 * number
        mean, means = whole[loss] / whole[0], drawn[:, loss] / drawn[:, 0]
        measured[name] = {
            "loss": _Measured(float(mean), means),
            "perplexity": _Measured(perplexity(float(mean)), np.exp(np.minimum(means, _MOST))),
            "token_accuracy": _Measured(float(whole[correct] / whole[0]), drawn[:, correct] / drawn[:, 0]),
        }
    return measured


def _scores(
    names: Sequence[str], answered: Sequence[Answered], draws: int, seed: int
) -> dict[str, dict[str, _Measured]]:
    if not answered:
        return {}
    rows = [[score for name in names for score in _pair_scores(one.replies[name], one.reference)] for one in answered]
    matrix = np.array(rows, dtype=np.float64)
    means, drawn = matrix.mean(axis=0), resampled_sums(matrix, draws=draws, seed=seed) / len(matrix)
    return {
        name: {
            score: _Measured(float(means[place]), drawn[:, place])
            for place, score in enumerate(_SCORES, start=len(_SCORES) * number)
        }
        for number, name in enumerate(names)
    }


def _pair_scores(reply: str, reference: str | None) -> tuple[float, float, float]:
    wanted = reference or ""
    return float(is_exact(reply, wanted)), float(contains(reply, wanted)), rouge_l(reply, wanted)


def _difference(base: Mapping[str, _Measured], own: Mapping[str, _Measured]) -> dict[str, _Measured]:
    return {
        name: _Measured(base[name].value - figure.value, base[name].drawn - figure.drawn)
        for name, figure in own.items()
    }


def _as_figures(measured: Mapping[str, _Measured]) -> Figures:
    made: dict[str, Interval] = {name: interval(figure.value, figure.drawn) for name, figure in measured.items()}
    return Figures(**made)


def perplexity(loss: float) -> float:
    """exp(loss); infinite where that overflows."""
    return math.exp(loss) if loss < _MOST else math.inf
