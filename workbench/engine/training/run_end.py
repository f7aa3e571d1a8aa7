"""Ends a run: saves or discards its adapter, and records how and why it ended."""

import traceback
from typing import TYPE_CHECKING

from workbench.engine.model.saving import copy_adapter
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks, is_lost_process
from workbench.engine.storage.disk_full_retry import RetryingJournal
from workbench.engine.training.held_base import HeldBase
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import KIND as UNFORESEEN
from workbench.progress import Progress, Report
from workbench.runs.checkpoints import Checkpoint, remove_checkpoints
from workbench.runs.events import MeasuredPeak, Phase, RunEnded, RunError
from workbench.runs.folder import RunFolder

if TYPE_CHECKING:
    from workbench.engine.training.session.session import Session

# After these errors the weights are still those of the last whole step, so they are saved.
_WEIGHTS_ARE_GOOD = ("nan_loss", "out_of_memory")
# Errors that all processes raise at the same point. After any other error they can no longer wait for each other.
_RAISED_BY_ALL = ("nan_loss",)


class StoppedBeforeFirstStep(Exception):  # noqa: N818  (no error: the user asked for it)
    """The run was stopped before its first step."""


class RunEnd:
    """Ends a run in one of the ways in which it can end.

    Args:
        held: its base, from which its adapter is detached unless it was saved.
        show: called with progress for the engine's status.
        watched: whether an engine watches the processes, and itself records that one died.

    Attributes:
        measured: the measured peak of memory, set when training has ended.
        error: the error that ended the run; None if there was none.
    """

    def __init__(
        self,
        run: RunFolder,
        journal: RetryingJournal,
        controls: Controls,
        ranks: Ranks,
        held: HeldBase,
        show: Report,
        *,
        watched: bool,
    ) -> None:
        self._run = run
        self._journal = journal
        self._controls = controls
        self._ranks = ranks
        self._held = held
        self._show = show
        self._watched = watched
        self.measured: MeasuredPeak | None = None
        self.error: WorkbenchError | None = None

    def finish(self, session: "Session", exit_reason: str) -> None:
        """End a run whose trainer has ended, or was told to: evaluate, and save its adapter.

        Args:
            exit_reason: why the trainer ended early; empty at the planned end.

        Raises:
            StoppedBeforeFirstStep: there is nothing to save.
        """
        if exit_reason == "stopped" and not self._controls.save:
            self._discard(session.step)
            return
        if session.step == 0:
            raise StoppedBeforeFirstStep
        self._show(Progress(phase="saving"))
        self._journal.write(Phase(phase="saving"))
        kept_step = session.step
        if exit_reason == "stopped":
            # A checkpoint, so that the run can be resumed later.
            session.step_controls.save()
            session.settle()
        else:
            session.evaluate(session.step)
            session.settle()
            if session.load_best():
                kept_step = session.best.step
        session.save(self._run.adapter)
        if self._ranks.count == 1:
            assert self._held.base is not None
            self._held.base.prepare_for_chat()
            self._held.base.register_trained(self._run.adapter)
        self._end(exit_reason or "finished", step=session.step, kept_step=kept_step)

    def _discard(self, step: int) -> None:
        self._held.detach_adapter()
        if self._ranks.is_first:
            remove_checkpoints(self._run.checkpoints)
        self._end("discarded", adapter=False, step=step)

    def finish_without_base(self, checkpoint: Checkpoint) -> None:
        """End a run whose memory was released: copy the adapter from its checkpoint."""
        if not self._controls.save:
            self._discard(checkpoint.step)
            return
        if checkpoint.step == 0:
            raise StoppedBeforeFirstStep
        if self._ranks.is_first:
            self._journal.retry_while_full(lambda: copy_adapter(checkpoint.path, self._run.adapter))
        self._end("stopped", step=checkpoint.step, kept_step=checkpoint.step)

    def _end(self, reason: str, *, adapter: bool = True, step: int | None = None, kept_step: int | None = None) -> None:
        self._journal.write(
            RunEnded(
                reason=reason,
                run=self._run.id,
                adapter=str(self._run.adapter) if adapter else None,
                measured=self.measured,
                step=step,
                kept_step=kept_step,
            )
        )

    def fail(self, error: Exception, session: "Session | None", checkpoint: Checkpoint | None) -> bool:
        """Record the error that ended the run; returns whether the processes can still wait for each other.

        Args:
            session: what was training, if it had come to that.
            checkpoint: where the run continued from; None if it started anew.
        """
        was_cancelled = self._controls.local.is_stopped() and getattr(error, "kind", "") == "cancelled"
        if isinstance(error, StoppedBeforeFirstStep) or was_cancelled:
            self._held.detach_adapter()
            self._end_before_first_step(checkpoint)
            return not was_cancelled
        if self._ranks.count > 1 and is_lost_process(error):
            self._record_lost_process(error)
            return False
        self.error = diagnose(error, f"training run {self._run.id}", self._run.log)
        are_in_sync = self._ranks.count == 1 or self.error.kind in _RAISED_BY_ALL
        saved = are_in_sync and self.error.kind in _WEIGHTS_ARE_GOOD and self._save_last_step(session)
        self._held.detach_adapter()
        is_known = isinstance(error, WorkbenchError) and error.kind != UNFORESEEN
        trace = "" if is_known else "".join(traceback.format_exception(error))
        self._journal.write(RunError.of(self.error, trace))
        self._end("error", adapter=saved)
        return are_in_sync

    def _end_before_first_step(self, checkpoint: Checkpoint | None) -> None:
        """End a run that was stopped before it trained a step, perhaps while the base of an earlier one was loaded."""
        if checkpoint is not None and checkpoint.step:
            self.finish_without_base(checkpoint)
        elif self._controls.save:
            self._end("stopped", adapter=False, step=0)
        else:
            self._discard(0)

    def _record_lost_process(self, error: Exception) -> None:
        """Record that another process died, unless the engine records it."""
        self.error = WorkbenchError(
            "Another process of this run ended.", "See the logs, then resume the run.", kind="process_lost"
        )
        if not self._watched:
            trace = "".join(traceback.format_exception(error))
            self._journal.write(RunError.of(self.error, trace))
            self._end("error", adapter=False)

    def _save_last_step(self, session: "Session | None") -> bool:
        """Save a checkpoint and the adapter after the last whole step; returns whether both are saved."""
        if session is None or session.step == 0:
            return False
        try:
            session.step_controls.save()
            session.save(self._run.adapter)
        except Exception:
            traceback.print_exc()
            return False
        return True
