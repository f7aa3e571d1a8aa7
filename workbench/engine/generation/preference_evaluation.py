"""Evaluates held-out pairs of responses: the loss, and how often the model prefers the chosen one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.engine.generation.evaluation import Record, forward, in_batches
from workbench.engine.generation.shared_evaluation import SyncedCancel
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.models.tokenizers import pad_token_id
from workbench.progress import Progress
from workbench.recipe.sections.objective import ObjectiveSection

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from workbench.engine.objectives.pairs import PairCollator, Row

# Loss, both rewards, their difference, and whether the chosen one is higher.
_PairFigures = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class HeldOutPreference:
    """Means over held-out pairs.

    Attributes:
        loss: the run's preference loss.
        chosen, rejected: rewards, beta times the log-ratio to the reference; ``margin`` is their difference.
        accuracy: share of the pairs whose chosen response has the higher reward.
    """

    loss: float
    chosen: float
    rejected: float
    margin: float
    accuracy: float
    pairs: int


def held_out_preference(
    base: LoadedBase,
    records: "Dataset",
    objective: ObjectiveSection,
    batch_size: int,
    report: Callable[[Progress], None],
    controls: Controls,
    ranks: Ranks,
    *,
    path: LossPath,
) -> HeldOutPreference | None:
    """Evaluate the active adapter against the base, over all processes; None if the run should stop.

    Args:
        records: pairs as token ids and labels.
        batch_size: pairs per batch; batches that do not fit in memory are halved.
        path: how the log-probabilities are computed (:func:`~workbench.engine.model.loss_check.check.check_loss`).
    """
    cancelled = SyncedCancel(controls, ranks, len(records), batch_size)
    share = records.select(range(ranks.index, len(records), ranks.count))
    found = _evaluate(base, share, objective, batch_size, report, cancelled, path)
    if controls.is_stopped():
        return None
    figures = tuple(math.fsum(column) for column in zip(*found, strict=True)) if found else (0.0,) * 5
    *totals, pairs = ranks.sum((*figures, len(found)))
    if not pairs:
        return None
    loss, chosen, rejected, margin, accuracy = (total / pairs for total in totals)
    return HeldOutPreference(loss, chosen, rejected, margin, accuracy, int(pairs))


def _evaluate(
    base: LoadedBase,
    records: "Dataset",
    objective: ObjectiveSection,
    batch_size: int,
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    path: LossPath,
) -> list[_PairFigures]:
    from workbench.engine.objectives.pairs import PairCollator

    collate = PairCollator(path.collator(pad_token_id(base.tokenizer)))
    batches = [range(start, min(start + batch_size, len(records))) for start in range(0, len(records), batch_size)]

    def compute(part: list[Record]) -> list[_PairFigures]:
        return _figures_of(base, collate, objective, part)

    found = in_batches(base, path, records, batches, compute, report, cancelled)
    return [figures for batch in found for figures in batch]


def _figures_of(
    base: LoadedBase, collate: "PairCollator", objective: ObjectiveSection, rows: "Sequence[Row]"
) -> list[_PairFigures]:
    from workbench.engine.objectives.pairs import model_inputs, pairs_of, sums_by_text
    from workbench.engine.objectives.preference import PairScores

    batch = collate(rows)
    inputs = model_inputs(batch)

    def log_probs() -> "torch.Tensor":
        return sums_by_text(forward(base, inputs).log_probs, batch)

    assert base.peft is not None
    with base.peft.disable_adapter():
        before = log_probs()
    scores = PairScores.of(log_probs(), before, pairs_of(batch).trained)
    losses, figures = scores.losses(objective), scores.figures(objective.beta)
    return [
        (loss, chosen, rejected, margin, accurate)
        for loss, chosen, rejected, margin, accurate in zip(losses.tolist(), *figures.tolist(), strict=True)
    ]
