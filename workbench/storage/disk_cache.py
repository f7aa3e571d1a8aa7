"""A disk cache: one folder per entry, a size limit, and least-recently-used eviction.

It holds what takes time to make again (quantized bases, tokenized datasets). Entries are complete or absent, and any of
them may be deleted at any time. Folders have mode 0700, because tokens are a user's texts.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from workbench.storage import settings
from workbench.storage.atomic import put_folder
from workbench.storage.folders import entries, size_of
from workbench.storage.paths import Home
from workbench.units import size_in

ABOUT = "about.json"
"""The file that describes an entry; an entry without it is incomplete. Its mtime is the time of the last use."""

# Always left free on the disk: runs need it.
_MIN_FREE = 5_000_000_000
# A folder that a process is filling or deleting: ``.<key>.<process id>-<random>``.
_TEMPORARY = re.compile(r"\.(?P<key>.+)\.(?P<pid>\d+)-[0-9a-f]+")

CacheName = Literal["quantised", "tokens"]


@dataclass(frozen=True)
class CacheEntry:
    """One complete entry. ``what`` describes it to the user; ``used`` is the time of its last use or of its writing."""

    folder: Path
    what: str
    bytes: int
    used: float


class DiskCache:
    """Entries by key, each a folder below ``folder``.

    Args:
        limit: maximum total size of the entries, in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit

    @classmethod
    def of(cls, home: Home, name: CacheName) -> "DiskCache":
        """The cache ``name`` of a home, with the limit from the user's settings."""
        limits = settings.read(home).cache
        gigabytes = limits.quantised_gb if name == "quantised" else limits.tokens_gb
        return cls(home.cache / name, int(gigabytes * 1e9))

    def find(self, key: str) -> Path | None:
        """The folder of an entry, which counts as used now; None if there is no such entry."""
        about = self.folder / key / ABOUT
        try:
            os.utime(about)
        except OSError:
            return None
        return about.parent

    def make_room(self, key: str, size: int) -> str:
        """Delete the least recently used entries until ``size`` bytes fit into the limit; none to free the disk.

        Returns:
            An empty string, or why an entry of this size cannot be stored, after "it cannot be cached: ".
        """
        if size > self._limit:
            return f"{size_in('GB', size)} exceeds its limit of {size_in('GB', self._limit)}"
        self._remove_unfinished()
        if any(match["key"] == key for match in map(_TEMPORARY.fullmatch, self._names()) if match):
            return "it is already being written"
        oldest_first = sorted(self.entries(), key=lambda entry: entry.used)
        total = sum(entry.bytes for entry in oldest_first)
        while oldest_first and total + size > self._limit:
            total -= oldest_first[0].bytes
            _remove(oldest_first.pop(0).folder)
        free = shutil.disk_usage(_nearest_existing(self.folder)).free
        if free - size < _MIN_FREE:
            return f"only {size_in('GB', free)} free on its disk"
        return ""

    def begin(self, key: str) -> Path:
        """Create an empty folder to fill and then to :meth:`put`."""
        new = self._temporary_folder(key)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.mkdir(mode=0o700)
        return new

    def put(self, key: str, new: Path, about: Mapping[str, object]) -> Path:
        """Add the filled folder ``new`` as the entry ``key`` and return the entry's folder.

        If another process added the same entry in the meantime, that one stays and ``new`` is deleted.

        Args:
            new: holds files only, no folders.
            about: must have ``what``, the entry's description: without it the entry would not be listed.

        Raises:
            OSError: the entry cannot be written.
        """
        (new / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        for file in new.iterdir():
            file.chmod(0o600)
        target = self.folder / key
        if not (target / ABOUT).is_file():
            try:
                put_folder(new, target, self._temporary_folder(key))
            except OSError:
                if not (target / ABOUT).is_file():
                    raise
        shutil.rmtree(new, ignore_errors=True)
        return target

    def remove(self, key: str) -> None:
        """Delete an entry, if it exists."""
        _remove(self.folder / key)

    def entries(self) -> list[CacheEntry]:
        """All complete entries."""
        found = []
        for name in self._names():
            if _TEMPORARY.fullmatch(name):
                continue
            folder = self.folder / name
            try:
                used = (folder / ABOUT).stat().st_mtime
                about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
                found.append(CacheEntry(folder, str(about["what"]), size_of(folder), used))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def clear(self) -> None:
        """Delete everything except folders that a running process is filling."""
        for name in self._names():
            if not _is_in_use(name):
                _remove(self.folder / name)

    def _remove_unfinished(self) -> None:
        """Delete folders that a process left half written or half deleted when it ended."""
        for name in self._names():
            is_complete = not _TEMPORARY.fullmatch(name) and (self.folder / name / ABOUT).exists()
            if not is_complete and not _is_in_use(name):
                _remove(self.folder / name)

    def _names(self) -> list[str]:
        return [folder.name for folder in entries(self.folder)]

    def _temporary_folder(self, key: str) -> Path:
        return self.folder / f".{key}.{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _remove(folder: Path) -> None:
    # The description goes first, so that a half deleted entry is no longer found.
    (folder / ABOUT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(name: str) -> bool:
    """Whether this is the temporary folder of a process that is still running."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and psutil.pid_exists(int(match["pid"]))


def _nearest_existing(folder: Path) -> Path:
    return folder if folder.exists() else _nearest_existing(folder.parent)
