"""All that is kept on disk so that it need not be made again, by kind: what it is, where, how large, when last used."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.sources import local_models, remove_model
from workbench.storage.disk_cache import Shelf
from workbench.storage.folders import entries, files_below, files_in, size_of
from workbench.storage.paths import Home

MODELS = "models"
_DAY = 86_400.0


@dataclass(frozen=True)
class KeptThing:
    """``place`` is a folder or a file, ``used`` the time it was last used or written."""

    kind: str
    what: str
    place: Path
    bytes: int
    used: float


def kept(home: Home) -> list[KeptThing]:
    """Everything, kind by kind, what was used last first."""
    return [
        one
        for list_kind, _ in KINDS.values()
        for one in sorted(list_kind(home), key=lambda one: one.used, reverse=True)
    ]


def clear(home: Home, kinds: Sequence[str]) -> dict[str, int]:
    """Remove all that is of some kinds; returns the bytes that came free by kind.

    Args:
        kinds: none means all but the models.

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
        before = sum(one.bytes for one in list_kind(home))
        remove_kind(home)
        freed[kind] = before - sum(one.bytes for one in list_kind(home))
    return freed


def _shelf_of(kind: str) -> tuple[Callable[[Home], list[KeptThing]], Callable[[Home], None]]:
    def list_kind(home: Home) -> list[KeptThing]:
        return [KeptThing(kind, one.what, one.folder, one.bytes, one.used) for one in Shelf.of(home, kind).kept()]

    return list_kind, lambda home: Shelf.of(home, kind).clear()


def _traces(home: Home) -> list[KeptThing]:
    files = [found for file, found in files_in(home.cache / "traces") if file.suffix == ".json"]
    what = f"{len(files)} traced training steps (for memory prediction)"
    return _as_one("traces", what, home.cache / "traces", files)


def _remove_traces(home: Home) -> None:
    for file in entries(home.cache / "traces"):
        if file.suffix == ".json":
            file.unlink(missing_ok=True)


def _compiled(home: Home) -> list[KeptThing]:
    folder = home.cache / "compiled"
    files = [found for _, found in files_below(folder)]
    return _as_one("compiled", "compiled layers", folder, files)


def _remove_compiled(home: Home) -> None:
    shutil.rmtree(home.cache / "compiled", ignore_errors=True)


def _as_one(kind: str, what: str, folder: Path, files: Sequence[os.stat_result]) -> list[KeptThing]:
    """Many small files, as one thing; nothing where there are none."""
    if not files:
        return []
    used = max(file.st_mtime for file in files)
    return [KeptThing(kind, what, folder, sum(file.st_size for file in files), used)]


def _leftovers(home: Home) -> list[KeptThing]:
    """What a process that was killed left in the cache; what is younger may be of one that works."""
    long_ago = time.time() - _DAY
    found = []
    tokens = [path for path in entries(home.cache / "data") if path.name.startswith("tokens-")]
    wheels = [path for path in entries(home.cache) if path.name.startswith(".wheel-")]
    for path in (*tokens, *wheels):
        with suppress(OSError):
            if (written := path.stat().st_mtime) < long_ago:
                found.append(KeptThing("leftovers", "partial files of an ended process", path, size_of(path), written))
    return found


def _remove_leftovers(home: Home) -> None:
    for one in _leftovers(home):
        shutil.rmtree(one.place, ignore_errors=True)


def _models(home: Home) -> list[KeptThing]:
    """Models that were converted here; those of the hub's cache are other programs' too."""
    return [
        KeptThing(MODELS, f"{model.source}, converted", model.folder, size_of(model.folder), _last_read(model.folder))
        for model in local_models(home)
        if model.folder.parent == home.models
    ]


def _last_read(folder: Path) -> float:
    """When a model's files were last opened, as far as the system notes it."""
    return max((max(found.st_atime, found.st_mtime) for _, found in files_in(folder)), default=0)


def _remove_models(home: Home) -> None:
    for model in local_models(home):
        if model.folder.parent == home.models:
            remove_model(home, model)


KINDS: dict[str, tuple[Callable[[Home], list[KeptThing]], Callable[[Home], None]]] = {
    "quantised": _shelf_of("quantised"),
    "tokens": _shelf_of("tokens"),
    "traces": (_traces, _remove_traces),
    "compiled": (_compiled, _remove_compiled),
    "leftovers": (_leftovers, _remove_leftovers),
    MODELS: (_models, _remove_models),
}
