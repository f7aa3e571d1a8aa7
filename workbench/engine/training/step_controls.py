"""Between two steps of a run: what the user asked for is done, what the recipe plans is done, and both are told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from transformers import TrainerCallback

from workbench.engine.model.randomness import preserved_random_state
from workbench.engine.steering.controls import Command, Controls, PausedTask
from workbench.engine.storage.disk_full_retry import RetryingJournal
from workbench.engine.training.trainer import WorkbenchTrainer
from workbench.runs.checkpoints import Checkpoint
from workbench.runs.events import Checkpoint as CheckpointWritten
from workbench.runs.events import Control, Paused, Resumed

# Why the trainer's loop was left before its end: for good, or to be entered again.
ExitReason = Literal["", "stopped", "early_stopping", "released", "max_steps"]


@dataclass
class RunHooks:
    """What the conductor has others do, each between two steps.

    Attributes:
        begin: done when the trainer has everything in place, before its first step.
        evaluate: evaluates after this many steps; returns whether the run has stopped getting better.
        sample: answers the fixed prompts after this many steps.
        away: told the seconds that were no training.
        answer: runs an errand on the model as it is, and leaves it as it was.
        train_on: tells that training goes on after this many steps of so many.
    """

    begin: Callable[[], None]
    evaluate: Callable[[int], bool]
    sample: Callable[[int], None]
    away: Callable[[float], None]
    answer: Callable[[PausedTask], None]
    train_on: Callable[[int, int], None]


class LoopExit(Exception):  # noqa: N818  (no error: somebody asked for it)
    """The trainer's loop was left before its end. Its own way to stop would finish a whole step first."""


class StepControls(TrainerCallback):
    """Obeys :class:`Controls`. ``leaving`` says why the loop was left, ``max_steps`` the number asked for then."""

    def __init__(self, journal: RetryingJournal, controls: Controls, duties: RunHooks, eval_steps: int) -> None:
        self._journal = journal
        self._controls = controls
        self._duties = duties
        self._eval_steps = eval_steps
        self._max_steps = 0
        self._from: Checkpoint | None = None
        self.trainer: WorkbenchTrainer
        self.leaving: ExitReason = ""
        self.max_steps = 0

    def begins_from(self, checkpoint: Checkpoint | None) -> None:
        """The trainer's loop is about to be entered."""
        self._from, self.leaving = checkpoint, ""

    # -- the trainer's events -------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._from is not None:
            self.trainer.restore_window(self._from.path)
        self._duties.begin()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Here and not at a step's end, where its own event is still to come.
        started = time.monotonic()
        self.trainer.clock.enter("away")
        self._max_steps = state.max_steps
        with preserved_random_state():
            self._planned(state.global_step)
            self._controls.sync()
            while not self.leaving and (command := self._controls.take()):
                self._obey(command, state.global_step)
        self._duties.away(time.monotonic() - started)
        self.trainer.clock.enter("other")
        self._leave_if_asked()
        self.trainer.step_begins()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._leave_if_asked()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.clock.enter("other")
        self.trainer.step_ends()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell_checkpoint(state.global_step)

    # -- what is done ---------------------------------------------------------------------------------------------

    def _leave_if_asked(self) -> None:
        if self._controls.sync():
            self.leaving = "stopped"
        if self.leaving:
            raise LoopExit

    def _planned(self, step: int) -> None:
        if self._eval_steps and step and step % self._eval_steps == 0:
            self._evaluate(step)
            self._train_on(step)

    def _train_on(self, step: int) -> None:
        if not self.leaving:
            self._duties.train_on(step, self._max_steps)

    def _evaluate(self, step: int) -> None:
        if self._duties.evaluate(step):
            self.leaving = "early_stopping"

    def _obey(self, command: Command, step: int) -> None:
        self._journal.write(Control(action=command.action, step=step, value=command.value))
        match command.action:
            case "pause" if command.release:
                self.leaving = "released"
            case "pause":
                self._pause(step)
            case "checkpoint":
                self.save()
            case "evaluate":
                self._evaluate(step)
            case "sample":
                self._duties.sample(step)
            case "learning_rate" if command.value is not None:
                self.trainer.set_learning_rate(command.value)
                # A run that is resumed later takes the new rate from here.
                self.save()
            case "max_steps" if command.value is not None:
                self.max_steps = int(command.value)
                self.leaving = "max_steps"
        self._train_on(step)

    def _pause(self, step: int) -> None:
        """Stand still, the model in memory, and obey everything else meanwhile, until told to go on or to stop."""
        self._controls.enter_pause("Paused; model kept in memory.")
        try:
            self._journal.write(Paused(step=step, reason=self._controls.paused))
            while not self.leaving and (command := self._controls.wait()) and command.action != "resume":
                if command.task is not None:
                    self._duties.answer(command.task)
                elif command.action != "pause" or command.release:
                    self._obey(command, step)
        finally:
            self._controls.leave_pause()
        self._journal.write(Resumed(step=step))

    def save(self) -> None:
        """Write a checkpoint of the last whole step, and tell it."""
        if self.trainer.state.global_step:
            self.trainer.checkpoint()
            self._tell_checkpoint(self.trainer.state.global_step)

    def _tell_checkpoint(self, step: int) -> None:
        self._journal.write(CheckpointWritten(step=step, path=f"{self.trainer.args.output_dir}/checkpoint-{step}"))
