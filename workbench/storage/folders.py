"""Lists folders and measures their size, ignoring entries that another process deletes in the meantime.

``Path.rglob`` and ``Path.iterdir`` raise FileNotFoundError in that case, for instance while pip empties its scratch
folder, another engine removes old checkpoints, or somebody deletes a run.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name; an empty list if there is no such folder."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]  # noqa: PTH208  (names alone are sorted faster)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_in(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files directly in a folder, sorted by name, each with its ``stat``."""
    return [(path, status) for path in entries(folder) if (status := _file_status(path))]


def files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder, each with its ``stat``. Links to folders are not followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if status := _file_status(path):
                yield path, status


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; a link counts as itself, not as its target."""
    status = _lstat(path)
    if status is None:
        return 0
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    files = (Path(parent, name) for parent, _, names in os.walk(path) for name in names)
    return sum(status.st_size for file in files if (status := _lstat(file)))


def _file_status(path: Path) -> os.stat_result | None:
    """The ``stat`` of a regular file; None for anything else and for a file that is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None
