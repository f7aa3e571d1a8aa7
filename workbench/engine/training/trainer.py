"""TRL's trainer with complete checkpoints, exact resume, and smaller micro-batches when memory runs out.

Imports torch and TRL.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from trl import SFTTrainer

from workbench.data.templates.template import Template
from workbench.engine.batches.order import fullest_micro_batch
from workbench.engine.batches.parts import split_batch
from workbench.engine.kernels.loss_head import add_trained_positions
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.metrics.step_clock import AnyClock
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.memory_errors import is_out_of_memory
from workbench.engine.model.precision import tensor_float
from workbench.engine.model.randomness import preserved_random_state, random_state, set_random_state
from workbench.engine.model.saving import load_adapter
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.timed_trainer import TimedTrainer
from workbench.errors import WorkbenchError
from workbench.runs.checkpoints import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler
    from transformers.modeling_outputs import ModelOutput

    from workbench.engine.batches.parts import Batch
    from workbench.engine.kernels.compiled_layers import CompiledLayers

T = TypeVar("T")


class RetryWhileFull(Protocol):
    """Calls a function that writes files, again and again while the disk is full; in all processes alike."""

    def __call__(self, work: Callable[[], T]) -> T: ...


class WarnOfStep(Protocol):
    """Writes a warning to the journal, with further fields of :class:`~workbench.runs.events.RunWarning`."""

    def __call__(
        self,
        message: str,
        *,
        kind: str,
        step: int | None = None,
        micro_batch: int | None = None,
        accumulation: int | None = None,
        problem: str | None = None,
    ) -> None: ...


class WorkbenchTrainer(TimedTrainer):
    """Trains one run; :class:`~workbench.engine.training.training.Training` does everything before and after.

    Args:
        ranks: the processes that train this run together.
        template: saved with every checkpoint, so that each is a complete adapter folder.
        retry_while_full: used for everything that writes files.
        skip_non_finite: skip a step whose gradient is infinite or NaN, instead of raising.
        warn: called when a step was skipped or ran out of memory.
        out_of_memory_error: makes the error for a step that does not fit even with a micro-batch of one record.
        clock, arguments: those of :class:`TimedTrainer`.
    """

    figure_names: tuple[str, ...] = ()
    """What an objective records of each record beside the loss; logged as means under these names."""

    def __init__(
        self,
        *,
        ranks: Ranks,
        template: Template,
        retry_while_full: RetryWhileFull,
        skip_non_finite: bool,
        warn: WarnOfStep,
        out_of_memory_error: Callable[[], WorkbenchError],
        clock: AnyClock,
        **arguments: object,
    ) -> None:
        super().__init__(clock=clock, **arguments)
        self._loss_path: LossPath | None = None
        # Weight of the router's balancing loss; 0: not computed.
        self.router_aux_loss = 0.0
        self._ranks = ranks
        self._template = template
        self._retry_while_full = retry_while_full
        self._skip_non_finite = skip_non_finite
        self._warn = warn
        self._out_of_memory_error = out_of_memory_error
        self._checkpoint_limit = self.args.save_total_limit
        self.compiled: CompiledLayers | None = None
        # Number of parts that each micro-batch is split into; doubled when memory runs out.
        self.parts = 1
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        # Micro-batches of the current step so far, to start it over.
        self._step_batches: list[Batch] = []
        # Counted since the last point of the loss curve, on the device: tokens predicted correctly, trained, and seen.
        self._tally = torch.zeros(3, dtype=torch.long, device=self.args.device)
        # Sums of ``figure_names`` since then, and the number of records.
        self._figures = torch.zeros(len(self.figure_names) + 1, dtype=torch.float64, device=self.args.device)
        # Likewise: the router's balancing loss, summed over micro-batches, and their number.
        self._router_tally = torch.zeros(2, device=self.args.device)
        self._step_end_state = random_state()
        self._in_step = False
        self._window_before: _Window | None = None
        self._output_dir: Path | None = None

    def take(self, path: LossPath) -> None:
        """Use the batches of a loss path, which the model must accept; called before training."""
        self._loss_path = path
        self.data_collator = path.collator(self._tokenizer.pad_token_id)
        if path.one_record:
            self.parts = int(self.args.per_device_train_batch_size)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Write a checkpoint of the last whole optimizer step now."""
        return self._write(self.model_wrapped)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        self._write(model)

    def _write(self, model: torch.nn.Module) -> Checkpoint:
        def write() -> Checkpoint:
            return write_checkpoint(
                Path(self.args.output_dir),
                self.state.global_step,
                lambda folder: self._fill(model, folder),
                self._checkpoint_limit,
                is_main=self._ranks.is_first,
                run_on_all=self._ranks.run_on_all,
            )

        return self._retry_while_full(write)

    def _fill(self, model: torch.nn.Module, folder: Path) -> None:
        """Write all files of a checkpoint into a folder."""
        self._output_dir = folder.parent
        try:
            super(SFTTrainer, self)._save_checkpoint(model, None)
            self._state_file(folder).write_text(json.dumps(self._extra_state()), encoding="utf-8")
        finally:
            self._output_dir = None

    def _state_file(self, folder: Path) -> Path:
        """The file of a checkpoint with the state that transformers does not save; one for each process."""
        return folder / ("workbench.json" if self._ranks.is_first else f"workbench_{self._ranks.index}.json")

    def _get_output_dir(self, trial: object) -> str:
        return str(self._output_dir or super()._get_output_dir(trial))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        # A pickle that nothing reads.
        (folder / "training_args.bin").unlink(missing_ok=True)
        self._template.save(folder)

    def _extra_state(self) -> dict[str, object]:
        """State that transformers does not save: counts since the last point of the loss curve, and ``parts``."""
        window = self._window_before if self._in_step and self._window_before else self._window()
        return {**window.as_json(), "parts": self.parts}

    def _window(self) -> "_Window":
        return _Window(
            self._tr_loss.clone(),
            self._globalstep_last_logged,
            self._total_train_tokens,
            self._tally.clone(),
            self._figures.clone(),
            self._router_tally.clone(),
        )

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on up to the last point of the loss curve, without padding."""
        return int(self._total_train_tokens)

    def restore_window(self, checkpoint: Path) -> None:
        """Restore a checkpoint's counts since the last point of the loss curve; called when training has begun."""
        file = self._state_file(checkpoint)
        is_own = file.is_file()
        if not is_own:
            # Written by fewer processes: the first one's file has the totals.
            file = checkpoint / "workbench.json"
        state = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss += state["loss"]
        self._globalstep_last_logged = state["logged_at"]
        self._total_train_tokens = state["tokens"]
        if is_own:
            self._tally += torch.tensor(state.get("tally", (0, 0, 0)), device=self._tally.device)
            if figures := state.get("figures"):
                self._figures += torch.tensor(figures, dtype=torch.float64, device=self._figures.device)
            self._router_tally += torch.tensor(state.get("router_tally", (0.0, 0.0)), device=self._tally.device)
        self.parts = state["parts"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # PEFT's own loading may change the dtype of the weights.
        load_adapter(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self._restore_dtypes(Path(checkpoint) / "optimizer.pt")

    def _restore_dtypes(self, file: Path) -> None:
        """Restore the dtypes of optimizer state that PyTorch cast to its parameter's, such as Adafactor's float32."""
        saved = torch.load(file, map_location="cpu", weights_only=True)["state"]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            state = self.optimizer.state[parameter]
            for name, value in saved.get(index, {}).items():
                if torch.is_tensor(value) and state[name].dtype != value.dtype:
                    state[name] = value.to(state[name].device)

    def full_state_dict(self) -> dict[str, torch.Tensor]:
        """The state dict of a model that is sharded across GPUs, gathered on the first; all processes call this."""
        state: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model)
        return state

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Does nothing: a card is written when a run is exported."""

    # -- the schedule ---------------------------------------------------------------------------------------------

    def set_learning_rate(self, peak: float) -> None:
        """Change the peak of the learning rate schedule, from the next step on."""
        scheduler: LRScheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        shares = [
            rate / base if base else 1.0 for rate, base in zip(scheduler.get_last_lr(), scheduler.base_lrs, strict=True)
        ]
        rates = [peak * share for share in shares]
        scheduler.base_lrs, scheduler._last_lr = [peak] * len(shares), rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["initial_lr"], group["lr"] = peak, rate

    # -- randomness -----------------------------------------------------------------------------------------------

    def step_begins(self) -> None:
        """Called before the first micro-batch of a step."""
        self._step_batches.clear()
        self._window_before = self._window()
        self._in_step = True

    def step_ends(self) -> None:
        """Called after each optimizer step; a checkpoint written during the next step saves the state at this point."""
        self._step_end_state = random_state()
        self._in_step = False

    def _save_rng_state(self, output_dir: str) -> None:
        with self._state_at_step_end():
            super()._save_rng_state(output_dir)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        self._step_end_state = random_state()

    @contextmanager
    def _state_at_step_end(self) -> Iterator[None]:
        """Within, the random number generators are in their states at the end of the last step."""
        now = random_state()
        set_random_state(self._step_end_state)
        try:
            yield
        finally:
            set_random_state(now)

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
        self._tally += torch.stack([outputs.is_top1.sum(), trained, torch.as_tensor(seen, device=trained.device)])
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
        self._router_tally += torch.stack([outputs.aux_loss.detach().float(), torch.ones_like(self._router_tally[0])])
        return loss + (balancing - balancing.detach())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with ``mean_token_accuracy`` since the last point of the loss curve, and ``num_tokens`` in total.

        ``router_aux_loss``: the router's balancing loss, mean over the micro-batches since then, if it is added.
        """
        correct, trained, seen = self.accelerator.reduce(self._tally, reduction="sum").tolist()
        self._tally.zero_()
        self._total_train_tokens += seen
        if self.router_aux_loss:
            balancing, batches = self.accelerator.reduce(self._router_tally, reduction="sum").tolist()
            self._router_tally.zero_()
            if batches:
                logs["router_aux_loss"] = balancing / batches
        if trained:
            logs["mean_token_accuracy"] = correct / trained
        logs["num_tokens"] = self._total_train_tokens
        if self.figure_names:
            *sums, records = self.accelerator.reduce(self._figures, reduction="sum").tolist()
            self._figures.zero_()
            if records:
                logs |= {name: total / records for name, total in zip(self.figure_names, sums, strict=True)}
        super().log(logs, start_time)

    # -- memory ---------------------------------------------------------------------------------------------------

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
        return fullest_micro_batch(self.train_dataset, size, self.args.data_seed, self.micro_batches)

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
            if self._window_before is not None:
                self._tally.copy_(self._window_before.tally)
                self._figures.copy_(self._window_before.figures)
                self._router_tally.copy_(self._window_before.router_tally)
            remaining = list(self._step_batches)

    def _in_parts(self, model: torch.nn.Module, batch: "Batch", items: torch.Tensor | int | None) -> torch.Tensor:
        parts = self._split(batch, self.parts)
        steps = self.current_gradient_accumulation_steps
        self.current_gradient_accumulation_steps = steps * len(parts)
        try:
            with self._computing():
                return sum(super(WorkbenchTrainer, self).training_step(model, part, items) for part in parts)
        finally:
            self.current_gradient_accumulation_steps = steps

    def _split(self, batch: "Batch", parts: int) -> "list[Batch]":
        """Split a batch into at most ``parts`` batches of whole records."""
        split = split_batch(batch, parts)
        if len(split) > 1 and "trained_positions" in batch:
            split = [add_trained_positions(part) for part in split]
        return split

    def _computing(self) -> AbstractContextManager[object]:
        """The context in which steps are computed; compiled layers are active in it, if there are any."""
        stack = ExitStack()
        stack.enter_context(tensor_float())
        if self.compiled is not None:
            stack.enter_context(self.compiled.active())
        return stack

    def dry_step(self, indices: Sequence[int]) -> None:
        """Compute one micro-batch of these records and drop its gradient; leaves the random states unchanged.

        Called when training has begun.
        """
        batch = self.data_collator([self.train_dataset[index] for index in indices])
        tally, figures, router_tally = self._tally.clone(), self._figures.clone(), self._router_tally.clone()
        try:
            with preserved_random_state(), self._computing():
                super().training_step(self.model_wrapped, batch)
        finally:
            self.model_wrapped.zero_grad(set_to_none=True)
            self._tally.copy_(tally)
            self._figures.copy_(figures)
            self._router_tally.copy_(router_tally)

    def _split_further(self, batch: "Batch", problem: str) -> None:
        before, after = (len(self._split(batch, parts)) for parts in (self.parts, self.parts * 2))
        if after == before:
            raise self._out_of_memory_error()
        self.parts *= 2
        free_cached_memory()
        rows = max(self.args.per_device_train_batch_size // self.parts, 1)
        accumulation = self.args.gradient_accumulation_steps * self.parts
        self._warn(
            f"Out of memory at step {self.state.global_step + 1}. The micro-batch is now {rows} and "
            f"the accumulation {accumulation}; the effective batch and its gradient stay the same.",
            kind="out_of_memory",
            micro_batch=rows,
            accumulation=accumulation,
            problem=problem[:300],
        )

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
            self._warn(f"Skipped step {step}: its gradient is {value}.", kind="skipped_step", step=step)
        return norm


@dataclass(frozen=True)
class _Window:
    """Counts since the last point of the loss curve; copied from the device only when they are saved."""

    loss: torch.Tensor
    logged_at: int
    tokens: int
    tally: torch.Tensor
    figures: torch.Tensor
    router_tally: torch.Tensor

    def as_json(self) -> dict[str, object]:
        return {
            "loss": self.loss.item(),
            "logged_at": self.logged_at,
            "tokens": self.tokens,
            "tally": self.tally.tolist(),
            "figures": self.figures.tolist(),
            "router_tally": self.router_tally.tolist(),
        }
