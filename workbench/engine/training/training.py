"""Trains one run, from its recipe to its adapter, and records everything in its journal.

:class:`Training` runs in the thread that calls it; the engine uses :mod:`workbench.engine.training.thread`.
"""

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from workbench.data.tokens.encode import EncodedData
from workbench.data.tokens.vocabulary import refuse_unknown_tokens
from workbench.engine.kernels.fused import check_device
from workbench.engine.metrics.peak_memory import PeakMeter
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.libraries import import_libraries, restore_default_dtype
from workbench.engine.model.new_rows import embedding_rows
from workbench.engine.steering.controls import Command, Controls
from workbench.engine.steering.ranks import ALONE, Ranks
from workbench.engine.steering.synced_controls import SyncedControls
from workbench.engine.storage.disk_full_retry import RetryingJournal, SilentJournal
from workbench.engine.storage.room import check_disk
from workbench.engine.training.held_base import HeldBase
from workbench.engine.training.progress_report import ProgressReport
from workbench.engine.training.run_end import RunEnd, StoppedBeforeFirstStep
from workbench.engine.training.run_start import record_start
from workbench.engine.training.run_warnings import RunWarnings
from workbench.engine.training.session.context import Context
from workbench.engine.training.tokenizing import BackgroundTokenizing
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.models.local import read_config
from workbench.models.remote_code import remote_code
from workbench.models.sources import find_config
from workbench.models.stored_quantization import recipe_as_loaded, stored_quantization
from workbench.progress import Progress
from workbench.recipe.fused_kernels import check_kernels
from workbench.recipe.optimizers import check_optimizer
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.recipe.trackers import check_reporters
from workbench.runs.checkpoints import Checkpoint
from workbench.runs.events import (
    AnyEvent,
    Paused,
    Phase,
    Resumed,
)
from workbench.runs.folder import RunFolder
from workbench.runs.history import read_history
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.engine.training.session.session import Session


