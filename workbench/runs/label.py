"""Reads and writes the label of a run, the name and tags that the user gave it, in a small file beside its journal.

A run's id, the name of its folder, never changes: journals, adapters, chats and evaluations contain the id or the
path. The user's name is therefore stored next to it and does not replace it.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.storage.atomic import write_text

_FILE = "label.json"
_MAX_TAGS = 20

# Excludes characters with a meaning in commands and recipes: @ (checkpoint), = and , (combined adapters), / (path).
_NAME = re.compile(r"\w[\w .+-]{0,63}")
_TAG = re.compile(r"\w[\w.+-]{0,31}")


@dataclass(frozen=True)
class Label:
    """The user's name and tags for a run; ``name`` is empty if the user gave none."""

    name: str = ""
    tags: tuple[str, ...] = ()


def read_label(folder: Path) -> Label:
    """Read the label of a run folder; missing, damaged or invalid parts are left out."""
    try:
        label = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Label()
    if not isinstance(label, dict):
        return Label()
    name, tags = label.get("name"), label.get("tags")
    return Label(
        name if isinstance(name, str) and _NAME.fullmatch(name) else "",
        tuple(tag for tag in tags if isinstance(tag, str) and _TAG.fullmatch(tag))[:_MAX_TAGS]
        if isinstance(tags, list)
        else (),
    )


def write_label(folder: Path, label: Label) -> None:
    """Save a label atomically.

    Raises:
        WorkbenchError: the file cannot be written.
    """
    try:
        write_text(folder / _FILE, json.dumps(asdict(label), ensure_ascii=False) + "\n")
    except OSError as error:
        raise WorkbenchError(
            f"The label of {folder.name} cannot be written: {error.strerror or error}.",
            "Free some disk space, or check the folder's permissions.",
            kind="disk",
        ) from None


def checked_name(text: str) -> str:
    """Validate a name and normalize its blanks; an empty one removes the run's name.

    Raises:
        WorkbenchError: the name has characters that are not allowed.
    """
    name = " ".join(text.split())
    if name and not _NAME.fullmatch(name):
        raise WorkbenchError(
            f"{name} is not a valid run name.",
            "Allowed: up to 64 letters, digits, spaces and . _ + -, starting with a letter or digit.",
            kind="label",
        )
    return name


def parse_tags(text: str) -> list[str]:
    """Split a line into tags at blanks or commas; a leading # is removed.

    Raises:
        WorkbenchError: a tag has characters that are not allowed.
    """
    tags = [word.removeprefix("#") for word in re.split(r"[\s,]+", text) if word]
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise WorkbenchError(
                f"{tag} is not a valid tag.",
                "Allowed: up to 32 letters, digits and . _ + -, starting with a letter or digit.",
                kind="label",
            )
    return tags


def with_tags(label: Label, add: list[str], remove: list[str]) -> Label:
    """Add and remove tags of a label, ignoring case.

    Raises:
        WorkbenchError: there would be too many tags.
    """
    by_key = {tag.casefold(): tag for tag in (*label.tags, *add)}
    for tag in remove:
        by_key.pop(tag.casefold(), None)
    if len(by_key) > _MAX_TAGS:
        raise WorkbenchError(f"A run has at most {_MAX_TAGS} tags.", "Remove some first.", kind="label")
    return Label(label.name, tuple(by_key.values()))
