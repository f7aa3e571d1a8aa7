"""Trains on pairs of responses with the loop of every other run. Imports torch and TRL."""

from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

import torch

from workbench.engine.batches.order import fullest_micro_batch
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.objectives.pairs import PairCollator, model_inputs, pairs_of, sums_by_text
from workbench.engine.objectives.preference import FIGURES, PairScores, Reference
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.recipe.sections.objective import ObjectiveSection

if TYPE_CHECKING:
    from transformers.modeling_outputs import ModelOutput

    from workbench.engine.batches.parts import Batch


class PreferenceTrainer(WorkbenchTrainer):
    """Minimizes a preference loss: the mean over the pairs of a micro-batch, and over the micro-batches of a step.

    Args:
        objective: the loss and its settings.
        arguments: those of :class:`WorkbenchTrainer`.
    """

    figure_names = FIGURES
    # Each micro-batch is divided by the pairs of its step.
    loss_is_scaled_for_ga = True

    def __init__(self, *, objective: ObjectiveSection, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]  # passed on as they are
        self._objective = objective
        self._reference = Reference(self.model)

    def take(self, path: LossPath) -> None:
        """As :meth:`SplittingTrainer.take`, with both sides of each pair in a batch."""
        super().take(path)
        self._pairs = PairCollator(self.data_collator)
        self.data_collator = self._pairs

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "labels", "rejected_ids", "rejected_labels"]

    def fullest_micro_batch(self) -> int | None:
        """Tokens of the fullest micro-batch of the run, both sides; None where batches are padded."""
        if self._loss_path is None or not self._loss_path.padding_free:
            return None
        size = self.args.per_device_train_batch_size
        columns = ("input_ids", "rejected_ids")
        return fullest_micro_batch(self.train_dataset, size, self.args.data_seed, self.micro_batches, columns)

    def _split(self, batch: "Batch", parts: int) -> "list[Batch]":
        return self._pairs.split(batch, parts)

    def _in_parts(self, model: torch.nn.Module, batch: "Batch", items: torch.Tensor | int | None) -> torch.Tensor:
        pairs = len(pairs_of(batch).rows) * self.current_gradient_accumulation_steps
        return super()._in_parts(model, batch, pairs)

    def _computing(self) -> AbstractContextManager[object]:
        stack = ExitStack()
        stack.enter_context(super()._computing())
        stack.enter_context(self._reference.without_dropout())
        return stack

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: "Batch",
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> "torch.Tensor | tuple[torch.Tensor, ModelOutput]":
        """The loss of a micro-batch's pairs, divided by ``num_items_in_batch``, the pairs of the step."""
        pairs, arguments = pairs_of(inputs), model_inputs(inputs)

        def compute(model: torch.nn.Module, **more: object) -> "ModelOutput":
            return model(**arguments, **more, use_cache=False, fused_lm_head=True)

        def reference(base: torch.nn.Module) -> torch.Tensor:
            output = compute(base)
            return sums_by_text(output.log_probs, inputs)

        # First, so that its memory is free again when the step's activations are kept.
        before = self._reference.log_probs(reference)
        outputs = compute(model, **self._router_arguments)
        scores = PairScores.of(sums_by_text(outputs.log_probs, inputs), before, pairs.trained)
        losses = scores.losses(self._objective)
        items = len(pairs.rows) if num_items_in_batch is None else num_items_in_batch
        loss = self._with_router_loss(losses.sum() / items, outputs, self.current_gradient_accumulation_steps)
        self._count(outputs, inputs, scores)
        return (loss, outputs) if return_outputs else loss

    def _count(self, outputs: "ModelOutput", inputs: "Batch", scores: PairScores) -> None:
        """Count on the device: tokens of the chosen responses predicted and trained, tokens seen, and the rewards."""
        pairs = pairs_of(inputs)
        half = len(pairs.rows)
        top1 = sums_by_text(outputs.is_top1.long(), inputs)[:half].sum()
        self.counts.add_tokens(top1, sum(pairs.trained[:half]), sum(pairs.lengths))
        self.counts.add_figures(scores.figures(self._objective.beta).double().sum(1), half)
