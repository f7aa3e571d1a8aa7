"""The sources that ``data.source`` names, in its text form and in its list form.

As text it is one source, or several joined with `` + ``, each with an optional weight: ``a.jsonl*0.5 + b/`` uses every
second record of the first file, and then the whole folder. As a list its sources are interleaved by weight; each may
have a split, columns and a format of its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection
from workbench.recipe.sections.data_source import SourceEntry
from workbench.recipe.text import as_flow_yaml, parse_value

# Files that hold several sets of records: one is named after a colon, as in ``book.xlsx:Sheet1``.
_WITH_PARTS = (".xlsx", ".sqlite", ".sqlite3", ".db", ".json")


@dataclass(frozen=True)
class SourcePart:
    """One source, and how to read it: the settings of its entry, or else those of the data section."""

    name: str
    weight: float
    split: str
    columns: Mapping[str, str]
    format: str


def source_parts(data: DataSection) -> list[SourcePart]:
    """The sources of a recipe.

    Raises:
        WorkbenchError: a weight is not a number above 0.
    """
    if isinstance(data.source, str):
        weighted = [_name_and_weight(part) for part in _split(data.source)]
        return [SourcePart(name, weight, data.split, data.columns, data.format) for name, weight in weighted]
    return [
        SourcePart(
            entry.source,
            entry.weight,
            entry.split or data.split,
            data.columns if entry.columns is None else entry.columns,
            entry.format or data.format,
        )
        for entry in data.source
    ]


def source_names(source: str | Sequence[SourceEntry]) -> list[str]:
    """The names of the sources, without weights."""
    if isinstance(source, str):
        return [_split_weight(part)[0] for part in _split(source)]
    return [entry.source for entry in source]


def renamed(source: str | Sequence[SourceEntry], rename: Callable[[str], str]) -> str | list[dict[str, object]]:
    """The same source under other names; as plain data, for :func:`workbench.recipe.text.edit`."""
    if isinstance(source, str):
        parts = [_split_weight(part) for part in _split(source)]
        return " + ".join(rename(name) + weight for name, weight in parts)
    return [{**entry.model_dump(), "source": rename(entry.source)} for entry in source]


def source_text(source: object) -> str:
    """``data.source``, of a recipe or of a journal, as text for a reader."""
    if isinstance(source, str):
        return source
    try:
        entries = [SourceEntry.model_validate(entry) for entry in source] if isinstance(source, Sequence) else []
    except ValidationError:
        entries = []
    if not entries:
        return str(source)
    if len(entries) == 1:
        return entries[0].source
    return "interleaved: " + ", ".join(
        entry.source + (f" (weight {entry.weight:g})" if entry.weight != 1 else "") for entry in entries
    )


def source_as_typed(source: str | Sequence[SourceEntry]) -> str:
    """``data.source`` as it can be typed, so that :func:`typed_source` reads it back."""
    return source if isinstance(source, str) else as_flow_yaml([entry.model_dump() for entry in source])


def typed_source(text: str) -> object:
    """A source as it was typed: a list where the text is one, else the text.

    A list that is not complete yet becomes a list that no recipe accepts, so that the mistake is shown.
    """
    if not text.lstrip().startswith("[") or exists(text.strip()):
        return text.strip()
    try:
        value = parse_value(text)
    except ValueError:
        value = None
    return value if isinstance(value, list) else [{"source": "", "list": text}]


def exists(name: str) -> bool:
    """Whether a path exists; False for text that no path can be."""
    try:
        return bool(name) and Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def split_inner(name: str) -> tuple[str, str]:
    """Split ``book.xlsx:Sheet1`` into file and inner name; any other name has an empty inner name."""
    if not exists(name):
        path, colon, inner = name.rpartition(":")
        if colon and Path(path).suffix.lower() in _WITH_PARTS:
            return path, inner
    return name, ""


def _split(source: str) -> list[str]:
    return [source] if exists(source) else [part.strip() for part in re.split(r"\s\+\s", source)]


def _split_weight(part: str) -> tuple[str, str]:
    """Name and weight of a part; the weight as text with its star, empty without one."""
    name, star, weight = part.rpartition("*")
    return (name.strip(), star + weight.strip()) if star and not exists(part) else (part, "")


def _name_and_weight(part: str) -> tuple[str, float]:
    name, weight = _split_weight(part)
    if not weight:
        return name, 1.0
    try:
        value = float(weight[1:])
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise WorkbenchError(
            f"{part}: {weight[1:]!r} is not a valid weight.",
            "Give a number above 0, such as notes.jsonl*0.5.",
            kind="data_source",
        )
    return name, value
