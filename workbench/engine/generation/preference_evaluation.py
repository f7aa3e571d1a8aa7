"""Evaluates held-out pairs and unpaired responses: the loss, and how often the model prefers the right response."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.engine.generation.evaluation import Record, forward, in_batches
from workbench.engine.generation.label_evaluation import head_outputs
from workbench.engine.generation.shared_evaluation import SyncedCancel
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.models.tokenizers import pad_token_id
from workbench.objectives.kto import estimates_divergence
from workbench.progress import Report
from workbench.recipe.sections.objective import ObjectiveSection

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from workbench.engine.batches.parts import Batch
    from workbench.engine.objectives.reference import Reference
    from workbench.engine.objectives.scoring import Scored


@dataclass(frozen=True)
class HeldOutPreference:
    """Means over held-out records.

    Attributes:
        loss: the run's loss.
        figures: by the names of :func:`~workbench.engine.objectives.scoring.figure_names`.
        records: how many pairs or unpaired responses there were.
    """

    loss: float
    figures: dict[str, float]
    records: int


@dataclass(frozen=True)
class _Part:
    """One record's loss and figures, NaN where it has none; and its share of the likelihood of its batch."""

    loss: float
    figures: tuple[float, ...]
    likelihood: float
    tokens: float


class PreferenceEvaluator:
    """Evaluates the active adapter of a base against a reference, as a run's loss compares them.

    Args:
        max_length: exchanged responses are truncated at so many tokens.
        path: how the log-probabilities are computed (:func:`~workbench.engine.model.loss_check.check.check_loss`).
    """

    def __init__(
        self,
        base: LoadedBase,
        objective: ObjectiveSection,
        reference: "Reference",
        max_length: int,
        *,
        path: LossPath,
    ) -> None:
        from workbench.engine.objectives.pairs import PairCollator
        from workbench.engine.objectives.unpaired import UnpairedCollator

        self._base = base
        self._objective = objective
        self._reference = reference
        self._path = path
        texts = path.collator(pad_token_id(base.tokenizer))
        spec = objective.spec
        self._collate: PairCollator | UnpairedCollator
        if spec.records == "unpaired":
            self._collate = UnpairedCollator(texts, max_length if estimates_divergence(objective) else None)
        else:
            self._collate = PairCollator(texts, whole=objective.likelihood == "whole")

    def evaluate(
        self,
        records: "Dataset",
        batch_size: int,
        report: Report,
        controls: Controls,
        ranks: Ranks,
    ) -> HeldOutPreference | None:
        """Evaluate records over all processes; None if the run should stop.

        Args:
            batch_size: records per batch; batches that do not fit in memory are halved.
        """
        from workbench.engine.objectives.scoring import LIKELIHOOD, figure_names

        batch_size = max(batch_size, self._objective.least_micro_batch)
        cancelled = SyncedCancel(controls, ranks, len(records), batch_size)
        order = list(range(ranks.index, len(records), ranks.count))
        if self._objective.spec.records == "unpaired":
            # Both sides of a pair follow each other, but a response is exchanged with that to another prompt.
            random.Random(0).shuffle(order)
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        found = in_batches(self._base, self._path, records, batches, self._parts, report, cancelled)
        if controls.is_stopped():
            return None
        parts = [part for batch in found for part in batch]
        names = [name for name in figure_names(self._objective) if name != LIKELIHOOD]
        columns = [[part.figures[place] for part in parts] for place in range(len(names))]
        known = [[value for value in column if not math.isnan(value)] for column in columns]
        totals = ranks.sum(
            (
                len(parts),
                math.fsum(part.loss for part in parts),
                math.fsum(part.likelihood for part in parts),
                math.fsum(part.tokens for part in parts),
                *(math.fsum(values) for values in known),
                *(len(values) for values in known),
            )
        )
        count, loss, likelihood, tokens = totals[:4]
        if not count:
            return None
        sums, numbers = totals[4 : 4 + len(names)], totals[4 + len(names) :]
        figures = {name: total / n for name, total, n in zip(names, sums, numbers, strict=True) if n}
        mean = loss / count
        if tokens:
            figures[LIKELIHOOD] = likelihood / tokens
            mean += self._objective.likelihood_weight * likelihood / tokens
        return HeldOutPreference(mean, figures, int(count))

    def _parts(self, rows: list[Record]) -> list[_Part]:
        scored = self._scored(rows)
        share = len(rows)
        likelihood = 0.0 if scored.likelihood is None else float(scored.likelihood) / share
        return [
            _Part(loss, tuple(figures), likelihood, scored.likelihood_tokens / share)
            for loss, figures in zip(scored.losses.tolist(), scored.figures.T.tolist(), strict=True)
        ]

    def _scored(self, rows: Sequence[Record]) -> "Scored":
        import torch

        from workbench.engine.objectives.scoring import score_pairs, score_rewards, score_unpaired
        from workbench.engine.objectives.texts import sums_by_text
        from workbench.engine.objectives.unpaired import EXCHANGED

        batch = self._collate(rows)
        before = None
        if self._objective.spec.has_head:
            return score_rewards(self._objective, batch, head_outputs(self._base, batch)[:, 0])
        if self._objective.spec.has_reference:
            with self._reference.active():
                before = sums_by_text(self._log_probs(batch), batch)
        log_probs = self._log_probs(batch)
        if self._objective.spec.records != "unpaired":
            return score_pairs(self._objective, batch, log_probs, before)
        assert before is not None
        divergence = torch.zeros((), device=before.device)
        if EXCHANGED in batch:
            exchanged: Batch = batch[EXCHANGED]
            with self._reference.active():
                divergence = -sums_by_text(self._log_probs(exchanged), exchanged).mean()
            now = sums_by_text(self._log_probs(exchanged), exchanged).mean()
            divergence = (divergence + now).clamp(min=0)
        return score_unpaired(self._objective, batch, log_probs, before, divergence)

    def _log_probs(self, batch: "Batch") -> "torch.Tensor":
        from workbench.engine.objectives.texts import model_inputs

        log_probs: torch.Tensor = forward(self._base, model_inputs(batch)).log_probs
        return log_probs
