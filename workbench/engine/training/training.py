"""Trains one run, from its recipe to its adapter, and records everything in its journal.

:class:`Training` runs in the thread that calls it; the engine uses :mod:`workbench.engine.training.thread`.
"""

import hashlib
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from workbench import __version__
from workbench.data.tokens.encode import EncodedData
from workbench.data.tokens.vocabulary import refuse_unknown_tokens
from workbench.engine.kernels.fused import check_device
from workbench.engine.metrics.peak_memory import PeakMeter
from workbench.engine.model.base import LoadedBase, load_base
from workbench.engine.model.hardware import free_cached_memory, hardware_facts, library_versions
from workbench.engine.model.libraries import import_libraries, restore_default_dtype
from workbench.engine.model.new_rows import embedding_rows
from workbench.engine.model.saving import copy_adapter
from workbench.engine.steering.controls import Command, Controls
from workbench.engine.steering.ranks import ALONE, Ranks, is_lost_process
from workbench.engine.steering.synced_controls import SyncedControls
from workbench.engine.storage.disk_full_retry import RetryingJournal, SilentJournal
from workbench.engine.storage.room import check_disk
from workbench.engine.training.tokenizing import BackgroundTokenizing
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import KIND as UNFORESEEN
from workbench.models.local import read_config
from workbench.models.sources import fetch_model, find_config
from workbench.models.stored_quantization import recipe_as_loaded, stored_quantization
from workbench.progress import Progress
from workbench.recipe.fused_kernels import check_kernels
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.recipe.trackers import check_reporters
from workbench.runs.checkpoints import Checkpoint, newest_intact, remove_checkpoints
from workbench.runs.events import (
    FORMAT,
    MeasuredPeak,
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
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.engine.training.session import Session

# After these errors the weights are still those of the last whole step, so they are saved.
_WEIGHTS_ARE_GOOD = ("nan_loss", "out_of_memory")
# Errors that all processes raise at the same point. After any other error they can no longer wait for each other.
_RAISED_BY_ALL = ("nan_loss",)


# A rate measured over less time says little about the rest.
_SECONDS_BEFORE_ETA = 2.0


class Training:
    """Trains one run.

    Args:
        base: the base in memory, if any; used if the recipe asks for the same one, otherwise released first.
        resume: continue from the newest complete checkpoint, or from the start if there is none.
        ranks: the processes that train this run together, each with a Training of its own; the first process writes
            the journal and receives the user's requests.
        watched: whether an engine watches the processes, and itself records in the journal that one died.

    Attributes:
        base: the base in memory, after the run with the trained adapter; None if it was released or failed to load.
        error: the error that ended the run; None if there was none.
        progress: the latest progress, for the engine's status.
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
        self._measured: MeasuredPeak | None = None
        # Phase and time of the last progress in the journal.
        self._reported = ("", 0.0)
        self._has_adopted = False
        # When the phase began that is reported.
        self._phase_began = 0.0
        # Where the run continues from; None if it starts anew.
        self._checkpoint: Checkpoint | None = None

    def run(self) -> None:
        """Train. Raises nothing: an error is recorded in the journal and kept in ``error``."""
        try:
            with self._open_journal() as self._journal:
                are_in_sync = True
                try:
                    self._run()
                except Exception as error:
                    are_in_sync = self._fail(error)
                if self._session is not None:
                    self._session.close()
                if are_in_sync:
                    # If a process exits with an error, the launcher kills the others; the first may still be writing.
                    self.ranks.wait_for_all()
        except Exception as error:
            # The journal cannot be written, so the error goes to the log.
            self.error = diagnose(error, "writing the run's journal", self.run_folder.log)
            traceback.print_exc()
        finally:
            self._session = None

    def _open_journal(self) -> RetryingJournal:
        if self.ranks.is_first:
            return RetryingJournal(self.run_folder.journal, self.controls.local)
        return SilentJournal()

    # -- the steps of a run -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        note = self._adopt_stored_quantization(self._config_here())
        checkpoint = self.ranks.broadcast(self._record_start() if self.ranks.is_first else None)
        self._checkpoint = checkpoint
        if note:
            self._warn(note, kind="stored_quantization")
        check_disk(self.run_folder.path)
        if self.ranks.is_first:
            check_reporters(self.recipe.training.report_to)
            check_kernels(self.recipe.training.kernels)
        while True:
            session = self._prepare(checkpoint)
            if checkpoint is None or checkpoint.step == 0:
                session.evaluate(0)
            self._raise_if_stopped()
            meter = PeakMeter()
            reason = session.train(checkpoint)
            self._measured = meter.read()
            if reason != "released":
                break
            checkpoint = self._checkpoint = session.trainer.checkpoint()
            session.close()
            session = self._session = None  # type: ignore[assignment]
            if not self._wait_without_memory(checkpoint):
                self._finish_without_base(checkpoint)
                return
        self._finish(session, reason)

    def _record_start(self) -> Checkpoint | None:
        """Write the event that the run started or resumed; returns the checkpoint to continue from."""
        process = psutil.Process()
        versions = {"loraworkbench": __version__, **library_versions()}
        if self._resume and self._journal.has_events:
            checkpoint, damaged = newest_intact(self.run_folder.checkpoints)
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

    def _load_base(self, tokenizing: BackgroundTokenizing) -> None:
        """Load the base if it is not in memory. As soon as its tokenizer is loaded, tokenizing begins."""
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
                tokenizing.begin,
            )
            self._journal.write(Phase(phase="loading", fraction=1.0, detail=self.base.description))
        if note := self._adopt_stored_quantization(read_config(self.base.local.folder)):
            self._warn(note, kind="stored_quantization")
        self._raise_if_stopped()

    def _config_here(self) -> dict[str, object]:
        """The base's ``config.json``; empty if it is not on this machine yet, or unreadable, which loading explains."""
        with suppress(WorkbenchError):
            if folder := find_config(self.home, self.recipe.model):
                return read_config(folder)
        return {}

    def _adopt_stored_quantization(self, config: dict[str, object]) -> str:
        """Let the recipe say how the base's files quantize it. Does nothing the second time.

        Returns:
            How such a base is loaded, as a sentence; empty if nothing is to be said.
        """
        stored = stored_quantization(config)
        asked = self.recipe.quantization
        # What is refused is refused by the function that loads the base.
        if stored is None or self._has_adopted or stored.refusal(asked, self.recipe.adapter):
            return ""
        self._has_adopted = True
        self.recipe = recipe_as_loaded(self.recipe, config)
        if self.recipe.quantization == asked and stored.method is not None:
            return ""
        if self.ranks.is_first:
            write_text(self.run_folder.recipe_file, to_yaml(self.recipe))
        return stored.note(asked)

    def _fetch(self) -> None:
        """Download or convert the model, which only one process per machine should do."""
        fetch_model(self.home, self.recipe.model, self._report, self.controls.local.is_stopped)

    def _can_use(self, base: LoadedBase) -> bool:
        return base.is_unchanged and base.matches(self.recipe.model, self.recipe.quantization)

    def _prepare(self, checkpoint: Checkpoint | None) -> "Session":
        """Load the base and the records, and make the session that trains on from the checkpoint."""
        if self.base is None:
            # Opening the records may need one of the libraries.
            self._report(Progress(phase="loading", detail="importing libraries"))
            import_libraries()
        check_device(self.recipe.training.kernels)
        tokenizing = BackgroundTokenizing(self.home, self.recipe, self.ranks, self.controls.local.is_stopped)
        try:
            self._load_base(tokenizing)
            data = self._tokenized_data(tokenizing)
        finally:
            tokenizing.abandon()
        if dtype := restore_default_dtype():
            message = f"Loading the model left PyTorch's default dtype at {dtype}; it is reset to float32."
            self._warn(message, kind="default_dtype")
        self._raise_if_stopped()
        self._report(Progress(phase="loading", detail="importing the trainer"))
        # These import torch and TRL, which another thread may still be doing until the base is loaded.
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
        self._report(Progress(phase="loading", detail="attaching the adapter"))
        self._session = Session(context, self.base, data, history, choice)
        return self._session

    def _tokenized_data(self, tokenizing: BackgroundTokenizing) -> EncodedData:
        """Wait for the tokenized records, check them, and record warnings about them."""
        assert self.base is not None
        data = tokenizing.result(self.base.tokenizer, self._report)
        refuse_unknown_tokens(data.facts.largest_id, self.base.tokenizer, embedding_rows(self.base.model))
        for question in data.facts.questions:
            self._warn(question)
        for notice in data.notices:
            self._warn(notice)
        detail = "cached tokens" if data.from_cache else ""
        self._journal.write(Phase(phase="tokenizing", fraction=1.0, detail=detail, counts=data.counts))
        return data

    def _wait_without_memory(self, checkpoint: Checkpoint) -> bool:
        """Release the GPU memory and wait for the user; returns True to resume, False to stop."""
        self.base = None
        free_cached_memory()
        postponed: list[Command] = []
        self.controls.paused = "Paused; GPU memory released."
        self._journal.write(Paused(step=checkpoint.step, reason=self.controls.paused, release=True))
        while (command := self.controls.wait()) and command.action != "resume":
            # A second pause changes nothing; other commands apply once the run has resumed.
            if command.action != "pause":
                postponed.append(command)
        self.controls.paused = ""
        if self.controls.is_stopped():
            return False
        for command in postponed:
            self.controls.send(command)
        self._journal.write(Resumed(step=checkpoint.step))
        return True

    # -- the run's end --------------------------------------------------------------------------------------------

    def _finish(self, session: "Session", exit_reason: str) -> None:
        assert self.base is not None
        if exit_reason == "stopped" and not self.controls.save:
            self._discard(session.step)
            return
        if session.step == 0:
            raise StoppedBeforeFirstStep
        self.progress = Progress(phase="saving")
        self._journal.write(Phase(phase="saving"))
        kept_step = session.step
        if exit_reason == "stopped":
            # A checkpoint, so that the run can be resumed later.
            session.step_controls.save()
        else:
            session.evaluate(session.step)
            if session.load_best():
                kept_step = session.best.step
        session.save(self.run_folder.adapter)
        if self.ranks.count == 1:
            self.base.prepare_for_chat()
            self.base.register_trained(self.run_folder.adapter)
        self._end(exit_reason or "finished", step=session.step, kept_step=kept_step)

    def _discard(self, step: int) -> None:
        self._detach_adapter()
        if self.ranks.is_first:
            remove_checkpoints(self.run_folder.checkpoints)
        self._end("discarded", adapter=False, step=step)

    def _finish_without_base(self, checkpoint: Checkpoint) -> None:
        """End a run whose memory was released: copy the adapter from its checkpoint."""
        if not self.controls.save:
            self._discard(checkpoint.step)
            return
        if checkpoint.step == 0:
            raise StoppedBeforeFirstStep
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
        """Record the error that ended the run; returns whether the processes can still wait for each other."""
        was_cancelled = self.controls.local.is_stopped() and getattr(error, "kind", "") == "cancelled"
        if isinstance(error, StoppedBeforeFirstStep) or was_cancelled:
            self._detach_adapter()
            self._end_before_first_step()
            return not was_cancelled
        if self.ranks.count > 1 and is_lost_process(error):
            self._record_lost_process(error)
            return False
        self.error = diagnose(error, f"training run {self.run_folder.id}", self.run_folder.log)
        are_in_sync = self.ranks.count == 1 or self.error.kind in _RAISED_BY_ALL
        saved = are_in_sync and self.error.kind in _WEIGHTS_ARE_GOOD and self._save_last_step()
        self._detach_adapter()
        is_known = isinstance(error, WorkbenchError) and error.kind != UNFORESEEN
        trace = "" if is_known else "".join(traceback.format_exception(error))
        self._journal.write(RunError.of(self.error, trace))
        self._end("error", adapter=saved)
        return are_in_sync

    def _end_before_first_step(self) -> None:
        """End a run that was stopped before it trained a step, perhaps while the base of an earlier one was loaded."""
        checkpoint = self._checkpoint
        if checkpoint is not None and checkpoint.step:
            self._finish_without_base(checkpoint)
        elif self.controls.save:
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

    def _save_last_step(self) -> bool:
        """Save a checkpoint and the adapter after the last whole step; returns whether both are saved."""
        session = self._session
        if session is None or session.step == 0:
            return False
        try:
            session.step_controls.save()
            session.save(self.run_folder.adapter)
        except Exception:
            traceback.print_exc()
            return False
        return True

    def _detach_adapter(self) -> None:
        """Prepare the base for the next run; if that fails, as after a CUDA error, release it."""
        # A run in several processes leaves no base: they exit.
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
        # What comes between two steps is another phase each time.
        self._reported = (progress.phase, 0.0)

    def _report(self, progress: Progress) -> None:
        """Show progress in the engine's status; write each new phase to the journal, and progress twice a second."""
        phase, reported_at = self._reported
        now = time.monotonic()
        if progress.phase != phase or not progress.fraction:
            self._phase_began = now
        elapsed = now - self._phase_began
        if progress.fraction and elapsed >= _SECONDS_BEFORE_ETA:
            eta = elapsed * (1 / progress.fraction - 1)
            progress = progress.model_copy(update={"eta_seconds": round(eta, 1)})
        self.progress = progress
        if progress.phase != phase or now - reported_at >= 0.5:
            self._reported = (progress.phase, now)
            self._journal.write(Phase(**progress.model_dump()))


class StoppedBeforeFirstStep(Exception):  # noqa: N818  (no error: the user asked for it)
    """The run was stopped before its first step."""
