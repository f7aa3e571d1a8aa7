"""The metrics of adapters with a head of their own, with bootstrap intervals and differences from a baseline."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.data.records.labeled import in_order
from workbench.evaluation.bootstrap import interval, resampled_sums
from workbench.evaluation.classification import label_counts, macro_f1
from workbench.evaluation.result import ModelMetrics

MAJORITY = "majority class"
"""The name of the baseline of classifiers: the most frequent label, whatever the text."""
CHANCE = "chance"
"""The name of the baseline of reward models: a coin."""

_Drawn = Mapping[str, tuple[float, NDArray[np.float64]]]
"""By metric its value, and its value of each draw; (draws,)."""


def label_metrics(
    actual: Sequence[str], predicted: Mapping[str, Sequence[str]], *, draws: int, seed: int
) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    """Accuracy and macro-F1 of each model, and the baseline − model for each other one.

    Args:
        actual: the label of each record. predicted: by model; the first one is the baseline.
    """
    names = in_order({*actual, *(label for labels in predicted.values() for label in labels)})
    ids = {label: place for place, label in enumerate(names)}
    truth = [ids[label] for label in actual]
    guesses = [[ids[label] for label in labels] for labels in predicted.values()]
    # By record and model, what it adds to the counts of each label.
    columns = [
        np.concatenate([label_counts([right], [guess], len(names)).ravel() for guess in of_record])
        for right, *of_record in zip(truth, *guesses, strict=True)
    ]
    matrix = np.array(columns)
    shape = (len(predicted), 3, len(names))
    whole, drawn = matrix.sum(0).reshape(shape), resampled_sums(matrix, draws=draws, seed=seed).reshape(-1, *shape)
    by_model: dict[str, _Drawn] = {
        name: {
            "accuracy": (float(whole[place, 0].sum() / len(actual)), drawn[:, place, 0].sum(-1) / len(actual)),
            "macro_f1": (float(macro_f1(whole[place])), macro_f1(drawn[:, place])),
        }
        for place, name in enumerate(predicted)
    }
    return _figures(by_model)


def reward_metrics(
    margins: Mapping[str, Sequence[float]], *, draws: int, seed: int
) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    """How often each reward model scores the chosen response higher, and by how much; :data:`CHANCE` is the baseline.

    Args:
        margins: by model, of each pair the score of the chosen response minus that of the rejected one.
    """
    pairs = len(next(iter(margins.values())))
    columns = [column for values in margins.values() for column in (np.array(values) > 0, np.array(values))]
    matrix = np.array(columns, dtype=np.float64).T
    means, drawn = matrix.mean(0), resampled_sums(matrix, draws=draws, seed=seed) / pairs
    by_model: dict[str, _Drawn] = {
        CHANCE: {
            "preference_accuracy": (0.5, np.full(draws, 0.5)),
            "preference_margin": (0.0, np.zeros(draws)),
        }
    }
    for place, name in enumerate(margins):
        accuracy, margin = 2 * place, 2 * place + 1
        by_model[name] = {
            "preference_accuracy": (float(means[accuracy]), drawn[:, accuracy]),
            "preference_margin": (float(means[margin]), drawn[:, margin]),
        }
    return _figures(by_model)


def _figures(by_model: Mapping[str, _Drawn]) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    figures = {name: _with_intervals(metrics) for name, metrics in by_model.items()}
    first, *others = by_model
    minus = {
        name: _with_intervals(
            {
                metric: (by_model[first][metric][0] - value, by_model[first][metric][1] - drawn)
                for metric, (value, drawn) in by_model[name].items()
            }
        )
        for name in others
    }
    return figures, minus


def _with_intervals(metrics: _Drawn) -> ModelMetrics:
    return ModelMetrics(**{name: interval(value, drawn) for name, (value, drawn) in metrics.items()})
