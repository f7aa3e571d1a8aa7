"""AdaLoRA in a trainer: reduces ranks after each optimizer step, and keeps A and B orthogonal.

PEFT's own forward pass adds the orthogonality term to a loss that the model computes. Trainers that compute the loss
themselves never get it, and with gradient accumulation it would count once a micro-batch. Here its gradient is added
once a step, before the gradient is clipped.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback


class RankAllocation(TrainerCallback):
    """Does after each optimizer step what PEFT's ``update_and_allocate`` is for.

    Args:
        model: the PEFT model, with one AdaLoRA adapter to train.
        check: called with the number of steps of a run before the first one.
    """

    def __init__(self, model: Any, check: Callable[[int], None] = lambda steps: None) -> None:
        self._tuner = model.base_model
        for name, parameter in model.named_parameters():
            # The number of ranks, which no file has; on a 16-bit base, PEFT would train it.
            if "ranknum" in name:
                parameter.requires_grad_(False)
        self._check = check

    @property
    def config(self) -> Any:
        """PEFT's configuration of the adapter; its ``rank_pattern`` says which ranks are in use."""
        return self._tuner.peft_config[self._tuner.trainable_adapter_name]

    @property
    def allocator(self) -> Any:
        """PEFT's ``RankAllocator``, with the importance of each weight."""
        return self._tuner.rankallocator

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:
        """Take over the number of steps, which also changes when a run is made longer or shorter."""
        if state.global_step == 0:
            self._check(state.max_steps)
        self.config.total_step = state.max_steps

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: object) -> None:
        """Update the importance and reduce the ranks; ``state.global_step`` is still the number of steps before."""
        step, last = state.global_step, self.config.total_step - self.config.tfinal
        self._fill_gradients()
        if step > last and not self.config.rank_pattern:
            # The run was made shorter than planned: the ranks are settled now.
            step = last
        if step == last and not self.allocator.exp_avg_ipt:
            self.allocator.update_ipt(self._tuner.model)
        self._tuner.update_and_allocate(step)
        if step < last and not self.allocator.budget_schedule(step)[1]:
            # Since the last reduction, all ranks have learned again: a file must have all of them.
            self.config.rank_pattern = None

    def _fill_gradients(self) -> None:
        """A step that was skipped has no gradient, or none that is finite: it counts as zero."""
        for name, parameter in self._tuner.model.named_parameters():
            if "lora_" not in name or not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def add_orthogonality(self, scale: float = 1.0) -> None:
        """Add the gradient of ``orth_reg_weight`` · mean ‖A·Aᵀ - I‖ (of B: ‖Bᵀ·B - I‖), times ``scale``."""
        with torch.no_grad():
            self._add_orthogonality(scale)

    def _add_orthogonality(self, scale: float) -> None:
        parts = [
            (parameter, "lora_A" in name)
            for name, parameter in self._tuner.model.named_parameters()
            if parameter.requires_grad and ("lora_A" in name or "lora_B" in name)
        ]
        for parameter, is_a in parts:
            if parameter.grad is None:
                continue
            difference = parameter @ parameter.T if is_a else parameter.T @ parameter
            difference.diagonal().sub_(1)
            norm = difference.norm().clamp(min=torch.finfo(difference.dtype).tiny)
            gradient = difference @ parameter if is_a else parameter @ difference
            parameter.grad.add_(gradient * (2 * scale * self.config.orth_reg_weight / len(parts) / norm))

    def with_orthogonality(self, trainer: Any) -> None:
        """Let a trainer add the gradient of the term after the last micro-batch of each step."""
        compute = trainer.training_step

        def training_step(*arguments: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = compute(*arguments, **options)
            if trainer.accelerator.sync_gradients:
                scaler = trainer.accelerator.scaler
                self.add_orthogonality(1.0 if scaler is None else scaler.get_scale())
            return loss

        trainer.training_step = training_step
