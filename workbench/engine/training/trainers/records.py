"""Trains on pairs, unpaired responses and labeled texts, with the loop of every other run. Imports torch and TRL."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.engine.objectives.labels import LabelCollator
from workbench.engine.objectives.pairs import PairCollator
from workbench.engine.objectives.reference import Reference, WithoutDropout
from workbench.engine.objectives.scoring import (
    Scored,
    figure_names,
    likelihood_tokens,
    score_labels,
    score_pairs,
    score_rewards,
    score_unpaired,
)
from workbench.engine.objectives.texts import model_inputs, rows_of, sequence_ends, split_rows, sums_by_text
from workbench.engine.objectives.unpaired import EXCHANGED, UnpairedCollator
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.models.tokenizers import pad_token_id
from workbench.objectives.kto import estimates_divergence
from workbench.recipe.sections.objective import ObjectiveSection

if TYPE_CHECKING:
    from transformers.modeling_outputs import ModelOutput

    from workbench.engine.batches.parts import Batch


@dataclass(frozen=True)
class _MicroBatch:
    """What the parts of a micro-batch share: their losses are parts of its mean.

    Attributes:
        records: its number of records; or, where every record of a step counts the same, its share of them.
        tokens: the tokens whose likelihood is part of the loss.
        divergence: the estimated divergence from the reference; None if it is not used.
    """

    records: float
    tokens: int = 0
    divergence: torch.Tensor | None = None


class RecordTrainer(WorkbenchTrainer):
    """Minimizes the mean of a loss over the records of a micro-batch, and over the micro-batches of a step.

    Args:
        objective: the loss and its settings.
        reference: what the model is compared with; an attribute too.
        head: what the adapter's own head predicts, saved with each checkpoint; None without one.
        arguments: those of :class:`WorkbenchTrainer`.
    """

    columns: ClassVar[tuple[str, ...]]
    """Those of the records."""
    # Each micro-batch is divided by the number of its records and of the micro-batches of a step.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        objective: ObjectiveSection,
        reference: Reference,
        head: SequenceHead | None = None,
        **arguments: object,
    ) -> None:
        self.figure_names = figure_names(objective)
        super().__init__(**arguments)  # type: ignore[arg-type]  # passed on as they are
        self._objective = objective
        self.reference = reference
        self._head = head
        # TRL's trainers of preferences switch dropout off.
        self._dropout = WithoutDropout(self.model) if objective.is_preference else nullcontext()
        self._whole: _MicroBatch | None = None

    def take(self, path: LossPath) -> None:
        """As :meth:`SplittingTrainer.take`, with all texts of a record in the same batch."""
        super().take(path)
        self._rows = self.data_collator = self._collator()

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(self.columns)

    @abstractmethod
    def _collator(self) -> "PairCollator | UnpairedCollator | LabelCollator":
        """The collator of whole records; ``data_collator`` is that of single texts."""

    @abstractmethod
    def _scored(self, batch: "Batch", outputs: "ModelOutput", before: torch.Tensor | None, of: _MicroBatch) -> Scored:
        """The losses and figures of a batch; ``before``: the reference's sums by text."""

    @abstractmethod
    def _micro_batch(self, model: torch.nn.Module, batch: "Batch") -> _MicroBatch:
        """What the parts of a micro-batch will share."""

    @abstractmethod
    def _responses(self, batch: "Batch") -> int:
        """How many of a batch's texts, the first ones, count for the token accuracy."""

    def _split(self, batch: "Batch", parts: int) -> "list[Batch]":
        return split_rows(self._rows, batch, parts)

    def _in_parts(self, model: torch.nn.Module, batch: "Batch", items: torch.Tensor | int | None) -> torch.Tensor:
        with self._computing():
            self._whole = self._micro_batch(model, batch)
        try:
            return super()._in_parts(model, batch, self.current_gradient_accumulation_steps)
        finally:
            self._whole = None

    def _computing(self) -> AbstractContextManager[object]:
        stack = ExitStack()
        stack.enter_context(super()._computing())
        stack.enter_context(self._dropout)
        return stack

    def _sums(self, model: torch.nn.Module, batch: "Batch") -> torch.Tensor:
        """The log-probability of each text's response."""
        return sums_by_text(self._forward(model, batch).log_probs, batch)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self._head is not None and self.args.should_save:
            self._head.save(Path(output_dir or self.args.output_dir))

    def _forward(self, model: torch.nn.Module, batch: "Batch", **more: object) -> "ModelOutput":
        if self._objective.spec.has_head:
            ends = sequence_ends(batch, pad_token_id(self._tokenizer))
            return model(**model_inputs(batch), **more, sequence_ends=ends, use_cache=False)
        return model(**model_inputs(batch), **more, use_cache=False, fused_lm_head=True)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: "Batch",
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> "torch.Tensor | tuple[torch.Tensor, ModelOutput]":
        """The loss of a part of a micro-batch, divided by ``num_items_in_batch``, the micro-batches of the step."""
        whole = self._whole or self._micro_batch(model, inputs)
        before = None
        if self._objective.spec.has_reference:
            # First, so that its memory is free again when the step's activations are kept.
            with self.reference.active():
                before = self._sums(self.model, inputs)
        outputs = self._forward(model, inputs, **self._router_arguments)
        scored = self._scored(inputs, outputs, before, whole)
        loss = scored.losses.sum() / whole.records
        if scored.likelihood is not None:
            weight = self._objective.likelihood_weight
            loss = loss + weight * scored.likelihood / whole.tokens
        steps = 1 if num_items_in_batch is None else num_items_in_batch
        loss = self._with_router_loss(loss / steps, outputs, self.current_gradient_accumulation_steps)
        self._count(outputs, inputs, scored)
        return (loss, outputs) if return_outputs else loss

    def _count(self, outputs: "ModelOutput", inputs: "Batch", scored: Scored) -> None:
        """Count on the device: tokens of responses predicted and trained, tokens seen, and the figures."""
        rows, responses = rows_of(inputs), self._responses(inputs)
        if self._objective.spec.has_head:
            top1, counts = torch.zeros((), dtype=torch.long), (0, sum(rows.lengths))
        else:
            top1 = sums_by_text(outputs.is_top1.long(), inputs)[:responses].sum().long()
            counts = (sum(rows.trained[:responses]), sum(rows.lengths))
        self.counts.add_tokens(top1, *counts)
        known = ~scored.figures.isnan()
        sums, numbers = scored.figures.double().nan_to_num(nan=0.0).sum(1), known.double().sum(1)
        if scored.likelihood is not None:
            tokens = torch.full_like(numbers[:1], scored.likelihood_tokens)
            sums = torch.cat([sums, scored.likelihood.detach().double()[None]])
            numbers = torch.cat([numbers, tokens])
        self.counts.add_figures(sums, numbers)


