"""Checkpoints on disk: whole or absent, checked before they are trusted, old ones removed only when a new one is there.

A checkpoint is written into a folder beside its place, listed in a manifest with size and SHA-256 of each file, brought
to the disk with fsync, and only then given its name. What it holds is the trainer's affair.
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
_ASIDE = "partial"
_BEFORE = "before"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has its name. ``step`` is the number of optimizer steps it holds."""

    path: Path
    step: int


def write_checkpoint(
    folder: Path,
    step: int,
    write: Callable[[Path], object],
    keep: int,
    *,
    leads: bool = True,
    together: Callable[[Callable[[], object]], object] = lambda work: work(),
) -> Checkpoint:
    """Make ``folder/checkpoint-<step>`` and remove the oldest ones beyond ``keep``.

    Args:
        write: fills the folder it is given, which has the checkpoint's own name, in another place; makes it first where
            it is not there.
        leads: of several processes that fill one checkpoint, whether this is the one that names it in the end.
        together: does something in all these processes, and raises in all what it raises in one.

    Raises:
        OSError: the disk is full or broken, or whatever ``write`` raises; nothing half-made is left, and the older
            checkpoints are untouched.
    """
    made = Checkpoint(folder / f"checkpoint-{step}", step)
    aside = folder / _ASIDE

    def begin() -> None:
        recover(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)

    def publish() -> None:
        filled = aside / made.path.name
        _seal(filled)
        # Should the process be killed between its two renames, `recover` brings the old one back.
        put_folder(filled, made.path, aside / _BEFORE / made.path.name)
        _sync(folder)

    try:
        together(begin if leads else _nothing)
        together(lambda: write(aside / made.path.name))
        together(publish if leads else _nothing)
    finally:
        if leads:
            recover(folder)
            shutil.rmtree(aside, ignore_errors=True)
    if leads:
        for old in checkpoints(folder)[:-keep]:
            if old != made:
                shutil.rmtree(old.path, ignore_errors=True)
    return made


def _nothing() -> None:
    """The part of a process that does not lead."""


def recover(folder: Path) -> None:
    """Give a checkpoint its name back that a killed process had put aside to replace it."""
    for old in entries(folder / _ASIDE / _BEFORE):
        with suppress(OSError):
            # Onto a folder with something in it, which is the new one, a rename fails.
            old.rename(folder / old.name)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Those that were written to their end, oldest first."""
    found = [(entry, _NAME.fullmatch(entry.name)) for entry in entries(folder) if entry.is_dir()]
    return sorted((Checkpoint(entry, int(match[1])) for entry, match in found if match), key=lambda made: made.step)


def newest_whole(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is as it was written, and what is wrong with each newer one."""
    damaged: list[str] = []
    recover(folder)
    for checkpoint in reversed(checkpoints(folder)):
        problem = what_is_wrong(checkpoint.path)
        if not problem:
            return checkpoint, damaged
        damaged.append(f"{checkpoint.path.name} is damaged: {problem}")
    return None, damaged


def what_is_wrong(checkpoint: Path) -> str:
    """Why a checkpoint cannot be trusted; empty when every file has the size and hash of its manifest."""
    try:
        listed = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, facts in listed.items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != facts["bytes"]:
                return f"{name} holds {file.stat().st_size:,} bytes instead of {facts['bytes']:,}"
            if _digest(file) != facts["sha256"]:
                return f"{name} does not match its manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return ""


def remove_checkpoints(folder: Path) -> None:
    """Remove all of them, whole or not."""
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring every file in ``folder``, and the folder itself, to the disk.

    Raises:
        OSError: the disk refuses.
    """
    for entry in [*folder.rglob("*"), folder]:
        _sync(entry)


def _seal(folder: Path) -> None:
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
