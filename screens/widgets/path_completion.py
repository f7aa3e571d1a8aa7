"""Completes a path or the name of a source that is being typed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.storage.paths import Home


def _nothing(_: Home) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class PathKind:
    """What a path field takes.

    Attributes:
        fits: whether a file is of the expected type; None takes folders only.
        names: values that are no paths, such as bundled datasets. Called in a thread, as is ``used``.
        used: values of earlier runs, the newest first.
        is_mix: the text may name several sources, joined by `` + ``; the last one is completed.
        is_bare: a text without a slash may be a path too.
    """

    fits: Callable[[Path], bool] | None = None
    names: Callable[[Home], Sequence[str]] = _nothing
    used: Callable[[Home], Sequence[str]] = _nothing
    is_mix: bool = False
    is_bare: bool = True


def last_part(text: str, kind: PathKind) -> tuple[str, str]:
    """Split a text into what is kept and what is completed: the last source of a mix."""
    start = max((match.end() for match in re.finditer(r"\s\+\s+", text)), default=0) if kind.is_mix else 0
    return text[:start], text[start:]


def completions(text: str, kind: PathKind, names: Sequence[str] = ()) -> list[str]:
    """Return the texts that begin with a text and are longer: names, in any case, then files and folders.

    A folder ends with a slash. Hidden files are left out until their dot is typed, and names that a terminal cannot
    show always.
    """
    before, part = last_part(text, kind)
    if not part:
        return []
    found = [name for name in names if name.casefold().startswith(part.casefold())] + _paths(part, kind)
    return [before + name for name in dict.fromkeys(found) if name != part]


def common_start(texts: Sequence[str]) -> str:
    """Return the text that all texts begin with."""
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((at for at, (one, other) in pairs if one != other), len(first))]


def folder_of(text: str, kind: PathKind) -> Path:
    """Return the folder where a file tree starts: the nearest one that exists on the typed path."""
    path = expanded(last_part(text, kind)[1].strip()) or Path()
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path()).absolute()


def expanded(text: str) -> Path | None:
    """Return a typed path with the home folder for ``~``; None if there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return None


def _paths(part: str, kind: PathKind) -> list[str]:
    head, slash, start = part.rpartition("/")
    if not slash and (part.startswith("~") or part in (".", "..")):
        folder = expanded(part)
        return [f"{part}/"] if folder is not None and folder.is_dir() else []
    folder = expanded(head + slash or ".") if kind.is_bare or slash else None
    if folder is None:
        return []
    folders, files = _entries(folder, start)
    fitting = [name for name in files if kind.fits is not None and kind.fits(Path(name))]
    # A file of another type is offered where nothing else is: the field then says what is wrong with it.
    files = fitting if fitting or folders or kind.fits is None else files
    return [head + slash + name for name in sorted([*(f"{name}/" for name in folders), *files])]


def _entries(folder: Path, start: str) -> tuple[list[str], list[str]]:
    """Return the names of folders and files that begin with a text; none of a folder that cannot be read."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_hidden = entry.name.startswith(".") and not start
                if entry.name.startswith(start) and entry.name.isprintable() and not is_hidden:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError:
        pass
    return folders, files
