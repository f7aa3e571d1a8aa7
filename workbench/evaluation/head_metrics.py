"""The metrics of adapters with a head of their own, with bootstrap intervals and differences from a baseline."""

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.data.records.labeled import in_order
from workbench.evaluation.bootstrap import resampled_sums
from workbench.evaluation.classification import label_counts, macro_f1
from workbench.evaluation.metrics import Metric, figures_and_differences, preference_metrics
from workbench.evaluation.result import ModelMetrics

MAJORITY = "majority class"
"""The name of the baseline of classifiers: the most frequent label, whatever the text."""
CHANCE = "chance"
"""The name of the baseline of reward models: a coin."""


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
    by_model = {
        name: {
            "accuracy": Metric(float(whole[place, 0].sum() / len(actual)), drawn[:, place, 0].sum(-1) / len(actual)),
            "macro_f1": Metric(float(macro_f1(whole[place])), macro_f1(drawn[:, place])),
        }
        for place, name in enumerate(predicted)
    }
    return figures_and_differences(by_model, next(iter(predicted)))


def reward_metrics(
    margins: Mapping[str, Sequence[float]], *, draws: int, seed: int
) -> tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]:
    """How often each reward model scores the chosen response higher, and by how much; :data:`CHANCE` is the baseline.

    Args:
        margins: by model, of each pair the score of the chosen response minus that of the rejected one.
    """
    chance = {
        "preference_accuracy": Metric(0.5, np.full(draws, 0.5)),
        "preference_margin": Metric(0.0, np.zeros(draws)),
    }
    found = preference_metrics({name: np.array(values) for name, values in margins.items()}, draws, seed)
    return figures_and_differences({CHANCE: chance, **found}, CHANCE)