class PairTrainer(RecordTrainer):
    """Trains on pairs of a chosen and a rejected response."""

    columns = ("input_ids", "labels", "rejected_ids", "rejected_labels")
    token_columns = ("input_ids", "rejected_ids")

    def _collator(self) -> PairCollator:
        whole = self._objective.likelihood == "whole"
        return PairCollator(self.data_collator, whole=whole)

    def _scored(self, batch: "Batch", outputs: "ModelOutput", before: torch.Tensor | None, of: _MicroBatch) -> Scored:
        if self._objective.spec.has_head:
            return score_rewards(self._objective, batch, outputs.logits[:, 0])
        return score_pairs(self._objective, batch, outputs.log_probs, before)

    def _micro_batch(self, model: torch.nn.Module, batch: "Batch") -> _MicroBatch:
        return _MicroBatch(len(rows_of(batch).rows), likelihood_tokens(self._objective, batch))

    def _responses(self, batch: "Batch") -> int:
        return len(rows_of(batch).rows)


class UnpairedTrainer(RecordTrainer):
    """Trains on responses that are good or bad. The records are read in their order, as TRL's KTOTrainer does.

    Args:
        max_length: exchanged responses are truncated at so many tokens.
        arguments: those of :class:`RecordTrainer`.
    """

    columns = ("input_ids", "labels", "good")

    def __init__(self, *, max_length: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]  # passed on as they are
        self._max_length = max_length

    def fullest_micro_batch(self) -> int | None:
        """Tokens of the fullest micro-batch of the run; None where batches are padded."""
        if self._loss_path is None or not self._loss_path.padding_free:
            return None
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        size = self.args.per_device_train_batch_size
        return max(sum(lengths[start : start + size]) for start in range(0, len(lengths), size))

    def _collator(self) -> UnpairedCollator:
        self._unpaired = UnpairedCollator(self.data_collator, self._max_length if self._is_divergence_used else None)
        return self._unpaired

    @property
    def _is_divergence_used(self) -> bool:
        return estimates_divergence(self._objective)

    def _scored(self, batch: "Batch", outputs: "ModelOutput", before: torch.Tensor | None, of: _MicroBatch) -> Scored:
        assert before is not None
        divergence = torch.zeros((), device=before.device) if of.divergence is None else of.divergence
        return score_unpaired(self._objective, batch, outputs.log_probs, before, divergence)

    def _micro_batch(self, model: torch.nn.Module, batch: "Batch") -> _MicroBatch:
        records = len(rows_of(batch).rows)
        if not self._is_divergence_used:
            return _MicroBatch(records)
        return _MicroBatch(records, divergence=self._divergence(model, batch[EXCHANGED]))

    def _divergence(self, model: torch.nn.Module, batch: "Batch") -> torch.Tensor:
        """The mean log-ratio of the exchanged responses, at least 0; the same in all processes."""
        parts = [self._prepare_inputs(part) for part in split_rows(self._unpaired.collate_texts, batch, self.parts)]
        with torch.no_grad():
            now = torch.cat([self._sums(model, part) for part in parts])
        with self.reference.active():
            before = torch.cat([self._sums(self.model, part) for part in parts])
        return self.accelerator.reduce((now - before).mean(), reduction="mean").clamp(min=0)

    def _responses(self, batch: "Batch") -> int:
        return len(rows_of(batch).rows)


