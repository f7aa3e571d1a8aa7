"""Runs that are lined up: one file in the home, which a process changes as a whole and under a lock.

The engine takes from it (:mod:`workbench.engine.daemon.queue`). Where no engine runs, the file itself can be changed.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

# Entries that were taken are kept, so that it can be seen what became of them; no more than these.
_KEPT = 100
ON_REQUEST = "on request"

QueueAction = Literal["add", "remove", "move", "replace", "hold", "go", "clear"]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Wanted(_Kept):
    """A run to be: its recipe, with absolute paths, and in how many processes."""

    recipe: dict[str, Any]
    launch: Launch | None = None


class Entry(Wanted):
    """A place in the queue. Once it was taken, ``run`` is the folder of its run, or ``problem`` why it got none."""

    id: int
    added: float = 0.0
    run: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """What its run will be called, without the number."""
        return str(self.recipe.get("output", {}).get("name", "run"))


class QueueRequest(_Kept):
    """What to do with the queue: ``add`` runs at its end, ``remove`` entries, ``move`` one to a place counted from 1,
    ``replace`` one's recipe, ``hold`` it, let it ``go`` on, ``clear`` what waits.
    """

    action: QueueAction
    wanted: list[Wanted] = Field(default=[], max_length=1000)
    ids: list[int] = []
    place: int = 1


class Line(_Kept):
    """The queue at one moment.

    Attributes:
        waiting: in the order in which they will run. taken: those that became runs, the newest last.
        ahead: folder of the run that goes before the first one that waits, from the queue or not.
        held: why none is taken; empty while the queue goes on.
        held_for: folder of the run that broke off; once that run goes on, the hold is over.
    """

    next_id: int = 1
    waiting: tuple[Entry, ...] = ()
    taken: tuple[Entry, ...] = ()
    ahead: str = ""
    held: str = ""
    held_for: str = ""

    @property
    def has_work(self) -> bool:
        """Whether the next run starts by itself."""
        return bool(self.waiting) and not self.held

    @property
    def steps(self) -> list[tuple[Entry, Mapping[str, Any] | None]]:
        """Each entry that waits, with the recipe of the one before it: of the run that goes on, for the first."""
        recipes = [self.now.recipe if self.now else None, *(entry.recipe for entry in self.waiting)]
        return list(zip(self.waiting, recipes, strict=False))

    @property
    def now(self) -> Entry | None:
        """The entry whose run goes before the first one that waits."""
        return next((entry for entry in reversed(self.taken) if entry.run and entry.run == self.ahead), None)

    def asked(self, request: QueueRequest, live: str = "") -> Self:
        """The queue after a request.

        Args:
            live: folder of the run that goes on, which is then ahead of what waits.

        Raises:
            WorkbenchError: an entry that is named does not wait.
        """
        match request.action:
            case "add":
                return self._with(request.wanted, live)
            case "remove":
                gone = {self._waiting(number).id for number in request.ids}
                return self._changed(waiting=tuple(entry for entry in self.waiting if entry.id not in gone))
            case "move":
                return self._moved(self._waiting(*request.ids[:1]), request.place)
            case "replace":
                return self._replaced(self._waiting(*request.ids[:1]), request.wanted)
            case "hold":
                return self._changed(held=self.held or ON_REQUEST)
            case "go":
                return self._changed(held="", held_for="", ahead=live)
            case "clear":
                return self._changed(waiting=())

    def took(self, entry: Entry, run: str = "", problem: str = "") -> Self:
        """The first entry became a run, or cannot."""
        taken = entry.model_copy(update={"run": run, "problem": problem})
        waiting = tuple(other for other in self.waiting if other.id != entry.id)
        return self._changed(waiting=waiting, taken=(*self.taken, taken)[-_KEPT:], ahead=run or self.ahead)

    def begun(self, run: str) -> Self:
        """A run begins or goes on, from the queue or not."""
        if not self.waiting and run not in (self.ahead, self.held_for):
            return self
        if run == self.held_for:
            return self._changed(ahead=run, held="", held_for="")
        return self._changed(ahead=run)

    def ended(self, run: str) -> Self:
        """A run has ended."""
        return self._changed(ahead="") if run == self.ahead else self

    def broken_off(self, run: str, why: str) -> Self:
        """A run ended that nobody wanted to end: nothing is taken until it goes on, or somebody says so."""
        if not self.waiting:
            return self.ended(run)
        # What was held on request stays so when the run has gone on.
        return self if self.held == ON_REQUEST else self._changed(ahead=run, held=self.held or why, held_for=run)

    def _with(self, wanted: Sequence[Wanted], live: str) -> Self:
        now = time.time()
        added = tuple(
            Entry(id=self.next_id + index, added=now, recipe=one.recipe, launch=one.launch)
            for index, one in enumerate(wanted)
        )
        return self._changed(
            waiting=(*self.waiting, *added), next_id=self.next_id + len(added), ahead=live or self.ahead
        )

    def _moved(self, entry: Entry, place: int) -> Self:
        others = [other for other in self.waiting if other != entry]
        others.insert(min(max(place, 1), len(self.waiting)) - 1, entry)
        return self._changed(waiting=tuple(others))

    def _replaced(self, entry: Entry, wanted: Sequence[Wanted]) -> Self:
        other = entry.model_copy(update={"recipe": wanted[0].recipe, "launch": wanted[0].launch})
        return self._changed(waiting=tuple(other if one == entry else one for one in self.waiting))

    def _waiting(self, number: int = 0) -> Entry:
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

    def _changed(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys at which two recipes differ, with both values; their names left out."""
    found = {}
    for section in dict.fromkeys((*before, *after)):
        old, new = before.get(section) or {}, after.get(section) or {}
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name) and (section, name) != ("output", "name"):
                found[f"{section}.{name}"] = (old.get(name), new.get(name))
    return found


class Queue:
    """The queue of one home, as it is on disk."""

    def __init__(self, home: Home) -> None:
        self._file = home.queue
        self._known: tuple[tuple[int, int, int], Line] | None = None

    def read(self) -> Line:
        """The queue now; an empty one where there is no file.

        Raises:
            WorkbenchError: the file cannot be read.
        """
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            known = self._known
            if known is None or known[0] != stamp:
                known = self._known = (stamp, Line.model_validate_json(self._file.read_bytes()))
        except FileNotFoundError:
            return Line()
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its format is not valid"
            raise WorkbenchError(
                f"The queue in {self._file} cannot be read: {reason}.",
                "Fix the file, or remove it to start with an empty queue.",
                kind="queue",
            ) from None
        return known[1]

    def change(self, do: Callable[[Line], Line]) -> Line:
        """Read, change and write it; nobody else changes it meanwhile, and a reader sees the old one or the new one.

        Raises:
            WorkbenchError: it cannot be read or written; or what ``do`` raises, and nothing has changed.
        """
        with self._alone():
            before = self.read()
            line = do(before)
            if line != before:
                self._write(line)
            return line

    def ask(self, request: QueueRequest, live: str = "") -> Line:
        """Do what a request says; see :meth:`Line.asked`."""
        return self.change(lambda line: line.asked(request, live))

    @contextmanager
    def _alone(self) -> Iterator[None]:
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

    def _write(self, line: Line) -> None:
        text = json.dumps(line.model_dump(), ensure_ascii=False, indent=1)
        try:
            # Paths and system prompts are in it.
            write_text(self._file, text, private=True, sync=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> WorkbenchError:
        return WorkbenchError(
            f"The queue cannot be written to {self._file}: {error.strerror or error}.",
            "Free some disk space, or make the folder writable.",
            kind="disk",
        )
