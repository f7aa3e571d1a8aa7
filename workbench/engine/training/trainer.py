"""TRL's trainer with what an unattended run needs: whole checkpoints, exact resume, smaller parts when memory ends.

Imports torch and TRL: only for the process that trains.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from trl import SFTTrainer

from workbench.data.templates.template import Template
from workbench.engine.batches.oom_split import is_out_of_memory
from workbench.engine.batches.order import fullest_micro_batch
from workbench.engine.batches.parts import split_batch
from workbench.engine.kernels.loss_head import add_fused_head
from workbench.engine.kernels.padding_free import TrainedTokensCollator, add_trained_positions
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.precision import tensor_float
from workbench.engine.model.randomness import preserved_random_state, random_state, set_random_state
from workbench.engine.model.saving import load_adapter
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.timed_trainer import TimedTrainer
from workbench.errors import WorkbenchError
from workbench.runs.checkpoints import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from workbench.engine.kernels.compiled_layers import CompiledLayers


class WorkbenchTrainer(TimedTrainer):
    """Trains one run; see :class:`~workbench.engine.training.training.Training` for its whole.

    Args:
        ranks: the processes that train this run together.
        template: saved with every checkpoint, so that each is an adapter folder like any other.
        retry_while_full: calls a function that writes, again and again while the disk is full; in all processes alike.
        skip_non_finite: leave a step out whose gradient is infinite or no number, instead of raising.
        warn: told in words, and with fields for the journal, what was done about a step.
        out_of_memory_error: the error for a step that does not fit in memory at a micro-batch of one record.
        padding_free: the model takes batches that :mod:`workbench.engine.kernels.padding_free` lays out.
    """

    def __init__(
        self,
        *,
        ranks: Ranks,
        template: Template,
        retry_while_full: Callable[[Callable[[], Any]], Any],
        skip_non_finite: bool,
        warn: Callable[..., None],
        out_of_memory_error: Callable[[], WorkbenchError],
        padding_free: bool,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if padding_free:
            self.data_collator = TrainedTokensCollator(pad_token_id=self._tokenizer.pad_token_id, padding_free=True)
        add_fused_head(self.model.get_base_model())
        self._ranks = ranks
        self._template = template
        self._retry_while_full = retry_while_full
        self._skip_non_finite = skip_non_finite
        self._warn = warn
        self._no_room = out_of_memory_error
        self._keep = self.args.save_total_limit
        self.compiled: CompiledLayers | None = None
        # Into how many parts each micro-batch is cut; grows when memory ends.
        self.parts = 1
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        self._fed: list[Any] = []
        # Since the last point of the curve, on the device: tokens guessed right, tokens trained, tokens fed.
        self._tally = torch.zeros(3, dtype=torch.long, device=self.args.device)
        self._step_end_state = random_state()
        self._in_step = False
        self._window_before: _Window | None = None
        self._folder: Path | None = None

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Write one of the last whole optimizer step, now."""
        return self._write(self.model_wrapped)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._write(model)

    def _write(self, model: Any) -> Checkpoint:
        def write() -> Checkpoint:
            return write_checkpoint(
                Path(self.args.output_dir),
                self.state.global_step,
                lambda folder: self._fill(model, folder),
                self._keep,
                leads=self._ranks.is_first,
                together=self._ranks.run_on_all,
            )

        checkpoint: Checkpoint = self._retry_while_full(write)
        return checkpoint

    def _fill(self, model: Any, folder: Path) -> None:
        self._folder = folder.parent
        try:
            super(SFTTrainer, self)._save_checkpoint(model, None)
            self._own_file(folder).write_text(json.dumps(self._own_state()), encoding="utf-8")
        finally:
            self._folder = None

    def _own_file(self, folder: Path) -> Path:
        return folder / ("workbench.json" if self._ranks.is_first else f"workbench_{self._ranks.index}.json")

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._folder or super()._get_output_dir(trial))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        # A pickle that nothing here ever reads.
        (folder / "training_args.bin").unlink(missing_ok=True)
        self._template.save(folder)

    def _own_state(self) -> dict[str, Any]:
        """What the trainer forgets: the loss since the last point of the curve, tokens seen, parts of a batch."""
        window = self._window_before if self._in_step and self._window_before else self._window()
        return {**window.as_json(), "parts": self.parts}

    def _window(self) -> "_Window":
        return _Window(
            self._tr_loss.clone(), self._globalstep_last_logged, self._total_train_tokens, self._tally.clone()
        )

    @property
    def tokens_seen(self) -> int:
        """Tokens fed up to the last point of the curve, padding left out."""
        return int(self._total_train_tokens)

    def restore_window(self, checkpoint: Path) -> None:
        """Take up the curve where a checkpoint left it; called when training has begun."""
        file = self._own_file(checkpoint)
        has_own = file.is_file()
        if not has_own:
            # Written by fewer processes: what they had counted is told by the first.
            file = checkpoint / "workbench.json"
        state = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss += state["loss"]
        self._globalstep_last_logged = state["logged_at"]
        self._total_train_tokens = state["tokens"]
        if has_own:
            self._tally += torch.tensor(state.get("tally", (0, 0, 0)), device=self._tally.device)
        self.parts = state["parts"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # PEFT's own loading may change the type of the weights.
        load_adapter(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self._restore_types(Path(checkpoint) / "optimizer.pt")

    def _restore_types(self, file: Path) -> None:
        """Bring state that PyTorch cast to its parameter's type back to its own, as Adafactor keeps float32."""
        saved = torch.load(file, map_location="cpu", weights_only=True)["state"]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            state = self.optimizer.state[parameter]
            for name, value in saved.get(index, {}).items():
                if torch.is_tensor(value) and state[name].dtype != value.dtype:
                    state[name] = value.to(state[name].device)

    def whole_weights(self) -> Any:
        """The state of a model whose parts lie on several GPUs, gathered on the first; all processes call this."""
        return self.accelerator.get_state_dict(self.model)

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """None: a card is written when a run is exported."""

    # -- the schedule ---------------------------------------------------------------------------------------------

    def set_learning_rate(self, peak: float) -> None:
        """Make the schedule fall from (or stay at) another peak; from the next step on."""
        scheduler: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        shares = [
            rate / base if base else 1.0 for rate, base in zip(scheduler.get_last_lr(), scheduler.base_lrs, strict=True)
        ]
        rates = [peak * share for share in shares]
        scheduler.base_lrs, scheduler._last_lr = [peak] * len(shares), rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["initial_lr"], group["lr"] = peak, rate

    # -- randomness -----------------------------------------------------------------------------------------------

    def step_begins(self) -> None:
        """To be called before the first micro-batch of a step."""
        self._fed.clear()
        self._window_before = self._window()
        self._in_step = True

    def step_ends(self) -> None:
        """To be called after each optimizer step: a checkpoint before the next one's end goes back to here."""
        self._step_end_state = random_state()
        self._in_step = False

    def _save_rng_state(self, output_dir: str) -> None:
        with self._at_step_end():
            super()._save_rng_state(output_dir)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        self._step_end_state = random_state()

    @contextmanager
    def _at_step_end(self) -> Iterator[None]:
        now = random_state()
        set_random_state(self._step_end_state)
        try:
            yield
        finally:
            set_random_state(now)

    # -- loss -----------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's negative log-likelihood, to the bit. TRL reads three figures back from the device after each
        micro-batch, which lets a GPU run dry; here they are counted where they are made.
        """
        router = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = model(**inputs, **router, use_cache=False, fused_lm_head=True)
        trained = outputs.label_mask.sum()
        items = trained if num_items_in_batch is None else num_items_in_batch
        loss = (-outputs.log_probs).sum() / torch.as_tensor(items).clamp(min=1)
        is_shared = self.args.average_tokens_across_devices and num_items_in_batch is not None
        if is_shared:
            # The items are those of all processes, and gradients are averaged over them.
            loss = loss * self.accelerator.num_processes
        if self.aux_loss_enabled:
            steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / steps
        mask = inputs.get("attention_mask")
        fed = inputs["input_ids"].numel() if mask is None else mask.sum()
        self._tally += torch.stack([outputs.is_top1.sum(), trained, torch.as_tensor(fed, device=trained.device)])
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the trainer's, with ``mean_token_accuracy`` since the last point of the curve, ``num_tokens`` in all."""
        right, trained, fed = self.accelerator.reduce(self._tally, reduction="sum").tolist()
        self._tally.zero_()
        self._total_train_tokens += fed
        if trained:
            logs["mean_token_accuracy"] = right / trained
        logs["num_tokens"] = self._total_train_tokens
        super().log(logs, start_time)

    # -- memory ---------------------------------------------------------------------------------------------------

    @property
    def micro_batches(self) -> int:
        """How many the whole run has, in all its processes."""
        arguments = self.args
        if arguments.max_steps > 0:
            return int(arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size)
        in_epoch = -(-len(self.train_dataset) // int(arguments.per_device_train_batch_size))
        return math.ceil(float(arguments.num_train_epochs) * in_epoch)

    def fullest_micro_batch(self) -> int | None:
        """Tokens of the fullest micro-batch that will come; None where batches are padded."""
        if not isinstance(self.data_collator, TrainedTokensCollator):
            return None
        size = self.args.per_device_train_batch_size
        return fullest_micro_batch(self.train_dataset, size, self.args.data_seed, self.micro_batches)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """As TRL's; a step that does not fit in memory begins anew with each micro-batch in twice as many parts.

        The loss of a part is divided by the tokens of the whole optimizer step, so that the gradient stays the same.
        """
        self._fed.append(inputs)
        todo = [inputs]
        while True:
            problem = None
            try:
                for batch in todo:
                    loss = self._in_parts(model, batch, num_items_in_batch)
                return loss
            except Exception as error:
                if self.args.world_size > 1 or not is_out_of_memory(error):
                    raise
                # What the frames of the traceback hold is freed with it, at the end of this block.
                problem = str(error)
            self._make_parts_smaller(batch, problem)
            model.zero_grad(set_to_none=True)
            if self._window_before is not None:
                self._tally.copy_(self._window_before.tally)
            todo = list(self._fed)

    def _in_parts(self, model: Any, batch: Any, items: Any) -> Any:
        parts = split_batch(batch, self.parts)
        if len(parts) > 1 and "trained_positions" in batch:
            parts = [add_trained_positions(part) for part in parts]
        steps = self.current_gradient_accumulation_steps
        self.current_gradient_accumulation_steps = steps * len(parts)
        try:
            with tensor_float(), self._at_work():
                return sum(super(WorkbenchTrainer, self).training_step(model, part, items) for part in parts)
        finally:
            self.current_gradient_accumulation_steps = steps

    def _at_work(self) -> AbstractContextManager[None]:
        """What a step is computed in: by compiled layers, where there are any."""
        return self.compiled.active() if self.compiled is not None else nullcontext()

    def dry_step(self, places: Sequence[int]) -> None:
        """Compute one micro-batch of the records at these places and drop its gradient; no random number is used up.

        Called when training has begun.
        """
        batch = self.data_collator([self.train_dataset[place] for place in places])
        tally = self._tally.clone()
        try:
            with preserved_random_state(), tensor_float(), self._at_work():
                super().training_step(self.model_wrapped, batch)
        finally:
            self.model_wrapped.zero_grad(set_to_none=True)
            self._tally.copy_(tally)

    def _make_parts_smaller(self, batch: Any, problem: str) -> None:
        before = len(split_batch(batch, self.parts))
        after = len(split_batch(batch, self.parts * 2))
        if after == before:
            raise self._no_room()
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

    # -- numbers that are none ------------------------------------------------------------------------------------

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """As the trainer's; asked just before the optimizer steps, so that a bad gradient never reaches the weights."""
        norm = super()._get_grad_norm(model, grad_norm)
        # A loss scaler meets infinite gradients all the time and leaves their steps out itself.
        if getattr(self.accelerator, "scaler", None) is None and not bool(torch.isfinite(torch.as_tensor(norm))):
            step = self.state.global_step + 1
            if not self._skip_non_finite:
                raise WorkbenchError(
                    f"Loss or gradient became {float(norm)} in step {step}.",
                    "Lower training.learning_rate (try a tenth), or use bfloat16 instead of float16; "
                    "training.non_finite: skip skips such steps.",
                    kind="nan_loss",
                )
            for parameter in model.parameters():
                parameter.grad = None
            self._warn(f"Skipped step {step}: its gradient is {float(norm)}.", kind="skipped_step", step=step)
        return norm


@dataclass(frozen=True)
class _Window:
    """What was counted since the last point of the curve; read back from the device only where it is written down."""

    loss: torch.Tensor
    logged_at: int
    tokens: int
    tally: torch.Tensor

    def as_json(self) -> dict[str, Any]:
        return {
            "loss": self.loss.item(),
            "logged_at": self.logged_at,
            "tokens": self.tokens,
            "tally": self.tally.tolist(),
        }
