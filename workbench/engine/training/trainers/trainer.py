"""The trainer of a supervised run. Imports torch and TRL."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations.neftune import deactivate_neftune

from workbench.engine.model.saving import load_trained_weights, save_trained_weights
from workbench.engine.training.trainers.parameter_groups import (
    OptimizerKnobs,
    averaged_weights,
    give_own_rate,
    lorafa_optimizer,
    loraplus_optimizer,
    trained_embeddings,
)
from workbench.engine.training.trainers.resumable import set_rate
from workbench.engine.training.trainers.splitting import SplittingTrainer
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler
    from transformers.modeling_outputs import ModelOutput

    from workbench.engine.batches.parts import Batch

_PLAIN = OptimizerKnobs()


class WorkbenchTrainer(SplittingTrainer):
    """Trains one run; :class:`~workbench.engine.training.training.Training` does everything before and after.

    Args:
        knobs: what the recipe asks of its optimizer beside what transformers' arguments say.
        skip_non_finite: skip a step whose gradient is infinite or NaN, with a warning, instead of raising.
        arguments: those of :class:`SplittingTrainer`.
    """

    optimizer: Any

    def __init__(self, *, skip_non_finite: bool, knobs: OptimizerKnobs = _PLAIN, **arguments: Any) -> None:
        super().__init__(**arguments)
        # Weight of the router's balancing loss; 0: not computed.
        self.router_aux_loss = 0.0
        self._skip_non_finite = skip_non_finite
        self._knobs = knobs

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Does nothing: a card is written when a run is exported."""

    def set_learning_rate(self, peak: float) -> None:
        """Change the peak of the learning rate schedule, from the next step on. Rates of groups keep their ratio."""
        scheduler: LRScheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        bases = [float(base) for base in scheduler.base_lrs]
        last = map(float, scheduler.get_last_lr())
        shares = [rate / base if base else 1.0 for rate, base in zip(last, bases, strict=True)]
        peaks = [peak * base / bases[0] if bases[0] else peak for base in bases]
        rates = [top * share for top, share in zip(peaks, shares, strict=True)]
        scheduler.base_lrs, scheduler._last_lr = peaks, rates
        for group, top, rate in zip(self.optimizer.param_groups, peaks, rates, strict=True):
            set_rate(group, top, rate)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimizer: transformers', or PEFT's LoRA+ or LoRA-FA; embeddings may have their own rate."""
        if self.optimizer is not None:
            return self.optimizer
        knobs, trained = self._knobs, self.model if model is None else model
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
        if knobs.averages:
            # The schedule warms up; the optimizer would take a share of all steps for a number of them.
            options |= {"warmup_steps": 0} if "warmup_steps" in options else {}
            self.optimizer_cls_and_kwargs = (kind, options)
        if knobs.trains_b_only:
            self.optimizer = lorafa_optimizer(trained, self.args.learning_rate, self.args.weight_decay)
        elif knobs.loraplus_lr_ratio:
            decay = self.args.weight_decay
            self.optimizer = loraplus_optimizer(trained, kind, knobs.loraplus_lr_ratio, decay, options)
        else:
            super().create_optimizer(model)
        if knobs.embedding_learning_rate:
            give_own_rate(self.optimizer, trained_embeddings(trained), knobs.embedding_learning_rate)
        return self.optimizer

    def averaged(self) -> AbstractContextManager[None]:
        """The context in which weights are evaluated and saved; only schedule-free optimizers change them there."""
        return averaged_weights(self.optimizer) if self._knobs.averages else nullcontext()

    def settle(self) -> None:
        """Leave the weights as they are saved; called when training is over."""
        if self._knobs.averages and self.optimizer is not None:
            self.optimizer.eval()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        with self.averaged():
            super()._save(output_dir, state_dict)
        if self._knobs.averages and self.args.should_save:
            save_trained_weights(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_trained_weights(self.model, Path(resume_from_checkpoint))

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Run the loop. It may be left at any step and entered again: NEFTune's hook is removed each time."""
        try:
            return super().train(*arguments, **options)
        finally:
            if self.neftune_noise_alpha is not None:
                deactivate_neftune(self.model, self.neftune_hook_handle, self.accelerator)

    # -- loss -----------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: "Batch",
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> "torch.Tensor | tuple[torch.Tensor, ModelOutput]":
        """TRL's negative log-likelihood, bit for bit, without TRL's synchronizations.

        TRL copies three metrics from the device after each micro-batch, for which a GPU has to wait; here they are
        counted on the device.
        """
        outputs = model(**inputs, **self._router_arguments, use_cache=False, fused_lm_head=True)
        trained = outputs.label_mask.sum()
        items = trained if num_items_in_batch is None else num_items_in_batch
        loss = (-outputs.log_probs).sum() / torch.as_tensor(items).clamp(min=1)
        is_averaged = self.args.average_tokens_across_devices and num_items_in_batch is not None
        if is_averaged:
            # The items are those of all processes, and the gradient is averaged over the processes.
            loss = loss * self.accelerator.num_processes
        steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        loss = self._with_router_loss(loss, outputs, steps)
        mask = inputs.get("attention_mask")
        seen = inputs["input_ids"].numel() if mask is None else mask.sum()
        self.counts.add_tokens(outputs.is_top1.sum(), trained, seen)
        return (loss, outputs) if return_outputs else loss

    @property
    def _router_arguments(self) -> dict[str, bool]:
        """What makes a model compute the router's balancing loss, if it is added."""
        return {"output_router_logits": True} if self.router_aux_loss else {}

    def _with_router_loss(self, loss: torch.Tensor, outputs: "ModelOutput", steps: int) -> torch.Tensor:
        """Add the router's balancing loss to the gradient, not to the value, which is the loss curve's.

        Args:
            steps: the micro-batches whose gradients are added up.
        """
        if not self.router_aux_loss:
            return loss
        balancing = self.router_aux_loss * outputs.aux_loss / steps
        self.counts.add_router_loss(outputs.aux_loss)
        return loss + (balancing - balancing.detach())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with ``mean_token_accuracy`` since the last point of the loss curve, and ``num_tokens`` in total.

        ``router_aux_loss``: the router's balancing loss, mean over the micro-batches since then, if it is added.
        """
        counts, total = self.counts, partial(self.accelerator.reduce, reduction="sum")
        correct, trained, seen = counts.take_tokens(total)
        self._total_train_tokens += seen
        if self.router_aux_loss and (balancing := counts.take_router_loss(total)) is not None:
            logs["router_aux_loss"] = balancing
        if trained:
            logs["mean_token_accuracy"] = correct / trained
        logs["num_tokens"] = self._total_train_tokens
        logs |= counts.take_figures(total)
        super().log(logs, start_time)

    # -- gradients that are not finite ----------------------------------------------------------------------------

    def _get_grad_norm(
        self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None
    ) -> torch.Tensor | float | None:
        """Check the gradient's norm too; called just before the optimizer steps, so the weights never get a bad one."""
        norm = super()._get_grad_norm(model, grad_norm)
        # A loss scaler causes infinite gradients regularly, and skips those steps itself.
        if getattr(self.accelerator, "scaler", None) is None and not bool(torch.isfinite(torch.as_tensor(norm))):
            step, value = self.state.global_step + 1, float(torch.as_tensor(norm))
            if not self._skip_non_finite:
                raise WorkbenchError(
                    f"Loss or gradient became {value} in step {step}.",
                    "Lower training.learning_rate (try a tenth), or use bfloat16 instead of float16; "
                    "training.non_finite: skip skips such steps.",
                    kind="nan_loss",
                )
            for parameter in model.parameters():
                parameter.grad = None
            self._warnings.warn(f"Skipped step {step}: its gradient is {value}.", kind="skipped_step", step=step)
        return norm
