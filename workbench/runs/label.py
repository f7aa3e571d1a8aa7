"""What people call a run: a name and tags, in a small file beside its journal.

A run's id is its folder's name for good. Journals, adapters, checkpoints, chats and evaluations hold it, or the whole
path, and links and engines rely on it, so that another name is kept next to it and never put in its place.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.storage.atomic import write_text

_FILE = "label.json"
_MOST_TAGS = 20

# No sign that a command or a recipe reads as something else: no @ of a checkpoint, = and , of a sum, / of a path.
_NAME = re.compile(r"\w[\w .+-]{0,63}")
_TAG = re.compile(r"\w[\w.+-]{0,31}")


@dataclass(frozen=True)
class Label:
    """``name`` is empty where nobody gave one."""

    name: str = ""
    tags: tuple[str, ...] = ()


def read_label(folder: Path) -> Label:
    """The label of a run's folder; what is missing or damaged, or was put there by hand and cannot be, is left out."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Label()
    if not isinstance(found, dict):
        return Label()
    name, tags = found.get("name"), found.get("tags")
    return Label(
        name if isinstance(name, str) and _NAME.fullmatch(name) else "",
        tuple(tag for tag in tags if isinstance(tag, str) and _TAG.fullmatch(tag))[:_MOST_TAGS]
        if isinstance(tags, list)
        else (),
    )


def write_label(folder: Path, label: Label) -> None:
    """Keep a label; another process sees the old one or the new one.

    Raises:
        WorkbenchError: the disk refuses.
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
    """A name as it is kept, blanks around it left out; empty takes a run's name back.

    Raises:
        WorkbenchError: it has characters that a name cannot have.
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
    """Tags out of a line, with blanks or commas between them; a # before one is left out.

    Raises:
        WorkbenchError: one has characters that a tag cannot have.
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
    """The label with some tags more and some less; a tag is the same in capitals.

    Raises:
        WorkbenchError: they would be too many.
    """
    kept = {tag.casefold(): tag for tag in (*label.tags, *add)}
    for tag in remove:
        kept.pop(tag.casefold(), None)
    if len(kept) > _MOST_TAGS:
        raise WorkbenchError(f"A run has at most {_MOST_TAGS} tags.", "Remove some first.", kind="label")
    return Label(label.name, tuple(kept.values()))
