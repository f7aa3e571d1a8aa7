"""Carries out the user's requests and the planned evaluations between two steps of a run, and records them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from transformers import TrainerCallback

from workbench.engine.model.randomness import preserved_random_state
from workbench.engine.steering.controls import Command, Controls, PausedTask
from workbench.engine.storage.disk_full_retry import RetryingJournal
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.progress import Progress, Report
from workbench.runs.checkpoints import Checkpoint
from workbench.runs.events import Checkpoint as CheckpointWritten
from workbench.runs.events import Control, Paused, Resumed

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

ExitReason = Literal["", "stopped", "early_stopping", "released", "max_steps"]
"""Why the trainer's loop was left before its end; after ``released`` and ``max_steps`` it is entered again."""


# Recorded once they are done, unless the run is stopped meanwhile.
_TAKES_TIME = ("checkpoint", "evaluate", "sample")


@dataclass
class RunHooks:
    """What the run does between two steps, as functions.

    Attributes:
        before_first_step: called when the trainer has everything in place, before its first step.
        evaluate: evaluates after this many steps; returns whether to stop early.
        sample: replies to the fixed prompts after this many steps.
        exclude_seconds: called with the seconds that were not training.
        report: called with the progress of what is done between two steps.
        run_task: runs a task with the model as it is, and leaves the model unchanged.
        training_continues: called when training continues, with the steps done and the number of steps.
    """

    before_first_step: Callable[[], None]
    evaluate: Callable[[int], bool]
    sample: Callable[[int], None]
    exclude_seconds: Callable[[float], None]
    report: Report
    run_task: Callable[[PausedTask], None]
    training_continues: Callable[[int, int], None]


class LoopExit(Exception):  # noqa: N818  (not an error: somebody requested it)
    """Leaves the trainer's loop between two micro-batches; the trainer's own way to stop would finish a whole step."""


class StepControls(TrainerCallback):
    """Applies the commands of :class:`Controls` between two steps.

    Attributes:
        trainer: set after construction, since the trainer gets this callback.
        exit_reason: why the loop was left; empty if it was not.
        max_steps: the number of steps requested, for the reason ``max_steps``.
    """

    def __init__(self, journal: RetryingJournal, controls: Controls, hooks: RunHooks, eval_steps: int) -> None:
        self._journal = journal
        self._controls = controls
        self._hooks = hooks
        self._eval_steps = eval_steps
        self._max_steps = 0
        self._checkpoint: Checkpoint | None = None
        self.trainer: WorkbenchTrainer
        self.exit_reason: ExitReason = ""
        self.max_steps = 0

    def start_from(self, checkpoint: Checkpoint | None) -> None:
        """Prepare for the trainer's loop, which starts from a checkpoint or from the beginning."""
        self._checkpoint, self.exit_reason = checkpoint, ""

    # -- the trainer's events -------------------------------------------------------------------------------------

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object
    ) -> None:
        if self._checkpoint is not None:
            self.trainer.restore_extra_state(self._checkpoint.path)
        self._hooks.before_first_step()

    def on_step_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object
    ) -> None:
        # Not at the end of a step, when its own event has not been written yet.
        started = time.monotonic()
        self.trainer.clock.enter("away")
        self._max_steps = state.max_steps
        with preserved_random_state():
            self._evaluate_if_planned(state.global_step)
            self._controls.sync()
            while not self.exit_reason and (command := self._controls.take()):
                self._apply(command, state.global_step)
        self._hooks.exclude_seconds(time.monotonic() - started)
        self.trainer.clock.enter("other")
        self._exit_if_requested()
        self.trainer.step_begins()

    def on_substep_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object
    ) -> None:
        self._exit_if_requested()

    def on_step_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object
    ) -> None:
        self.trainer.clock.enter("other")
        self.trainer.step_ends()

    def on_save(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object) -> None:
        self._record_checkpoint(state.global_step)

    # -- carrying out requests ------------------------------------------------------------------------------------

    def _exit_if_requested(self) -> None:
        if self._controls.sync():
            self.exit_reason = "stopped"
        if self.exit_reason:
            raise LoopExit

    def _evaluate_if_planned(self, step: int) -> None:
        if self._eval_steps and step and step % self._eval_steps == 0:
            self._evaluate(step)
            self._continue_training(step)

    def _continue_training(self, step: int) -> None:
        if not self.exit_reason:
            self._hooks.training_continues(step, self._max_steps)

    def _evaluate(self, step: int) -> None:
        if self._hooks.evaluate(step):
            self.exit_reason = "early_stopping"

    def _apply(self, command: Command, step: int) -> None:
        done = Control(action=command.action, step=step, value=command.value)
        if command.action in _TAKES_TIME:
            self._carry_out(command.action, step)
            if not self._controls.is_stopped():
                self._journal.write(done)
            self._continue_training(step)
            return
        self._journal.write(done)
        match command.action:
            case "pause" if command.release:
                self.exit_reason = "released"
            case "pause":
                self._pause(step)
            case "learning_rate" if command.value is not None:
                self.trainer.set_learning_rate(command.value)
                # A resumed run takes the new rate from this checkpoint.
                self.save()
            case "max_steps" if command.value is not None:
                self.max_steps = int(command.value)
                self.exit_reason = "max_steps"
        self._continue_training(step)

    def _carry_out(self, action: str, step: int) -> None:
        match action:
            case "checkpoint":
                self._hooks.report(Progress(phase="saving", detail="checkpoint"))
                self.save()
            case "evaluate":
                self._evaluate(step)
            case "sample":
                self._hooks.sample(step)

    def _pause(self, step: int) -> None:
        """Wait with the model in memory, and apply all other commands, until a resume or a stop."""
        self._controls.enter_pause("Paused; model kept in memory.")
        try:
            self._journal.write(Paused(step=step, reason=self._controls.paused))
            while not self.exit_reason and (command := self._controls.wait()) and command.action != "resume":
                if command.task is not None:
                    self._hooks.run_task(command.task)
                elif command.action != "pause" or command.release:
                    self._apply(command, step)
        finally:
            self._controls.leave_pause()
        self._journal.write(Resumed(step=step))

    def save(self) -> None:
        """Write a checkpoint of the last whole step, and record it in the journal."""
        if self.trainer.state.global_step:
            self.trainer.checkpoint()
            self._record_checkpoint(self.trainer.state.global_step)

    def _record_checkpoint(self, step: int) -> None:
        self._journal.write(CheckpointWritten(step=step, path=f"{self.trainer.args.output_dir}/checkpoint-{step}"))
