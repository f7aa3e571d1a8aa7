"""TRL's trainer with smaller micro-batches when memory runs out. Imports torch and TRL."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from workbench.engine.batches.length_groups import LengthGroups
from workbench.engine.batches.order import fullest_micro_batch, record_lengths
from workbench.engine.batches.parts import split_batch
from workbench.engine.kernels.loss_head import add_trained_positions
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.memory_errors import is_out_of_memory
from workbench.engine.model.precision import tensor_float
from workbench.engine.model.randomness import preserved_random_state
from workbench.engine.training.run_warnings import RunWarnings
from workbench.engine.training.trainers.resumable import ResumableTrainer
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.engine.batches.parts import Batch
    from workbench.engine.kernels.compiled_layers import CompiledLayers
    from workbench.layers.host_checkpoints import HostCheckpoints
    from workbench.layers.tiled_mlp import TiledMlps


class SplittingTrainer(ResumableTrainer):
    """Starts a step over that does not fit in memory, with each micro-batch in more parts and the same gradient.

    Args:
        warnings: told of each step that ran out of memory.
        out_of_memory_error: makes the error for a step that does not fit even with a micro-batch of one record.
        groups_by_length: put records of similar length into the same step.
        arguments: those of :class:`ResumableTrainer`.
    """

    token_columns: ClassVar[tuple[str, ...]] = ("input_ids",)
    """Those of the records that hold tokens."""

    def __init__(
        self,
        *,
        warnings: RunWarnings,
        out_of_memory_error: Callable[[], WorkbenchError],
        groups_by_length: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._groups_by_length = groups_by_length
        self._loss_path: LossPath | None = None
        self._warnings = warnings
        self._out_of_memory_error = out_of_memory_error
        self.compiled: CompiledLayers | None = None
        self.host_checkpoints: HostCheckpoints | None = None
        self.tiled_mlps: TiledMlps | None = None
        # Number of parts that each micro-batch is split into; doubled when memory runs out.
        self.parts = 1
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        # Micro-batches of the current step so far, to start it over.
        self._step_batches: list[Batch] = []

    def take(self, path: LossPath) -> None:
        """Use the batches of a loss path, which the model must accept; called before training."""
        self._loss_path = path
        self.data_collator = path.collator(self._tokenizer.pad_token_id)
        if path.one_record:
            self.parts = int(self.args.per_device_train_batch_size)

    def step_begins(self) -> None:
        """As :meth:`ResumableTrainer.step_begins`."""
        self._step_batches.clear()
        super().step_begins()

    def extra_state(self) -> dict[str, Any]:
        """As :meth:`ResumableTrainer.extra_state`, with ``parts``."""
        return {**super().extra_state(), "parts": self.parts}

    def take_extra_state(self, state: Mapping[str, Any], *, is_own: bool) -> None:
        """As :meth:`ResumableTrainer.take_extra_state`, with ``parts``."""
        super().take_extra_state(state, is_own=is_own)
        self.parts = state["parts"]

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches of the whole run, in all processes."""
        arguments = self.args
        if arguments.max_steps > 0:
            return int(arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size)
        in_epoch = -(-len(self.train_dataset) // int(arguments.per_device_train_batch_size))
        return math.ceil(float(arguments.num_train_epochs) * in_epoch)

    def fullest_micro_batch(self) -> int | None:
        """Tokens of the fullest micro-batch of the run; None where batches are padded."""
        if self._loss_path is None or not self._loss_path.padding_free:
            return None
        size = self.args.per_device_train_batch_size
        return fullest_micro_batch(
            self.train_dataset,
            size,
            self.args.data_seed,
            self.micro_batches,
            self.token_columns,
            self._length_groups() if self._groups_by_length else None,
        )

    def _length_groups(self) -> LengthGroups:
        lengths = record_lengths(self.train_dataset, self.token_columns).tolist()
        arguments = self.args
        step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        return LengthGroups(lengths, step, arguments.data_seed)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._length_groups() if self._groups_by_length else super()._get_train_sampler(train_dataset)

    def training_step(
        self, model: torch.nn.Module, inputs: "Batch", num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Compute a micro-batch; if memory runs out, start the step over with each micro-batch in twice as many parts.

        The loss of a part is divided by the tokens of the whole optimizer step, so the gradient stays the same.
        """
        self._step_batches.append(inputs)
        remaining = [inputs]
        while True:
            problem = None
            try:
                for batch in remaining:
                    loss = self._in_parts(model, batch, num_items_in_batch)
                return loss
            except Exception as error:
                if self.args.world_size > 1 or not is_out_of_memory(error):
                    raise
                # The traceback refers to tensors, which are freed with it at the end of this block.
                problem = str(error)
            self._split_further(batch, problem)
            model.zero_grad(set_to_none=True)
            self.forget_step()
            remaining = list(self._step_batches)

    def _in_parts(self, model: torch.nn.Module, batch: "Batch", items: torch.Tensor | int | None) -> torch.Tensor:
        parts = self._split(batch, self.parts)
        steps = self.current_gradient_accumulation_steps
        self.current_gradient_accumulation_steps = steps * len(parts)
        try:
            with self._computing():
                loss = sum(super(SplittingTrainer, self).training_step(model, part, items) for part in parts)
            self._check_host_checkpoints()
            return loss
        finally:
            self.current_gradient_accumulation_steps = steps

    def _split(self, batch: "Batch", parts: int) -> "list[Batch]":
        """Split a batch into at most ``parts`` batches of whole records."""
        split = split_batch(batch, parts)
        if len(split) > 1 and "trained_positions" in batch:
            split = [add_trained_positions(part) for part in split]
        return split

    def _computing(self) -> AbstractContextManager[object]:
        """The context of steps, with all that changes how layers are computed in them."""
        stack = ExitStack()
        stack.enter_context(tensor_float())
        if self.compiled is not None:
            stack.enter_context(self.compiled.active())
        if self.tiled_mlps is not None:
            stack.enter_context(self.tiled_mlps.active())
        if self.host_checkpoints is not None:
            stack.enter_context(self.host_checkpoints.active())
        return stack

    def _check_host_checkpoints(self) -> None:
        """Warn once if no checkpoint was sent to the host."""
        if self.host_checkpoints is not None and not self.host_checkpoints.is_used:
            self.host_checkpoints = None
            self._warnings.warn(
                "Checkpoints stay on the GPU: this architecture makes them in a way of its own.",
                kind="host_checkpoints",
            )

    def dry_step(self, indices: Sequence[int]) -> None:
        """Compute one micro-batch of these records and drop its gradient; leaves the random states unchanged.

        Called when training has begun.
        """
        batch = self.data_collator([self.train_dataset[index] for index in indices])
        counts = self.counts.copy()
        try:
            with preserved_random_state(), self._computing():
                super().training_step(self.model_wrapped, batch)
        finally:
            self.model_wrapped.zero_grad(set_to_none=True)
            self.counts.set(counts)

    def _split_further(self, batch: "Batch", problem: str) -> None:
        before, after = (len(self._split(batch, parts)) for parts in (self.parts, self.parts * 2))
        if after == before:
            raise self._out_of_memory_error()
        self.parts *= 2
        free_cached_memory()
        rows = max(self.args.per_device_train_batch_size // self.parts, 1)
        accumulation = self.args.gradient_accumulation_steps * self.parts
        self._warnings.warn(
            f"Out of memory at step {self.state.global_step + 1}. The micro-batch is now {rows} and "
            f"the accumulation {accumulation}; the effective batch and its gradient stay the same.",
            kind="out_of_memory",
            micro_batch=rows,
            accumulation=accumulation,
            problem=problem[:300],
        )
