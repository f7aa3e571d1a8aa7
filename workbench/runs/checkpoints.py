"""Writes, verifies and prunes the checkpoint folders of a run, so that a crash never leaves a broken one.

A checkpoint is written into a temporary folder, listed in a manifest with the size and SHA-256 of each file, flushed to
the disk with fsync, and only then renamed to ``checkpoint-<step>``. Old checkpoints are removed after that. The trainer
decides which files a checkpoint contains.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.storage.atomic import put_folder
from workbench.storage.folders import entries

_MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_TEMPORARY = "partial"
_REPLACED = "before"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint folder, taken after ``step`` optimizer steps."""

    path: Path
    step: int


def write_checkpoint(
    folder: Path,
    step: int,
    write: Callable[[Path], object],
    keep: int,
    *,
    is_main: bool = True,
    run_on_all: Callable[[Callable[[], object]], object] = lambda work: work(),
) -> Checkpoint:
    """Write ``folder/checkpoint-<step>`` and remove all but the newest ``keep`` checkpoints.

    Args:
        write: writes the checkpoint's files into the temporary folder it gets, which it creates if necessary. The
            folder already has the name ``checkpoint-<step>``.
        is_main: in a run of several processes, whether this process renames the finished checkpoint.
        run_on_all: runs a function in all these processes; an exception in one is raised in all.

    Raises:
        OSError: the disk is full or broken. This, and whatever ``write`` raises, leaves no partial checkpoint and
            does not touch the older ones.
    """
    checkpoint = Checkpoint(folder / f"checkpoint-{step}", step)
    temporary = folder / _TEMPORARY

    def prepare() -> None:
        restore_replaced(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def publish() -> None:
        complete = temporary / checkpoint.path.name
        _write_manifest(complete)
        # If the process is killed between the two renames, `restore_replaced` brings the old checkpoint back.
        put_folder(complete, checkpoint.path, temporary / _REPLACED / checkpoint.path.name)
        _sync(folder)

    try:
        run_on_all(prepare if is_main else _do_nothing)
        run_on_all(lambda: write(temporary / checkpoint.path.name))
        run_on_all(publish if is_main else _do_nothing)
    finally:
        if is_main:
            restore_replaced(folder)
            shutil.rmtree(temporary, ignore_errors=True)
    if is_main:
        for old in checkpoints(folder)[:-keep]:
            if old != checkpoint:
                shutil.rmtree(old.path, ignore_errors=True)
    return checkpoint


def _do_nothing() -> None:
    """What the other processes do while the main one works."""


def restore_replaced(folder: Path) -> None:
    """Rename back a checkpoint that a killed process had moved away in order to replace it."""
    for old in entries(folder / _TEMPORARY / _REPLACED):
        with suppress(OSError):
            # Fails if the new checkpoint is already there: a rename does not replace a folder with files in it.
            old.rename(folder / old.name)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """All complete checkpoints in a folder, oldest first."""
    matches = [(entry, _NAME.fullmatch(entry.name)) for entry in entries(folder) if entry.is_dir()]
    complete = (Checkpoint(entry, int(match[1])) for entry, match in matches if match)
    return sorted(complete, key=lambda checkpoint: checkpoint.step)


def newest_intact(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest undamaged checkpoint; also returns what is wrong with each newer one."""
    problems: list[str] = []
    restore_replaced(folder)
    for checkpoint in reversed(checkpoints(folder)):
        problem = find_damage(checkpoint.path)
        if not problem:
            return checkpoint, problems
        problems.append(f"{checkpoint.path.name} is damaged: {problem}")
    return None, problems


def find_damage(checkpoint: Path) -> str:
    """Compare a checkpoint's files with its manifest; returns the first problem, or an empty text."""
    try:
        files = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, recorded in files.items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != recorded["bytes"]:
                return f"{name} holds {file.stat().st_size:,} bytes instead of {recorded['bytes']:,}"
            if _digest(file) != recorded["sha256"]:
                return f"{name} does not match its manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return ""


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints, also incomplete ones."""
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush every file in ``folder``, and the folder itself, to the disk.

    Raises:
        OSError: a file cannot be flushed.
    """
    for entry in [*folder.rglob("*"), folder]:
        _sync(entry)


def _write_manifest(folder: Path) -> None:
    files = sorted(entry for entry in folder.rglob("*") if entry.is_file())
    listed = {str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in files}
    (folder / _MANIFEST).write_text(json.dumps({"files": listed}, indent=1), encoding="utf-8")
    sync_folder(folder)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
