"""Starts queued runs: a thread of the engine that takes the next entry of the queue whenever the engine is free."""

import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.planning.launch import Launch
from workbench.planning.queue import Entry, Queue, QueueRequest, QueueState
from workbench.recipe.schema import Recipe
from workbench.recipe.text import parse
from workbench.runs.folder import RunFolder, create_run, summarise
from workbench.storage.paths import Home

# A disk that is full now may have room later.
_RETRY_SECONDS = 60.0
# The engine is woken again when it is free.
_NOT_NOW = ("busy", "engine_gone")


class Trainer(Protocol):
    """The part of the engine that :class:`QueueRunner` needs."""

    def train(
        self, recipe: Recipe, launch: Launch | None = None, *, folder: Callable[[], RunFolder] | None = None
    ) -> RunFolder: ...


class QueueRunner:
    """Starts the queued runs one after the other, and records in the queue when runs start and end.

    A queue that cannot be read or written never makes a run fail; the problem is shown as the reason why the queue is
    on hold.
    """

    def __init__(self, home: Home, engine: Trainer) -> None:
        self._home = home
        self._engine = engine
        self._queue = Queue(home)
        self._woken = threading.Event()
        self._trouble = ""

    def start(self) -> None:
        """Check what the previous engine left behind, then start queued runs from a thread of its own."""
        self._check_previous_engine()
        threading.Thread(target=self._run, name="queue", daemon=True).start()

    def wake(self) -> None:
        """Look at the queue again, because the engine may be free."""
        self._woken.set()

    @property
    def state(self) -> QueueState:
        """The queue now. If it cannot be read or the next run cannot be started, it is on hold for that reason."""
        try:
            state = self._queue.read()
        except WorkbenchError as error:
            return QueueState(held=error.message)
        return state.model_copy(update={"held": state.held or self._trouble})

    @property
    def has_work(self) -> bool:
        """Whether a queued run will start as soon as the engine is free, or the disk has room."""
        try:
            return self._queue.read().has_work
        except WorkbenchError:
            return False

    def change(self, request: QueueRequest, live: str) -> QueueState:
        """Carry out the user's request to change the queue.

        Args:
            live: folder of the live run.

        Raises:
            WorkbenchError: the request cannot be carried out; nothing has changed.
        """
        self._queue.apply(request, live)
        self.wake()
        return self.state

    # -- called by the engine -------------------------------------------------------------------------------------

    def run_started(self, run: RunFolder) -> None:
        """Record that a run starts or resumes."""
        self._record(lambda queue: queue.run_started(str(run.path)))

    def run_ended(self, run: RunFolder, *, engine_ends: bool) -> None:
        """Record that a run has ended; ``engine_ends``: the engine was shut down, which stopped the run."""
        folder = str(run.path)
        if engine_ends and summarise(run).state == "stopped":
            why = f"The engine was shut down while {run.id} was training; the run was stopped and saved."
            self._record(lambda queue: queue.run_interrupted(folder, why))
        else:
            self._record(lambda queue: queue.run_ended(folder))

    def _record(self, update: Callable[[QueueState], QueueState]) -> None:
        try:
            self._queue.change(update)
        except WorkbenchError:
            traceback.print_exc()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._start_next()
            self._woken.wait(_RETRY_SECONDS if self._trouble else None)
            self._woken.clear()

    def _check_previous_engine(self) -> None:
        """If the previous engine died during a run, put the queue on hold: the user decides about that run first."""
        ahead = self.state.ahead
        if not ahead:
            return
        run = RunFolder(Path(ahead))
        summary = summarise(run)
        if run.path.is_dir() and summary.state in ("new", "running", "interrupted"):
            at = f"in step {summary.step}" if summary.step else "before its first step"
            why = f"{run.id} was interrupted {at}: its engine ended."
            self._record(lambda queue: queue.run_interrupted(ahead, why))
        elif ahead != self.state.held_for:
            self._record(lambda queue: queue.run_ended(ahead))

    def _start_next(self) -> None:
        """Start the first queued run, unless the engine is busy or the queue is on hold."""
        try:
            state = self._queue.read()
            self._trouble = ""
            if state.has_work:
                self._start(state.waiting[0])
        except Exception as error:  # the thread must not end: nothing else starts queued runs
            self._trouble = str(diagnose(error, "starting the next run of the queue", self._home.engine_log))

    def _start(self, entry: Entry) -> None:
        made: list[RunFolder] = []

        def take(state: QueueState) -> QueueState:
            if not state.has_work or state.waiting[0] != entry:
                raise WorkbenchError("The queue has changed in the meantime.", kind="queue_changed")
            made.append(create_run(self._home, recipe))
            return state.with_taken(entry, run=str(made[0].path))

        def folder() -> RunFolder:
            self._queue.change(take)
            return made[0]

        try:
            recipe = parse(entry.recipe, f"Entry {entry.id} of the queue")
            self._engine.train(recipe, entry.launch, folder=folder)
        except Exception as problem:
            error = diagnose(problem, "starting the next run of the queue", self._home.engine_log)
            if error.kind == "queue_changed":
                self.wake()
            elif made:
                why = f"{made[0].id} could not be started: {error}"
                self._queue.change(lambda queue: queue.run_interrupted(str(made[0].path), why))
            elif error.kind == "disk":
                raise error from problem
            elif error.kind not in _NOT_NOW:
                self._queue.change(lambda queue: queue.with_taken(entry, problem=str(error)))
                self.wake()
