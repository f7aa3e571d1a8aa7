"""Who starts the next run of the queue: a thread of the engine that looks whenever the engine is free again."""

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


class Trains(Protocol):
    """What the keeper asks of its engine."""

    def train(
        self, recipe: Recipe, launch: Launch | None = None, *, folder: Callable[[], RunFolder] | None = None
    ) -> RunFolder: ...


class QueueKeeper:
    """The queue as the engine sees it: it learns when runs begin and end, and is woken when the engine is free.

    Nothing here fails because the queue cannot be read or written: a run is worth more. What is wrong then shows as
    the reason why the queue is on hold.
    """

    def __init__(self, home: Home, engine: Trains) -> None:
        self._home = home
        self._engine = engine
        self._queue = Queue(home)
        self._woken = threading.Event()
        self._trouble = ""

    def start(self) -> None:
        """Look at what an engine before this one left, and take from now on, in a thread of its own."""
        self._look_back()
        threading.Thread(target=self._keep, name="queue", daemon=True).start()

    def wake(self) -> None:
        """The engine may be free."""
        self._woken.set()

    @property
    def line(self) -> QueueState:
        """The queue now; one that is held by what is wrong with it where it cannot be read."""
        try:
            line = self._queue.read()
        except WorkbenchError as error:
            return QueueState(held=error.message)
        return line.model_copy(update={"held": line.held or self._trouble})

    @property
    def has_work(self) -> bool:
        """Whether a run starts by itself as soon as the engine is free, or the disk has room."""
        try:
            return self._queue.read().has_work
        except WorkbenchError:
            return False

    def ask(self, request: QueueRequest, live: str) -> QueueState:
        """Change the queue as the user wants it.

        Args:
            live: folder of the live run.

        Raises:
            WorkbenchError: it cannot be done; nothing has changed.
        """
        self._queue.apply(request, live)
        self.wake()
        return self.line

    # -- what the engine tells ------------------------------------------------------------------------------------

    def begins(self, run: RunFolder) -> None:
        """A run begins or resumes."""
        self._note(lambda queue: queue.run_started(str(run.path)))

    def ends(self, run: RunFolder, *, with_engine: bool) -> None:
        """A run has ended; ``with_engine``: because the engine is to end."""
        folder = str(run.path)
        if with_engine and summarise(run).state == "stopped":
            why = f"The engine was shut down while {run.id} was training; the run was stopped and saved."
            self._note(lambda queue: queue.run_interrupted(folder, why))
        else:
            self._note(lambda queue: queue.run_ended(folder))

    def _note(self, do: Callable[[QueueState], QueueState]) -> None:
        try:
            self._queue.change(do)
        except WorkbenchError:
            traceback.print_exc()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while True:
            self._take()
            self._woken.wait(_RETRY_SECONDS if self._trouble else None)
            self._woken.clear()

    def _look_back(self) -> None:
        """If the engine before this one died in a run, put the queue on hold: the user decides about that run first."""
        ahead = self.line.ahead
        if not ahead:
            return
        run = RunFolder(Path(ahead))
        summary = summarise(run)
        if run.path.is_dir() and summary.state in ("new", "running", "interrupted"):
            at = f"in step {summary.step}" if summary.step else "before its first step"
            why = f"{run.id} was interrupted {at}: its engine ended."
            self._note(lambda queue: queue.run_interrupted(ahead, why))
        elif ahead != self.line.held_for:
            self._note(lambda queue: queue.run_ended(ahead))

    def _take(self) -> None:
        """Start the first run that waits, unless the engine is at something or the queue is held."""
        try:
            line = self._queue.read()
            self._trouble = ""
            if line.has_work:
                self._start(line.waiting[0])
        except Exception as error:  # the thread must live: nothing else starts what waits
            self._trouble = str(diagnose(error, "starting the next run of the queue", self._home.engine_log))

    def _start(self, entry: Entry) -> None:
        made: list[RunFolder] = []

        def take(line: QueueState) -> QueueState:
            if not line.has_work or line.waiting[0] != entry:
                raise WorkbenchError("The queue has changed in the meantime.", kind="queue_changed")
            made.append(create_run(self._home, recipe))
            return line.with_taken(entry, run=str(made[0].path))

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
