"""TRL's trainer with a clock in it. Imports torch and TRL: only for the process that trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl import SFTTrainer

from workbench.engine.batches.stats import STATS_KEY, CountingCollator
from workbench.engine.metrics.step_clock import AnyClock


class TimedTrainer(SFTTrainer):
    """Tells a clock which part of a step begins, and what is fed in it.

    Args:
        clock: takes the time. :mod:`workbench.engine.training.step_controls` marks where steps begin and end.
    """

    data_collator: Any

    def __init__(self, *, clock: AnyClock, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.clock = clock

    def get_train_dataloader(self) -> Any:
        collate = self.data_collator
        self.data_collator = CountingCollator(collate)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        self.clock.enter("data")
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.clock.enter("other")
        for batch in batches:
            self.clock.add_batch(batch.pop(STATS_KEY))
        return batches, items

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        self.clock.enter("forward")
        loss = super().training_step(*arguments, **options)
        self.clock.enter("other")
        return loss

    @contextmanager
    def compute_loss_context_manager(self) -> Iterator[None]:
        """What a loss is computed in; what follows it is the backward pass."""
        with super().compute_loss_context_manager():
            yield
        self.clock.enter("backward")

    def _clip_grad_norm(self, model: Any) -> Any:
        self.clock.enter("optimizer")
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        self.clock.enter("optimizer")
        return super()._get_grad_norm(model, grad_norm)

    def floating_point_ops(self, inputs: Any) -> int:
        """None: the clock counts them. The trainer's way looks at every parameter of the model for each batch."""
        return 0
