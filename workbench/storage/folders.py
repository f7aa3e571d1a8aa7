"""Folders that another process changes while they are listed: what vanishes meanwhile is left out.

pip empties its scratch folder during a download, another engine removes old checkpoints, somebody deletes a run.
``Path.rglob`` and ``Path.iterdir`` raise FileNotFoundError then; nothing here does.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name; nothing where there is no such folder."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]  # noqa: PTH208  (names alone are sorted faster)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_in(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files directly in a folder, sorted by name, each with what the system knows of it."""
    return [(path, found) for path in entries(folder) if (found := _file(path))]


def files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder, with what the system knows of it. Folders that are links are not followed."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if found := _file(path):
                yield path, found


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; a link counts as itself."""
    found = _lstat(path)
    if found is None:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    places = (Path(place, name) for place, _, names in os.walk(path) for name in names)
    return sum(found.st_size for place in places if (found := _lstat(place)))


def _file(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None
