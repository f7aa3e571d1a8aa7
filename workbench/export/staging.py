"""The folder of an export: made beside its place, given its name when it is whole, never put over what is there."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from workbench.errors import WorkbenchError
from workbench.runs.checkpoints import sync_folder
from workbench.storage.atomic import put_folder
from workbench.storage.folders import entries

MARK = "export.json"
"""In every export: what it is of. Only a folder with this file is ever replaced."""


def check_place(folder: Path, force: bool) -> None:
    """Look whether ``folder`` may be made, or replaced.

    Raises:
        WorkbenchError: something is there that must not be lost.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise WorkbenchError(f"{folder} is not a folder.", "Choose a new folder name.", kind="exists")
    if not entries(folder):
        return
    if not (folder / MARK).is_file():
        raise WorkbenchError(
            f"{folder} contains files that no export wrote; they are not touched.",
            f"Choose a new folder name, such as {folder / 'export'}.",
            kind="exists",
        )
    if not force:
        raise WorkbenchError(
            f"{folder} contains an earlier export.",
            "Choose another folder, or add --force to overwrite it.",
            kind="exists",
        )


@contextmanager
def written_aside(folder: Path, force: bool) -> Iterator[Path]:
    """Within, the folder to write to; afterwards all of it lies in ``folder``, or, after an exception, nothing.

    Raises:
        WorkbenchError: as :func:`check_place`.
    """
    check_place(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        yield aside
        sync_folder(aside)
        _put(aside, folder, force)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def room(folder: Path) -> int:
    """Free bytes on the disk that ``folder`` will lie on."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _put(aside: Path, folder: Path, force: bool) -> None:
    # Somebody may have put something there meanwhile.
    check_place(folder, force)
    put_folder(aside, folder, aside.with_name(f"{aside.name}-before"))


def _remove_leftovers(folder: Path) -> None:
    """What an export to the same place left whose process was killed."""
    start = f".{folder.name}.partial-"
    for entry in entries(folder.parent):
        owner = entry.name.removeprefix(start).split("-")[0]
        is_ours = entry.name.startswith(start) and entry.is_dir() and not entry.is_symlink()
        if is_ours and owner.isdigit() and not psutil.pid_exists(int(owner)) and not entry.name.endswith("-before"):
            shutil.rmtree(entry, ignore_errors=True)
