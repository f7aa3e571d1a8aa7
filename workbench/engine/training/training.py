"""One run from its recipe to its adapter, told step by step to its journal.

:class:`Training` runs in the thread that calls it; the engine's is :mod:`workbench.engine.training.thread`.
"""

import hashlib
import time
import traceback
from typing import TYPE_CHECKING

import psutil

from workbench import __version__
from workbench.data.encode import EncodedData
from workbench.engine.kernels.fused import check_device
from workbench.engine.metrics.peak_memory import PeakMeter
from workbench.engine.model.base import LoadedBase, load_base
from workbench.engine.model.hardware import free_cached_memory, hardware_facts, library_versions
from workbench.engine.model.libraries import import_libraries, restore_default_dtype
from workbench.engine.model.saving import copy_adapter
from workbench.engine.steering.controls import Command, Controls
from workbench.engine.steering.ranks import ALONE, Ranks, is_lost_process
from workbench.engine.steering.synced_controls import SyncedControls
from workbench.engine.storage.disk_full_retry import RetryingJournal, SilentJournal
from workbench.engine.storage.room import check_disk
from workbench.engine.training.tokenizing import Tokenising
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import KIND as UNFORESEEN
from workbench.models.sources import fetch_model
from workbench.progress import Progress
from workbench.recipe.fused_kernels import check_kernels
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.recipe.trackers import check_reporters
from workbench.runs.checkpoints import Checkpoint, newest_whole, remove_checkpoints
from workbench.runs.events import (
    FORMAT,
    Paused,
    Phase,
    Resumed,
    RunEnded,
    RunError,
    RunResumed,
    RunStarted,
    RunWarning,
)
from workbench.runs.folder import RunFolder
from workbench.runs.history import read_history
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.engine.training.session import Session

# After these the weights are still those of the last whole step, and worth keeping.
_WEIGHTS_ARE_GOOD = ("nan_loss", "out_of_memory")
# Of several processes, all see these at the same place; with anything else they can no longer wait for each other.
_MET_BY_ALL = ("nan_loss",)


