"""Runs thrown away and brought back. A run is renamed into the trash as it is; nothing of it is removed there.

Of a run that lies outside the home only its link moves: the folder stays where it is, also when the trash is emptied.
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
class Trashed:
    """A run in the trash.

    Attributes:
        path: the run's folder there, or the link to it.
        deleted: Unix time at which it was thrown away.
        elsewhere: the folder outside the home that a link leads to; None for a run of the home.
        bytes: what its files take; 0 for a link.
    """

    path: Path
    deleted: float
    elsewhere: Path | None
    bytes: int

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def name(self) -> str:
        """The name that somebody gave it, else its id."""
        return read_label(self.path).name or self.id


def delete_run(home: Home, run: RunFolder, *, at_work: str | None = None) -> Trashed:
    """Move a run of this home into its trash.

    Args:
        at_work: the id of the run that the engine has, where it was asked: a run that begins has no journal yet.

    Raises:
        WorkbenchError: the run is live, paused too, or not in this home's history; or the disk refuses.
    """
    place = home.runs / run.id
    if not place.is_dir() or not run.path.is_dir() or not place.samefile(run.path):
        raise WorkbenchError(
            f"{run.path} is not in this home's runs folder, so it cannot be moved to its trash.",
            "Delete the folder yourself if you want to remove it.",
            kind="run_elsewhere",
        )
    # Paused is running, too; and not every file system knows the lock of a journal.
    if run.id == at_work or summarise(run).state == "running":
        raise _live(run)
    to = home.trash / run.id
    try:
        with _nobody_writing(run):
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
def _nobody_writing(run: RunFolder) -> Iterator[None]:
    """Hold the journal, so that no engine begins to write it meanwhile.

    Raises:
        WorkbenchError: one does already.
    """
    try:
        held = os.open(run.journal, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # it never began
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _live(run) from None
        yield
    finally:
        os.close(held)


def _live(run: RunFolder) -> WorkbenchError:
    return WorkbenchError(
        f"{run.id} is live, so it cannot be deleted.", "Stop it first, or wait until it ends.", kind="run_busy"
    )


def trashed_runs(home: Home) -> list[Trashed]:
    """What is in the trash, the newest first."""
    there = []
    for path in entries(home.trash):
        with suppress(FileNotFoundError):  # restored, or gone for good, by another terminal
            there.append(_trashed(path))
    return sorted(there, key=lambda one: one.deleted, reverse=True)


def _trashed(path: Path) -> Trashed:
    is_link = path.is_symlink()
    return Trashed(
        path,
        # Nothing in the trash is changed, so the last change of the entry itself is that it was moved here.
        path.lstat().st_ctime,
        path.readlink() if is_link else None,
        0 if is_link else size_of(path),
    )


def restore_run(home: Home, name: str) -> RunFolder:
    """Bring a run back from the trash, under its own id.

    Args:
        name: its id, its name, or a unique beginning of its id.

    Raises:
        WorkbenchError: it is not there, fits several, or its place is taken; or the disk refuses.
    """
    there = trashed_runs(home)
    found = (
        [one for one in there if one.id == name]
        or [one for one in there if name and one.name == name]
        or [one for one in there if name and one.id.startswith(name)]
    )
    if len(found) != 1:
        ids = ", ".join(one.id for one in (found or there)[:6])
        raise WorkbenchError(
            f"{name} matches {len(found)} runs in the trash: {ids}."
            if found
            else f"There is no run {name} in the trash.",
            "Give more of the id." if found else f"It contains: {ids}." if there else "The trash is empty.",
            kind="run_ambiguous" if found else "run_not_found",
        )
    run = RunFolder(home.runs / found[0].id)
    if os.path.lexists(run.path):
        raise WorkbenchError(f"{home.runs} already has a {run.id}.", "Delete or move that one first.", kind="trash")
    try:
        found[0].path.rename(run.path)
    except OSError as error:
        raise WorkbenchError(
            f"{run.id} cannot be restored: {error.strerror or error}.",
            f"Check the permissions of {home.runs}.",
            kind="disk",
        ) from None
    return run


def empty_trash(home: Home) -> list[Trashed]:
    """Remove for good what is in the trash; returns what that was.

    Raises:
        WorkbenchError: the disk refuses; what is left is still there.
    """
    there = trashed_runs(home)
    try:
        for one in there:
            with suppress(FileNotFoundError):
                if one.elsewhere is not None:
                    one.path.unlink()
                else:
                    shutil.rmtree(one.path)
    except OSError as error:
        raise WorkbenchError(
            f"The trash cannot be emptied: {error.strerror or error}.",
            f"Check the permissions of {home.trash}.",
            kind="disk",
        ) from None
    return there
