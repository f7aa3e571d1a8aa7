"""The queue of runs: its state, the requests that change it, and the file in the home that stores it.

The engine starts queued runs (:mod:`workbench.engine.daemon.queue`). Each change rewrites the whole file under a lock,
so that the queue can also be changed while no engine is running.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

# How many started entries stay in the file, so that their results can be shown.
_MAX_TAKEN = 100
ON_REQUEST = "on request"
""":attr:`QueueState.held` of a queue that the user put on hold."""

QueueAction = Literal["add", "remove", "move", "replace", "hold", "go", "clear"]


class _StoredModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class RunRequest(_StoredModel):
    """A run to start: its recipe with absolute paths, and the processes to use if it needs several."""

    recipe: Mapping[str, object]
    launch: Launch | None = None

    def setting(self, section: str, name: str) -> str:
        """A setting of the recipe as text; empty if it is missing."""
        values = self.recipe.get(section)
        value = values.get(name) if isinstance(values, dict) else None
        return "" if value is None else str(value)


class Entry(RunRequest):
    """An entry of the queue. After its start, ``run`` is the run's folder, or ``problem`` says why it failed."""

    id: int
    added: float = 0.0
    run: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """The name of its run, without the number."""
        return self.setting("output", "name") or "run"


class QueueRequest(_StoredModel):
    """A change to the queue.

    ``add`` appends ``runs``, ``remove`` removes entries, ``move`` moves one to a place counted from 1, ``replace``
    replaces an entry's recipe, ``hold`` puts the queue on hold, ``go`` resumes it, ``clear`` removes all entries.
    """

    action: QueueAction
    runs: list[RunRequest] = Field(default=[], max_length=1000)
    ids: list[int] = []
    place: int = 1


class QueueState(_StoredModel):
    """The queue at one moment. Its methods return changed copies.

    Attributes:
        waiting: the queued entries in order. taken: the started entries, newest last.
        ahead: folder of the live run that the first queued entry waits for; it need not be from the queue.
        held: why the queue is on hold; empty while it is running.
        held_for: folder of the interrupted run that put the queue on hold; resuming this run also resumes the queue.
    """

    next_id: int = 1
    waiting: tuple[Entry, ...] = ()
    taken: tuple[Entry, ...] = ()
    ahead: str = ""
    held: str = ""
    held_for: str = ""

    @property
    def has_work(self) -> bool:
        """Whether there is an entry to start and the queue is not on hold."""
        return bool(self.waiting) and not self.held

    @property
    def with_previous(self) -> list[tuple[Entry, Mapping[str, object] | None]]:
        """Each queued entry with the recipe before it; for the first one, that of the queue's live run."""
        recipes = [self.current.recipe if self.current else None, *(entry.recipe for entry in self.waiting)]
        return list(zip(self.waiting, recipes, strict=False))

    @property
    def current(self) -> Entry | None:
        """The entry whose run is live; None if the live run is not from the queue."""
        return next((entry for entry in reversed(self.taken) if entry.run and entry.run == self.ahead), None)

    def after_request(self, request: QueueRequest, live: str = "") -> Self:
        """The queue after a request.

        Args:
            live: folder of the live run, which the queued entries then wait for.

        Raises:
            WorkbenchError: the request names an entry that is not queued.
        """
        match request.action:
            case "add":
                return self._with_added(request.runs, live)
            case "remove":
                removed = {self._find(number).id for number in request.ids}
                return self._changed(waiting=tuple(entry for entry in self.waiting if entry.id not in removed))
            case "move":
                return self._with_moved(self._find(*request.ids[:1]), request.place)
            case "replace":
                return self._with_replaced(self._find(*request.ids[:1]), request.runs)
            case "hold":
                return self._changed(held=self.held or ON_REQUEST)
            case "go":
                return self._changed(held="", held_for="", ahead=live)
            case "clear":
                return self._changed(waiting=())

    def with_taken(self, entry: Entry, run: str = "", problem: str = "") -> Self:
        """The queue after an entry was started as ``run``, or could not be because of ``problem``."""
        taken = entry.model_copy(update={"run": run, "problem": problem})
        waiting = tuple(other for other in self.waiting if other.id != entry.id)
        return self._changed(waiting=waiting, taken=(*self.taken, taken)[-_MAX_TAKEN:], ahead=run or self.ahead)

    def run_started(self, run: str) -> Self:
        """The queue after a run started or resumed, from the queue or not."""
        if not self.waiting and run not in (self.ahead, self.held_for):
            return self
        if run == self.held_for:
            return self._changed(ahead=run, held="", held_for="")
        return self._changed(ahead=run)

    def run_ended(self, run: str) -> Self:
        """The queue after a run ended."""
        return self._changed(ahead="") if run == self.ahead else self

    def run_interrupted(self, run: str, why: str) -> Self:
        """The queue after a run was interrupted: on hold until that run or the queue is resumed."""
        if not self.waiting:
            return self.run_ended(run)
        # A queue that the user put on hold stays on hold when the run resumes.
        return self if self.held == ON_REQUEST else self._changed(ahead=run, held=self.held or why, held_for=run)

    def _with_added(self, runs: Sequence[RunRequest], live: str) -> Self:
        now = time.time()
        added = tuple(
            Entry(id=self.next_id + index, added=now, recipe=run.recipe, launch=run.launch)
            for index, run in enumerate(runs)
        )
        return self._changed(
            waiting=(*self.waiting, *added), next_id=self.next_id + len(added), ahead=live or self.ahead
        )

    def _with_moved(self, entry: Entry, place: int) -> Self:
        others = [other for other in self.waiting if other != entry]
        others.insert(min(max(place, 1), len(self.waiting)) - 1, entry)
        return self._changed(waiting=tuple(others))

    def _with_replaced(self, entry: Entry, runs: Sequence[RunRequest]) -> Self:
        changed = entry.model_copy(update={"recipe": runs[0].recipe, "launch": runs[0].launch})
        return self._changed(waiting=tuple(changed if other == entry else other for other in self.waiting))

    def _find(self, number: int = 0) -> Entry:
        for entry in self.waiting:
            if entry.id == number:
                return entry
        taken = next((entry for entry in self.taken if entry.id == number), None)
        became = f": it started as {Path(taken.run).name}" if taken and taken.run else ""
        raise WorkbenchError(
            f"There is no queued entry {number}{became}.",
            "`loraworkbench queue` lists the queued entries.",
            kind="queue_entry",
        )

    def _changed(self, **changes: object) -> Self:
        return self.model_copy(update=changes)