class Training:
    """Trains one run.

    Args:
        base: a base already in memory; used when it is the one the recipe asks for, else it is given up first.
        resume: go on from the newest whole checkpoint, or from the start where there is none.
        ranks: the processes that train this run together, each with a Training of its own; the first one keeps the
            journal and hears the controls.
        watched: somebody outside tells the journal of a process that died.

    After :meth:`run`: ``base`` is the model in memory with the trained adapter on it (None when loading failed),
    ``error`` what ended the run early (None when nothing did).
    """

    def __init__(
        self,
        home: Home,
        run: RunFolder,
        recipe: Recipe,
        base: LoadedBase | None = None,
        *,
        resume: bool = False,
        controls: Controls | None = None,
        ranks: Ranks = ALONE,
        watched: bool = False,
    ) -> None:
        self.home = home
        self.run_folder = run
        self.recipe = recipe
        self.base = base
        self.ranks = ranks
        self.controls = controls or (Controls() if ranks.count == 1 else SyncedControls(ranks))
        self.error: WorkbenchError | None = None
        self.progress: Progress | None = None
        self._resume = resume
        self._watched = watched
        self._journal: RetryingJournal
        self._session: Session | None = None
        self._measured: dict[str, int | None] | None = None
        self._reported = ("", 0.0)

    def run(self) -> None:
        """Train. Nothing is raised; the journal tells all."""
        try:
            with self._open_journal() as self._journal:
                are_together = True
                try:
                    self._run()
                except Exception as error:
                    are_together = self._fail(error)
                if self._session is not None:
                    self._session.close()
                if are_together:
                    # The launcher ends those that are left when one ends badly; the first may still be writing.
                    self.ranks.wait_for_all()
        except Exception as error:
            # The journal itself cannot be written: the log is all that is left to tell it.
            self.error = diagnose(error, "writing the run's journal", self.run_folder.log)
            traceback.print_exc()
        finally:
            self._session = None

    def _open_journal(self) -> RetryingJournal:
        if self.ranks.is_first:
            return RetryingJournal(self.run_folder.journal, self.controls.local)
        return SilentJournal()

    # -- the run's course -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        checkpoint = self.ranks.broadcast(self._begin() if self.ranks.is_first else None)
        check_disk(self.run_folder.path)
        if self.ranks.is_first:
            check_reporters(self.recipe.training.report_to)
            check_kernels(self.recipe.training.kernels)
        while True:
            session = self._prepare(checkpoint)
            if not self._is_past(checkpoint):
                session.evaluate(0)
            self._raise_if_stopped()
            meter = PeakMeter()
            leaving = session.train(checkpoint)
            self._measured = meter.read()
            if leaving != "released":
                break
            checkpoint = session.trainer.checkpoint()
            session.close()
            session = self._session = None  # type: ignore[assignment]
            if not self._wait_released(checkpoint):
                self._finish_from(checkpoint)
                return
        self._finish(session, leaving)

    def _begin(self) -> Checkpoint | None:
        """Write how the run begins; returns the checkpoint it goes on from."""
        process = psutil.Process()
        versions = {"loraworkbench": __version__, **library_versions()}
        if self._resume and self._journal.is_continued:
            checkpoint, damaged = newest_whole(self.run_folder.checkpoints)
            self._journal.write(
                RunResumed(
                    run=self.run_folder.id,
                    step=checkpoint.step if checkpoint else 0,
                    checkpoint=str(checkpoint.path) if checkpoint else None,
                    versions=versions,
                    pid=process.pid,
                    process_started=process.create_time(),
                    format=FORMAT,
                )
            )
            for problem in damaged:
                self._warn(f"{problem}. Using the previous one.", kind="checkpoint")
            return checkpoint
        self._journal.write(
            RunStarted(
                run=self.run_folder.id,
                model=self.recipe.model.source,
                recipe_hash=hashlib.sha256(to_yaml(self.recipe).encode()).hexdigest(),
                recipe=self.recipe.as_dict(),
                versions=versions,
                hardware=hardware_facts(),
                pid=process.pid,
                process_started=process.create_time(),
                format=FORMAT,
            )
        )
        return None

    @staticmethod
    def _is_past(checkpoint: Checkpoint | None) -> bool:
        return checkpoint is not None and checkpoint.step > 0

    def _have_base(self, tokenising: Tokenising) -> None:
        """Load the base if it is not in memory; the records are tokenised beside it."""
        if self.base is not None and not self._can_use(self.base):
            self.base = None
            free_cached_memory()
        if self.base is None:
            if self.ranks.count > 1:
                self.ranks.first_before_others(self._fetch)
            self.base = load_base(
                self.home,
                self.recipe.model,
                self.recipe.quantization,
                self._report,
                self.controls.local.is_stopped,
                tokenising.begin,
            )
            self._journal.write(Phase(phase="loading", fraction=1.0, detail=self.base.description))
        self._raise_if_stopped()

    def _fetch(self) -> None:
        """Several processes must not download or convert the same model at once."""
        fetch_model(self.home, self.recipe.model, self._report, self.controls.local.is_stopped)

    def _can_use(self, base: LoadedBase) -> bool:
        return base.is_unchanged and base.matches(self.recipe.model, self.recipe.quantization)

    def _prepare(self, checkpoint: Checkpoint | None) -> "Session":
        if self.base is None:
            # Before the records are opened, which may want one of them.
            self._report(Progress(phase="loading", detail="importing libraries"))
            import_libraries()
        check_device(self.recipe.training.kernels)
        tokenising = Tokenising(self.home, self.recipe.data, self.ranks, self.controls.local.is_stopped)
        try:
            self._have_base(tokenising)
            data = self._tokens(tokenising)
        finally:
            tokenising.abandon()
        if found := restore_default_dtype():
            message = f"Loading the model left PyTorch's default dtype at {found}; it is reset to float32."
            self._warn(message, kind="default_dtype")
        self._raise_if_stopped()
        # Not before the base is loaded: half-made libraries would be met, which another thread is still importing.
        from workbench.engine.training.choice import choose
        from workbench.engine.training.session import Context, Session

        assert self.base is not None
        step = checkpoint.step if checkpoint else 0
        history = self.ranks.broadcast(read_history(self.run_folder.journal, step) if self.ranks.is_first else None)
        assert history is not None
        choice = choose(self.home, self.recipe, self.base, data.facts, self.ranks, history.chosen)
        context = Context(
            self.home,
            self.run_folder,
            choice.recipe,
            self._journal,
            self.controls,
            self._report,
            self._show,
            self.ranks,
        )
        self._session = Session(context, self.base, data, history, choice)
        return self._session

    def _tokens(self, tokenising: Tokenising) -> EncodedData:
        assert self.base is not None
        data = tokenising.result(self.base.tokenizer, self._report)
        for question in data.facts.questions:
            self._warn(question)
        for notice in data.notices:
            self._warn(notice)
        detail = "cached tokens" if data.was_kept else ""
        self._journal.write(Phase(phase="tokenising", fraction=1.0, detail=detail, counts=data.counts))
        return data

    def _wait_released(self, checkpoint: Checkpoint) -> bool:
        """Give the memory back and wait; returns whether to go on."""
        self.base = None
        free_cached_memory()
        later: list[Command] = []
        self.controls.paused = "Paused; GPU memory released."
        self._journal.write(Paused(step=checkpoint.step, reason=self.controls.paused, release=True))
        while (command := self.controls.wait()) and command.action != "resume":
            if command.action != "pause":
                later.append(command)
        self.controls.paused = ""
        if self.controls.is_stopped():
            return False
        for command in later:
            self.controls.send(command)
        self._journal.write(Resumed(step=checkpoint.step))
        return True

    # -- the run's end --------------------------------------------------------------------------------------------

    def _finish(self, session: "Session", leaving: str) -> None:
        assert self.base is not None
        if leaving == "stopped" and not self.controls.save:
            self._discard(session.step)
            return
        if session.step == 0:
            raise StoppedBeforeFirstStep
        self.progress = Progress(phase="saving")
        self._journal.write(Phase(phase="saving"))
        kept = session.step
        if leaving == "stopped":
            # All of it, so that the run may go on another day.
            session.conductor.save()
        else:
            session.evaluate(session.step)
            if session.load_best():
                kept = session.best.step
        session.save(self.run_folder.adapter)
        if self.ranks.count == 1:
            self.base.prepare_for_chat()
            self.base.register_trained(self.run_folder.adapter)
        self._end(leaving or "finished", step=session.step, kept_step=kept)

    def _discard(self, step: int) -> None:
        self._take_adapter_off()
        if self.ranks.is_first:
            remove_checkpoints(self.run_folder.checkpoints)
        self._end("discarded", adapter=False, step=step)

    def _finish_from(self, checkpoint: Checkpoint) -> None:
        """End a run whose model is no longer in memory."""
        if not self.controls.save:
            self._discard(checkpoint.step)
            return
        if self.ranks.is_first:
            self._journal.retry_while_full(lambda: copy_adapter(checkpoint.path, self.run_folder.adapter))
        self._end("stopped", step=checkpoint.step, kept_step=checkpoint.step)

    def _end(self, reason: str, *, adapter: bool = True, step: int | None = None, kept_step: int | None = None) -> None:
        self._journal.write(
            RunEnded(
                reason=reason,
                run=self.run_folder.id,
                adapter=str(self.run_folder.adapter) if adapter else None,
                measured=self._measured,
                step=step,
                kept_step=kept_step,
            )
        )

    def _warn(self, message: str, *, kind: str = "") -> None:
        self._journal.write(RunWarning(message=message, kind=kind))

    def _fail(self, error: Exception) -> bool:
        """Tell what ended the run early; returns whether all its processes have met it at the same place."""
        was_cancelled = self.controls.local.is_stopped() and getattr(error, "kind", "") == "cancelled"
        if isinstance(error, StoppedBeforeFirstStep) or was_cancelled:
            self._take_adapter_off()
            self._end("stopped", adapter=False, step=0)
            return not was_cancelled
        if self.ranks.count > 1 and is_lost_process(error):
            self._lose_process(error)
            return False
        self.error = diagnose(error, f"training run {self.run_folder.id}", self.run_folder.log)
        are_together = self.ranks.count == 1 or self.error.kind in _MET_BY_ALL
        saved = are_together and self.error.kind in _WEIGHTS_ARE_GOOD and self._save_what_is_good()
        self._take_adapter_off()
        is_known = isinstance(error, WorkbenchError) and error.kind != UNFORESEEN
        trace = "" if is_known else "".join(traceback.format_exception(error))
        self._journal.write(RunError(**self.error.as_json(), traceback=trace))
        self._end("error", adapter=saved)
        return are_together

    def _lose_process(self, error: Exception) -> None:
        self.error = WorkbenchError(
            "Another process of this run ended.", "See the logs, then resume the run.", kind="process_lost"
        )
        if not self._watched:
            trace = "".join(traceback.format_exception(error))
            self._journal.write(RunError(**self.error.as_json(), traceback=trace))
            self._end("error", adapter=False)

    def _save_what_is_good(self) -> bool:
        """Keep checkpoint and adapter of the last whole step; returns whether there is one."""
        session = self._session
        if session is None or session.step == 0:
            return False
        try:
            session.conductor.save()
            session.save(self.run_folder.adapter)
        except Exception:
            traceback.print_exc()
            return False
        return True

    def _take_adapter_off(self) -> None:
        """Make the base fit for the next run; one that is broken (a GPU that gave up) is given up too."""
        # Of several processes none answers later.
        if self.base is None or self.ranks.count > 1:
            return
        try:
            self.base.prepare_for_chat()
            self.base.detach_all()
        except Exception:
            traceback.print_exc()
            self.base = None

    def _raise_if_stopped(self) -> None:
        if self.controls.sync():
            raise StoppedBeforeFirstStep

    # -- progress -------------------------------------------------------------------------------------------------

    def _show(self, progress: Progress) -> None:
        self.progress = progress

    def _report(self, progress: Progress) -> None:
        """Shown in the engine's status at once, written to the journal at most twice a second."""
        self.progress = progress
        phase, written = self._reported
        now = time.monotonic()
        if progress.phase != phase or now - written >= 0.5:
            self._reported = (progress.phase, now)
            self._journal.write(Phase(**progress.model_dump()))


class StoppedBeforeFirstStep(Exception):  # noqa: N818  (no error: the user asked for it)
    """The run was stopped before its first step."""
