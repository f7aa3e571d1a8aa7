"""TRL's trainer with a clock that measures the parts of each step. Imports torch and TRL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trl import SFTTrainer

from workbench.engine.batches.stats import STATS_KEY, CountingCollator
from workbench.engine.metrics.step_clock import AnyClock

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader


class TimedTrainer(SFTTrainer):
    """Tells a clock which part of a step begins, and which batches the step has.

    Args:
        clock: measures the parts. That a step begins or ends, it learns from
            :mod:`workbench.engine.training.session.step_controls`.
        arguments: those of ``SFTTrainer``.
    """

    data_collator: "Callable[[list[dict[str, list[int]]]], dict[str, torch.Tensor]]"

    def __init__(self, *, clock: AnyClock, **arguments: object) -> None:
        super().__init__(**arguments)
        self.clock = clock

    def get_train_dataloader(self) -> "DataLoader":
        collate = self.data_collator
        self.data_collator = CountingCollator(collate)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def get_batch_samples(
        self, epoch_iterator: "Iterator[dict[str, torch.Tensor]]", num_batches: int, device: "torch.device"
    ) -> "tuple[list[dict[str, torch.Tensor]], torch.Tensor | None]":
        self.clock.enter("data")
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.clock.enter("other")
        for batch in batches:
            self.clock.add_batch(batch.pop(STATS_KEY))
        return batches, items

    def training_step(
        self,
        model: "torch.nn.Module",
        inputs: "dict[str, torch.Tensor]",
        num_items_in_batch: "torch.Tensor | int | None" = None,
    ) -> "torch.Tensor":
        self.clock.enter("forward")
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.clock.enter("other")
        return loss

    @contextmanager
    def compute_loss_context_manager(self) -> Iterator[None]:
        """The context in which the trainer computes the loss; the backward pass follows it."""
        with super().compute_loss_context_manager():
            yield
        self.clock.enter("backward")

    # Called only where gradients are clipped; the next one always is.
    def _clip_grad_norm(self, model: "torch.nn.Module") -> "torch.Tensor | None":
        self.clock.enter("optimizer")
        return super()._clip_grad_norm(model)

    def _get_grad_norm(
        self, model: "torch.nn.Module", grad_norm: "torch.Tensor | None" = None
    ) -> "torch.Tensor | float | None":
        self.clock.enter("optimizer")
        return super()._get_grad_norm(model, grad_norm)

    def floating_point_ops(self, inputs: "dict[str, torch.Tensor]") -> int:
        """Returns 0: the clock counts FLOPs; the trainer's own count visits every parameter for each batch."""
        return 0
