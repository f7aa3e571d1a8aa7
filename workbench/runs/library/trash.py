"""Moves runs into the home's trash, restores them, and empties the trash.

A run's folder is renamed into the trash without changes. Of a run outside the home, only the link moves; its folder
stays where it is, also when the trash is emptied.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, summarise
from workbench.runs.label import read_label
from workbench.storage.folders import entries, size_of
from workbench.storage.paths import Home


@dataclass(frozen=True)
class TrashedRun:
    """A run in the trash.

    Attributes:
        path: the run's folder in the trash, or the link to it.
        deleted: Unix time at which it was deleted.
        link_target: the folder outside the home that a link points to; None for a run in the home.
        bytes: size of its files; 0 for a link.
    """

    path: Path
    deleted: float
    link_target: Path | None
    bytes: int

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def name(self) -> str:
        """The name that the user gave it, else its id."""
        return read_label(self.path).name or self.id


def delete_run(home: Home, run: RunFolder, *, live_run: str | None = None) -> TrashedRun:
    """Move a run of this home into its trash.

    Args:
        live_run: the id of the run that the engine is working on; it may not have a journal yet.

    Raises:
        WorkbenchError: the run is live (or paused), is not in this home, or cannot be moved.
    """
    place = home.runs / run.id
    if not place.is_dir() or not run.path.is_dir() or not place.samefile(run.path):
        raise WorkbenchError(
            f"{run.path} is not in this home's runs folder, so it cannot be moved to its trash.",
            "Delete the folder yourself if you want to remove it.",
            kind="run_elsewhere",
        )
    # A paused run counts as running. Checked besides the lock, which not every file system supports.
    if run.id == live_run or summarise(run).state == "running":
        raise _is_live(run)
    to = home.trash / run.id
    try:
        with _journal_locked(run):
            home.trash.mkdir(exist_ok=True)
            if os.path.lexists(to):
                raise WorkbenchError(
                    f"The trash already has a {run.id}.",
                    "Restore it or empty the trash first: `loraworkbench runs trash`.",
                    kind="trash",
                )
            place.rename(to)
    except OSError as error:
        raise WorkbenchError(
            f"{run.id} cannot be moved to the trash: {error.strerror or error}.",
            f"Check the permissions of {home.runs}.",
            kind="disk",
        ) from None
    return _trashed(to)


@contextmanager
def _journal_locked(run: RunFolder) -> Iterator[None]:
    """Lock the journal, so that no engine starts to write it meanwhile.

    Raises:
        WorkbenchError: an engine is writing it.
    """
    try:
        journal = os.open(run.journal, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # the run never started
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _is_live(run) from None
        yield
    finally:
        os.close(journal)


def _is_live(run: RunFolder) -> WorkbenchError:
    return WorkbenchError(
        f"{run.id} is live, so it cannot be deleted.", "Stop it first, or wait until it ends.", kind="run_busy"
    )


def trashed_runs(home: Home) -> list[TrashedRun]:
    """The runs in the trash, last deleted first."""
    runs = []
    for path in entries(home.trash):
        with suppress(FileNotFoundError):  # restored or removed by another terminal
            runs.append(_trashed(path))
    return sorted(runs, key=lambda run: run.deleted, reverse=True)


def _trashed(path: Path) -> TrashedRun:
    is_link = path.is_symlink()
    return TrashedRun(
        path,
        # Entries of the trash never change, so the last change is the move into it.
        path.lstat().st_ctime,
        path.readlink() if is_link else None,
        0 if is_link else size_of(path),
    )


def restore_run(home: Home, name: str) -> RunFolder:
    """Move a run from the trash back, under its old id.

    Args:
        name: its id, its name, or a unique prefix of its id.

    Raises:
        WorkbenchError: no run matches, several do, the id is in use again, or the run cannot be moved.
    """
    trashed = trashed_runs(home)
    matching = (
        [run for run in trashed if run.id == name]
        or [run for run in trashed if name and run.name == name]
        or [run for run in trashed if name and run.id.startswith(name)]
    )
    if len(matching) != 1:
        ids = ", ".join(run.id for run in (matching or trashed)[:6])
        raise WorkbenchError(
            f"{name} matches {len(matching)} runs in the trash: {ids}."
            if matching
            else f"There is no run {name} in the trash.",
            "Give more of the id." if matching else f"It contains: {ids}." if trashed else "The trash is empty.",
            kind="run_ambiguous" if matching else "run_not_found",
        )
    run = RunFolder(home.runs / matching[0].id)
    if os.path.lexists(run.path):
        raise WorkbenchError(f"{home.runs} already has a {run.id}.", "Delete or move that one first.", kind="trash")
    try:
        matching[0].path.rename(run.path)
    except OSError as error:
        raise WorkbenchError(
            f"{run.id} cannot be restored: {error.strerror or error}.",
            f"Check the permissions of {home.runs}.",
            kind="disk",
        ) from None
    return run


def empty_trash(home: Home) -> list[TrashedRun]:
    """Remove all runs in the trash permanently; returns them.

    Raises:
        WorkbenchError: a run cannot be removed; it and the following ones stay in the trash.
    """
    trashed = trashed_runs(home)
    try:
        for run in trashed:
            with suppress(FileNotFoundError):
                if run.link_target is not None:
                    run.path.unlink()
                else:
                    shutil.rmtree(run.path)
    except OSError as error:
        raise WorkbenchError(
            f"The trash cannot be emptied: {error.strerror or error}.",
            f"Check the permissions of {home.trash}.",
            kind="disk",
        ) from None
    return trashed
