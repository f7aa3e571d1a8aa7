"""Writes an export into a temporary folder and renames it when it is complete; never overwrites other files."""

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
"""The file in every export that says what was exported. Only a folder with this file is ever replaced."""


def check_target_folder(folder: Path, force: bool) -> None:
    """Check that ``folder`` can be created or, with ``force``, replaced.

    Raises:
        WorkbenchError: something is there that must not be overwritten.
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
def staging_folder(folder: Path, force: bool) -> Iterator[Path]:
    """Yield a temporary folder to write to; when the block ends, it is renamed to ``folder``.

    After an exception it is deleted, and an earlier export in ``folder`` stays.

    Raises:
        WorkbenchError: as :func:`check_target_folder`.
    """
    check_target_folder(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    staging = folder.with_name(f".{folder.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    staging.mkdir()
    try:
        yield staging
        sync_folder(staging)
        # Again, because something may have been created there in the meantime.
        check_target_folder(folder, force)
        put_folder(staging, folder, staging.with_name(f"{staging.name}-before"))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet."""
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free


def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary folders of killed exports to the same target."""

    start = f".{folder.name}.partial-"
    for entry in entries(folder.parent):
        owner = entry.name.removeprefix(start).split("-")[0]
        is_ours = entry.name.startswith(start) and entry.is_dir() and not entry.is_symlink()
        if is_ours and owner.isdigit() and not psutil.pid_exists(int(owner)) and not entry.name.endswith("-before"):
            shutil.rmtree(entry, ignore_errors=True)