class Queue:
    """Reads and changes the queue file of a home."""

    def __init__(self, home: Home) -> None:
        self._file = home.queue
        self._cached: tuple[tuple[int, int, int], QueueState] | None = None

    def read(self) -> QueueState:
        """Read the queue; empty without a file. Cached until the file changes.

        Raises:
            WorkbenchError: the file cannot be read.
        """
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            cached = self._cached
            if cached is None or cached[0] != stamp:
                cached = self._cached = (stamp, QueueState.model_validate_json(self._file.read_bytes()))
        except FileNotFoundError:
            return QueueState()
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its format is not valid"
            raise WorkbenchError(
                f"The queue in {self._file} cannot be read: {reason}.",
                "Fix the file, or remove it to start with an empty queue.",
                kind="queue",
            ) from None
        return cached[1]

    def change(self, update: Callable[[QueueState], QueueState]) -> QueueState:
        """Replace the queue by ``update(queue)``, under the lock.

        Raises:
            WorkbenchError: the queue cannot be read or written, or ``update`` raises it; then nothing has changed.
        """
        with self._locked():
            before = self.read()
            after = update(before)
            if after != before:
                self._write(after)
            return after

    def apply(self, request: QueueRequest, live: str = "") -> QueueState:
        """Carry out a request; see :meth:`QueueState.after_request`."""
        return self.change(lambda queue: queue.after_request(request, live))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, queue: QueueState) -> None:
        text = json.dumps(queue.model_dump(), ensure_ascii=False, indent=1)
        try:
            # Private, as it contains paths and system prompts.
            write_text(self._file, text, private=True, sync=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> WorkbenchError:
        return WorkbenchError(
            f"The queue cannot be written to {self._file}: {error.strerror or error}.",
            "Free some disk space, or make the folder writable.",
            kind="disk",
        )