class Training:
    """Trains one run.

    Args:
        base: the base in memory, if any; used if the recipe asks for the same one, otherwise released first.
        resume: continue from the newest complete checkpoint, or from the start if there is none.
        ranks: the processes that train this run together, each with a Training of its own; the first process writes
            the journal and receives the user's requests.
        watched: whether an engine watches the processes, and itself records in the journal that one died.

    Attributes:
        error: the error that ended the run; None if there was none.
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
        self._held = HeldBase(home, ranks, base)
        self.ranks = ranks
        self.controls = controls or (Controls() if ranks.count == 1 else SyncedControls(ranks))
        self.error: WorkbenchError | None = None
        self._resume = resume
        self._watched = watched
        self._journal: RetryingJournal
        self._session: Session | None = None
        self._end: RunEnd
        self._warnings: RunWarnings
        self._progress = ProgressReport(self._write)
        self._has_adopted = False
        # Where the run continues from; None if it starts anew.
        self._checkpoint: Checkpoint | None = None

    @property
    def base(self) -> LoadedBase | None:
        """The base in memory, after the run with the trained adapter; None if it was released or failed to load."""
        return self._held.base

    @property
    def progress(self) -> Progress | None:
        """The latest progress, for the engine's status."""
        return self._progress.latest

    def run(self) -> None:
        """Train. Raises nothing: an error is recorded in the journal and kept in ``error``."""
        try:
            with self._open_journal() as self._journal:
                self._warnings = RunWarnings(self._journal)
                self._end = RunEnd(
                    self.run_folder,
                    self._journal,
                    self.controls,
                    self.ranks,
                    self._held,
                    self._progress.show,
                    watched=self._watched,
                )
                are_in_sync = True
                try:
                    self._run()
                except Exception as error:
                    are_in_sync = self._end.fail(error, self._session, self._checkpoint)
                    self.error = self._end.error
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

    def _write(self, event: AnyEvent) -> None:
        self._journal.write(event)

    # -- the steps of a run -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        note = self._adopt_stored_quantization(self._config_here())
        checkpoint = self.ranks.broadcast(self._start() if self.ranks.is_first else None)
        self._checkpoint = checkpoint
        if note:
            self._warnings.warn(note, kind="stored_quantization")
        check_disk(self.run_folder.path)
        if self.ranks.is_first:
            check_reporters(self.recipe.training.report_to)
            check_kernels(self.recipe.training.kernels)
            check_optimizer(self.recipe.training.optim)
        while True:
            session = self._prepare(checkpoint)
            if (checkpoint is None or checkpoint.step == 0) and self.recipe.training.eval_on_start:
                session.evaluate(0)
            self._raise_if_stopped()
            meter = PeakMeter()
            reason = session.train(checkpoint)
            self._end.measured = meter.read()
            if reason != "released":
                break
            checkpoint = self._checkpoint = session.trainer.checkpoint()
            session.close()
            session = self._session = None  # type: ignore[assignment]
            if not self._wait_without_memory(checkpoint):
                self._end.finish_without_base(checkpoint)
                return
        self._end.finish(session, reason)

    def _start(self) -> Checkpoint | None:
        return record_start(self.run_folder, self.recipe, self._journal, self._warnings, resume=self._resume)

    def _load_base(self, tokenizing: BackgroundTokenizing) -> None:
        """Load the base if it is not in memory. As soon as its tokenizer is loaded, tokenizing begins."""
        base = self._held.load(
            self.recipe, self._progress.report, self.controls.local.is_stopped, tokenizing.begin, self._record_base
        )
        if note := self._adopt_stored_quantization(read_config(base.local.folder)):
            self._warnings.warn(note, kind="stored_quantization")
        if self.recipe.model.trust_remote_code and (code := remote_code(base.local.folder)):
            self._warnings.warn(code.warning, kind="remote_code")
        for note in base.file_notices:
            self._warnings.warn(note, kind="model_files")
        self._raise_if_stopped()

    def _record_base(self, base: LoadedBase) -> None:
        self._journal.write(Phase(phase="loading", fraction=1.0, detail=base.description))

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

    def _prepare(self, checkpoint: Checkpoint | None) -> "Session":
        """Load the base and the records, and make the session that trains on from the checkpoint."""
        if self.base is None:
            # Opening the records may need one of the libraries.
            self._progress.report(Progress(phase="loading", detail="importing libraries"))
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
            self._warnings.warn(message, kind="default_dtype")
        self._raise_if_stopped()
        self._progress.report(Progress(phase="loading", detail="importing the trainer"))
        # These import torch and TRL, which another thread may still be doing until the base is loaded.
        from workbench.engine.training.choice import choose
        from workbench.engine.training.session.session import Session

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
            self._warnings,
            self.controls,
            self._progress.report,
            self._progress.show,
            self.ranks,
        )
        self._progress.report(Progress(phase="loading", detail="attaching the adapter"))
        self._session = Session(context, self.base, data, history, choice)
        return self._session

    def _tokenized_data(self, tokenizing: BackgroundTokenizing) -> EncodedData:
        """Wait for the tokenized records, check them, and record warnings about them."""
        assert self.base is not None
        data = tokenizing.result(self.base.tokenizer, self._progress.report)
        refuse_unknown_tokens(data.facts.largest_id, self.base.tokenizer, embedding_rows(self.base.model))
        for question in data.facts.questions:
            self._warnings.warn(question)
        for notice in data.notices:
            self._warnings.warn(notice)
        detail = "cached tokens" if data.from_cache else ""
        self._journal.write(Phase(phase="tokenizing", fraction=1.0, detail=detail, counts=data.counts))
        return data

    def _wait_without_memory(self, checkpoint: Checkpoint) -> bool:
        """Release the GPU memory and wait for the user; returns True to resume, False to stop."""
        self._held.release()
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

    def _raise_if_stopped(self) -> None:
        if self.controls.sync():
            raise StoppedBeforeFirstStep
