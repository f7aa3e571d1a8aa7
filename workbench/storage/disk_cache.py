"""What is kept on disk because making it again takes time: each thing in a folder of its own, whole or absent.

A shelf has a limit; what was used longest ago goes first when it is passed. Nothing on it is missed once it is gone.
Folders are mode 0700: tokens are a user's texts.
"""

import json
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench.storage import settings
from workbench.storage.folders import entries, size_of
from workbench.storage.paths import Home
from workbench.units import size_in

ABOUT = "about.json"
# A cache never takes the last of a disk: runs need it.
_LEFT_FREE = 5_000_000_000
_PARTIAL = re.compile(r"\.(?P<key>.+)\.(?P<pid>\d+)-[0-9a-f]+")


@dataclass(frozen=True)
class Kept:
    """One thing on a shelf. ``used`` is the time it was last taken or put there."""

    folder: Path
    what: str
    bytes: int
    used: float


class Shelf:
    """Folders by key under one place.

    Args:
        limit: bytes that all of them may take together.
    """

    def __init__(self, place: Path, limit: int) -> None:
        self.place = place
        self._limit = limit

    @classmethod
    def of(cls, home: Home, name: str) -> "Shelf":
        """The shelf ``name`` of a home, with the user's limit."""
        gigabytes = getattr(settings.read(home).cache, f"{name}_gb")
        return cls(home.cache / name, int(gigabytes * 1e9))

    def find(self, key: str) -> Path | None:
        """The folder of ``key``, marked as used now; None where there is none."""
        about = self.place / key / ABOUT
        try:
            os.utime(about)
        except OSError:
            return None
        return about.parent

    def why_not(self, key: str, size: int) -> str:
        """Why ``size`` bytes cannot be kept, empty where they can; the oldest go for it if they must."""
        if size > self._limit:
            return f"{size_in('GB', size)} exceeds its limit of {size_in('GB', self._limit)}"
        self._sweep()
        if any(match["key"] == key for match in map(_PARTIAL.fullmatch, self._names()) if match):
            return "it is already being written"
        kept = sorted(self.kept(), key=lambda one: one.used)
        taken = sum(one.bytes for one in kept)
        while kept and taken + size > self._limit:
            taken -= kept[0].bytes
            _remove(kept.pop(0).folder)
        free = shutil.disk_usage(_existing(self.place)).free
        if free - size < _LEFT_FREE:
            return f"only {size_in('GB', free)} free on its disk"
        return ""

    def begin(self, key: str) -> Path:
        """An empty folder beside the place of ``key``, to be filled and :meth:`put`."""
        partial = self.place / f".{key}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        return partial

    def put(self, key: str, partial: Path, about: dict[str, Any]) -> Path:
        """Give a filled folder its place, unless somebody else has just put the same there. Returns what is there."""
        (partial / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        for file in partial.iterdir():
            file.chmod(0o600)
        place = self.place / key
        try:
            partial.rename(place)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            if not (place / ABOUT).is_file():
                raise
        return place

    def remove(self, key: str) -> None:
        _remove(self.place / key)

    def kept(self) -> list[Kept]:
        """What lies there whole."""
        found = []
        for name in self._names():
            folder = self.place / name
            try:
                used = (folder / ABOUT).stat().st_mtime
                about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
                found.append(Kept(folder, str(about["what"]), size_of(folder), used))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def clear(self) -> None:
        """Remove all that is not being written at this moment."""
        for name in self._names():
            if not _is_alive(name):
                _remove(self.place / name)

    def _sweep(self) -> None:
        """Remove what a process left half written, or half removed, when it ended."""
        for name in self._names():
            if not (self.place / name / ABOUT).exists() and not _is_alive(name):
                _remove(self.place / name)

    def _names(self) -> list[str]:
        return [folder.name for folder in entries(self.place)]


def _remove(folder: Path) -> None:
    """From its description on: what is half removed is not found any more."""
    (folder / ABOUT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _is_alive(name: str) -> bool:
    """Whether a folder is being filled by a process that still runs."""
    match = _PARTIAL.fullmatch(name)
    return match is not None and psutil.pid_exists(int(match["pid"]))


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