class LabelTrainer(RecordTrainer):
    """Trains on texts with labels. Each record of a step counts the same, as in transformers' Trainer."""

    columns = ("input_ids", "labels", "label")
    # Records of the current step in all processes, per process.
    _step_records: float | None = None

    def _get_num_items_in_batch(self, batch_samples: "list[Batch]", device: torch.device) -> torch.Tensor | int | None:
        records = float(sum(len(rows_of(batch).rows) for batch in batch_samples))
        if self.args.world_size > 1:
            records = float(self.accelerator.reduce(torch.tensor(records, device=device), reduction="mean"))
        self._step_records = records
        return super()._get_num_items_in_batch(batch_samples, device)

    def _collator(self) -> LabelCollator:
        return LabelCollator(self.data_collator)

    def _scored(self, batch: "Batch", outputs: "ModelOutput", before: torch.Tensor | None, of: _MicroBatch) -> Scored:
        return score_labels(self._objective, batch, outputs.logits)

    def _micro_batch(self, model: torch.nn.Module, batch: "Batch") -> _MicroBatch:
        if self._step_records is None:
            return _MicroBatch(len(rows_of(batch).rows))
        return _MicroBatch(self._step_records / self.current_gradient_accumulation_steps)

    def _responses(self, batch: "Batch") -> int:
        return 0


TRAINERS: dict[str, Callable[..., RecordTrainer]] = {
    "pairs": PairTrainer,
    "unpaired": UnpairedTrainer,
    "labeled": LabelTrainer,
}
"""By the records of the objective."""
