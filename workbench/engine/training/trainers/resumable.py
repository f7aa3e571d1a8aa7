"""TRL's trainer with complete checkpoints, from which a run continues exactly. Imports torch and TRL."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from trl import SFTTrainer

from workbench.data.templates.template import Template
from workbench.engine.kernels.rank_allocation import RankAllocation
from workbench.engine.model.randomness import random_state, set_random_state
from workbench.engine.model.ranked_weights import load_allocation, save_allocation
from workbench.engine.model.saving import load_adapter
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.trainers.loss_counts import LossCounts
from workbench.engine.training.trainers.timed import TimedTrainer
from workbench.runs.checkpoints import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

T = TypeVar("T")
_SCHEDULE = "scheduler.pt"


class RetryWhileFull(Protocol):
    """Calls a function that writes files, again and again while the disk is full; in all processes alike."""

    def __call__(self, work: Callable[[], T]) -> T: ...


def set_rate(group: dict[str, Any], peak: float, rate: float) -> None:
    """Set the learning rate of a group of parameters, and the peak of its schedule."""
    group["initial_lr"] = peak
    if isinstance(group["lr"], torch.Tensor):
        # torchao's optimizers insist on the tensor that they made.
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


class ResumableTrainer(TimedTrainer):
    """Writes checkpoints that are complete adapter folders and hold all state of a run, and continues from them.

    Args:
        ranks: the processes that train this run together.
        template: saved with every checkpoint, so that each is a complete adapter folder.
        retry_while_full: used for everything that writes files.
        saves_only_model: leave optimizer and random states out of the planned checkpoints.
        arguments: those of :class:`TimedTrainer`.
    """

    figure_names: tuple[str, ...] = ()
    """What an objective records of each record beside the loss; logged as means under these names."""

    def __init__(
        self,
        *,
        ranks: Ranks,
        template: Template,
        retry_while_full: RetryWhileFull,
        saves_only_model: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._saves_only_model = saves_only_model
        self._ranks = ranks
        self._template = template
        self._retry_while_full = retry_while_full
        self._checkpoint_limit = self.args.save_total_limit
        # Since the last point of the loss curve.
        self.counts = LossCounts(self.figure_names, self.args.device)
        self._step_end_state = random_state()
        self._in_step = False
        self._step_start: _Window | None = None
        self._output_dir: Path | None = None
        self._allocation: RankAllocation | None = None

    def allocate_ranks(self, allocation: RankAllocation) -> None:
        """Let the ranks of the adapter change during the run; called before training."""
        self._allocation = allocation
        self.add_callback(allocation)
        allocation.with_orthogonality(self)

    # -- writing --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Write a complete checkpoint of the last whole optimizer step now."""
        return self._write(self.model_wrapped)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        """Write a planned checkpoint, without optimizer and random states if the recipe wants the weights only."""
        self.args.save_only_model = self._saves_only_model
        try:
            self._write(model)
        finally:
            self.args.save_only_model = False

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
            if self.args.save_only_model and self.args.should_save:
                # Small, and with it the learning rate continues where it was.
                torch.save(self.lr_scheduler.state_dict(), folder / _SCHEDULE)
            self._state_file(folder).write_text(json.dumps(self.extra_state()), encoding="utf-8")
            if self._allocation is not None and self._ranks.is_first:
                save_allocation(self._allocation, self.model, folder)
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

    def extra_state(self) -> dict[str, Any]:
        """State that transformers does not save: what was counted since the last point of the loss curve."""
        return (self._step_start if self._in_step and self._step_start else self._window()).as_json()

    def _window(self) -> "_Window":
        return _Window(
            self._tr_loss.clone(), self._globalstep_last_logged, self._total_train_tokens, self.counts.copy()
        )

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on up to the last point of the loss curve, without padding."""
        return int(self._total_train_tokens)

    def restore_extra_state(self, checkpoint: Path) -> None:
        """Restore from a checkpoint what :meth:`extra_state` returned; called when training has begun."""
        file = self._state_file(checkpoint)
        is_own = file.is_file()
        if not is_own:
            # Written by fewer processes: the first one's file has the totals.
            file = checkpoint / "workbench.json"
        self.take_extra_state(json.loads(file.read_text(encoding="utf-8")), is_own=is_own)

    def take_extra_state(self, state: Mapping[str, Any], *, is_own: bool) -> None:
        """Continue with the state that a checkpoint has.

        Args:
            is_own: whether this process wrote it; else its counts are another process's.
        """
        self._tr_loss += state["loss"]
        self._globalstep_last_logged = state["logged_at"]
        self._total_train_tokens = state["tokens"]
        if is_own:
            self.counts.add_json(state)

    # -- continuing -----------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        if self._allocation is not None:
            load_allocation(self._allocation, self.model, Path(resume_from_checkpoint))
            return
        # PEFT's own loading may change the dtype of the weights.
        load_adapter(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        file, schedule = Path(checkpoint) / "optimizer.pt", Path(checkpoint) / _SCHEDULE
        if file.is_file():
            self._restore_dtypes(file)
        elif schedule.is_file():
            self._restore_schedule(schedule)

    def _restore_schedule(self, file: Path) -> None:
        """Restore the learning rates of a checkpoint without optimizer state, whose optimizer starts anew."""
        scheduler: LRScheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        scheduler.load_state_dict(torch.load(file, weights_only=True))
        rates = zip(scheduler.base_lrs, scheduler.get_last_lr(), strict=True)
        for group, (peak, rate) in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, float(peak), float(rate))

    def _restore_dtypes(self, file: Path) -> None:
        """Restore the dtypes of optimizer state that PyTorch cast to its parameter's, such as Adafactor's float32.

        LoRA-FA's, which it keeps by name, PyTorch leaves on the CPU.
        """
        for key, state in self.optimizer.state.items():
            if isinstance(key, str):
                state |= {name: value.to(self.args.device) for name, value in state.items() if torch.is_tensor(value)}
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

    # -- randomness -----------------------------------------------------------------------------------------------

    def step_begins(self) -> None:
        """Called before the first micro-batch of a step."""
        self._step_start = self._window()
        self._in_step = True

    def step_ends(self) -> None:
        """Called after each optimizer step; a checkpoint written during the next step saves the state at this point."""
        self._step_end_state = random_state()
        self._in_step = False

    def forget_step(self) -> None:
        """Drop what the current step has counted so far: it starts over."""
        if self._step_start is not None:
            self.counts.set(self._step_start.counts)

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


@dataclass(frozen=True)
class _Window:
    """What was counted since the last point of the loss curve; copied from the device only when it is saved."""

    loss: torch.Tensor
    logged_at: int
    tokens: int
    counts: LossCounts

    def as_json(self) -> dict[str, Any]:
        return {
            "loss": self.loss.item(),
            "logged_at": self.logged_at,
            "tokens": self.tokens,
            **self.counts.as_json(),
        }
