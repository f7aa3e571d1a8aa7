"""Lists and deletes cached files by kind: quantized bases, tokens, traces, compiled layers, models and others."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.sources import local_models, remove_model
from workbench.storage.disk_cache import CacheName, DiskCache
from workbench.storage.folders import entries, files_below, files_in, size_of
from workbench.storage.paths import Home

MODELS = "models"
_DAY = 86_400.0


@dataclass(frozen=True)
class CachedFiles:
    """A cache entry of any kind. ``place`` is a folder or a file; ``used`` is the time of its last use or writing."""

    kind: str
    what: str
    place: Path
    bytes: int
    used: float


def cached_files(home: Home) -> list[CachedFiles]:
    """All cached files, ordered by kind, most recently used first."""
    return [
        entry
        for list_kind, _ in KINDS.values()
        for entry in sorted(list_kind(home), key=lambda entry: entry.used, reverse=True)
    ]


def clear(home: Home, kinds: Sequence[str]) -> dict[str, int]:
    """Delete all cached files of some kinds; returns the freed bytes by kind.

    Args:
        kinds: keys of :data:`KINDS`; empty for all kinds except the models.

    Raises:
        WorkbenchError: there is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise WorkbenchError(
                f"Unknown kind of cached files: {kind!r}.", f"Kinds: {', '.join(KINDS)}.", kind="bad_request"
            )
    freed = {}
    for kind in kinds or [kind for kind in KINDS if kind != MODELS]:
        list_kind, remove_kind = KINDS[kind]
        before = sum(entry.bytes for entry in list_kind(home))
        remove_kind(home)
        freed[kind] = before - sum(entry.bytes for entry in list_kind(home))
    return freed


def _disk_cache(kind: CacheName) -> tuple[Callable[[Home], list[CachedFiles]], Callable[[Home], None]]:
    def list_kind(home: Home) -> list[CachedFiles]:
        entries_of_kind = DiskCache.of(home, kind).entries()
        return [CachedFiles(kind, entry.what, entry.folder, entry.bytes, entry.used) for entry in entries_of_kind]

    return list_kind, lambda home: DiskCache.of(home, kind).clear()


def _traces(home: Home) -> list[CachedFiles]:
    files = [status for file, status in files_in(home.cache / "traces") if file.suffix == ".json"]
    what = f"{len(files)} traced training steps (for memory prediction)"
    return _as_one_entry("traces", what, home.cache / "traces", files)


def _remove_traces(home: Home) -> None:
    for file in entries(home.cache / "traces"):
        if file.suffix == ".json":
            file.unlink(missing_ok=True)


def _whole_folder(kind: str, what: str) -> tuple[Callable[[Home], list[CachedFiles]], Callable[[Home], None]]:
    """How to list and to delete a folder of the cache, called as the kind, as one entry."""

    def list_kind(home: Home) -> list[CachedFiles]:
        folder = home.cache / kind
        return _as_one_entry(kind, what, folder, [status for _, status in files_below(folder)])

    return list_kind, lambda home: shutil.rmtree(home.cache / kind, ignore_errors=True)


def _as_one_entry(kind: str, what: str, folder: Path, files: Sequence[os.stat_result]) -> list[CachedFiles]:
    """Many small files listed as a single entry; an empty list if there are no files."""
    if not files:
        return []
    used = max(file.st_mtime for file in files)
    return [CachedFiles(kind, what, folder, sum(file.st_size for file in files), used)]


def _leftovers(home: Home) -> list[CachedFiles]:
    """Temporary folders left by killed processes: those over a day old, as younger ones may still be in use."""
    a_day_ago = time.time() - _DAY
    found = []
    tokens = [path for path in entries(home.cache / "data") if path.name.startswith("tokens-")]
    wheels = [path for path in entries(home.cache) if path.name.startswith(".wheel-")]
    for path in (*tokens, *wheels):
        with suppress(OSError):
            if (written := path.stat().st_mtime) < a_day_ago:
                what = "partial files of an ended process"
                found.append(CachedFiles("leftovers", what, path, size_of(path), written))
    return found


def _remove_leftovers(home: Home) -> None:
    for leftover in _leftovers(home):
        shutil.rmtree(leftover.place, ignore_errors=True)


def _models(home: Home) -> list[CachedFiles]:
    """Models converted on this machine. The hub cache is left out, as other programs share it."""
    return [
        CachedFiles(MODELS, f"{model.source}, converted", model.folder, size_of(model.folder), _last_read(model.folder))
        for model in local_models(home)
        if model.folder.parent == home.models
    ]


def _last_read(folder: Path) -> float:
    """When a model's files were last opened, as far as the file system records it."""
    return max((max(status.st_atime, status.st_mtime) for _, status in files_in(folder)), default=0)


def _remove_models(home: Home) -> None:
    for model in local_models(home):
        if model.folder.parent == home.models:
            remove_model(home, model)


KINDS: dict[str, tuple[Callable[[Home], list[CachedFiles]], Callable[[Home], None]]] = {
    "quantised": _disk_cache("quantised"),
    "tokens": _disk_cache("tokens"),
    "traces": (_traces, _remove_traces),
    "compiled": _whole_folder("compiled", "compiled layers"),
    "llama.cpp": _whole_folder("llama.cpp", "llama.cpp's converter and library"),
    "leftovers": (_leftovers, _remove_leftovers),
    MODELS: (_models, _remove_models),
}
"""How to list and how to delete each kind."""
