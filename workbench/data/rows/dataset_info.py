"""Datasets that LLaMA-Factory's ``dataset_info.json`` names: where their records are, their columns and tags.

Its keys: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.data.records.conversation import BadRecord
from workbench.data.records.layouts import ROLE_KEYS, TEXT_KEYS
from workbench.data.records.turns import ROLES
from workbench.data.records.values import as_structure
from workbench.data.rows.row import ReadRows, Row, shown
from workbench.errors import WorkbenchError
from workbench.recipe.data_sources import exists, split_inner

FILE = "dataset_info.json"
_MAX_BYTES = 16_000_000
_PLACES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name")
# LLaMA-Factory's name of a column, and the part of a record that it holds.
_ALPACA = {
    "prompt": "prompt", "query": "input", "response": "reply", "history": "history", "system": "system",
    "tools": "tools",
}  # fmt: skip
_SHAREGPT = {"messages": "messages", "system": "system", "tools": "tools"}
# Each tag with its default, and the role of turns that it stands for.
_ROLE_TAGS = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}
_KNOWN = {*_PLACES, "formatting", "ranking", "subset", "split", "num_samples", "columns", "tags"}
_NAMED = 12


@dataclass(frozen=True)
class TurnTags:
    """The keys and role names of turns, where they are other than those that records usually have."""

    role: str
    content: str
    roles: Mapping[str, str]

    def renamed(self, turn: object) -> object:
        """A turn under the usual keys and role names."""
        if not isinstance(turn, Mapping) or self.role not in turn:
            return turn
        rest = {key: value for key, value in turn.items() if key not in (self.role, self.content)}
        role = turn[self.role]
        renamed = self.roles.get(role, role) if isinstance(role, str) else role
        return {"role": renamed, "content": turn.get(self.content), **rest}


@dataclass(frozen=True)
class DatasetEntry:
    """One dataset of the file.

    Attributes:
        name: as a source, for messages: ``data/dataset_info.json:name``.
        file: the ``dataset_info.json``.
        place: file or folder of its records; None if they are on the hub.
        hub: id on the hub and configuration.
        columns: by part of a record, the column that the entry names for it; empty: found by their usual names.
        turns: the columns of turns to which ``tags`` apply.
        tags: how its turns are spelled; None if that needs no translation.
        labels: the column that says which responses are good, if the entry names one.
    """

    name: str
    file: Path
    place: Path | None
    hub: tuple[str, str | None] = ("", None)
    split: str = "train"
    rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    tags: TurnTags | None = None
    labels: str = ""


def find_entry(name: str) -> DatasetEntry | None:
    """The dataset that a source names: ``folder/dataset_info.json:name``, or a folder or file with a single one.

    None for a source that is something else, such as a folder with the ``dataset_info.json`` of ``datasets``.

    Raises:
        WorkbenchError: the file names several datasets or not this one, or the entry uses what is not supported.
    """
    path, inner = split_inner(name)
    file = Path(path).expanduser()
    file = file / FILE if exists(path) and file.is_dir() else file
    if file.name != FILE or (entries := _read(file)) is None:
        return None
    if not inner and len(entries) == 1:
        inner = next(iter(entries))
    if inner not in entries:
        listed = ", ".join(list(entries)[:_NAMED]) + (" …" if len(entries) > _NAMED else "")
        lacks = f"has no dataset {inner!r}" if inner else f"names {len(entries)} datasets"
        example = f"{shown(file)}:{next(iter(entries))}"
        raise WorkbenchError(f"{shown(file)} {lacks}: {listed}.", f"Name one, such as {example}.", kind="data_source")
    return _entry(f"{shown(file)}:{inner}", entries[inner], file)


def _read(file: Path) -> dict[str, dict[str, Any]] | None:
    """The entries of the file; None if it is not LLaMA-Factory's."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            return None
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    is_registry = isinstance(entries, dict) and all(
        isinstance(entry, dict) and any(isinstance(entry.get(place), str) for place in _PLACES)
        for entry in entries.values()
    )
    return entries if is_registry and entries else None


def _entry(name: str, entry: Mapping[str, Any], file: Path) -> DatasetEntry:
    place = next(place for place in _PLACES if isinstance(entry.get(place), str))
    if place not in ("hf_hub_url", "file_name"):
        raise WorkbenchError(
            f"{name} is at {place} {str(entry[place])[:80]!r}, which is not supported.",
            "Download the records, and name their file in file_name.",
            kind="data_source",
        )
    unknown = [key for key, value in entry.items() if key not in _KNOWN and value]
    if unknown:
        raise WorkbenchError(
            f"{name} sets {', '.join(map(str, unknown[:5]))}, which is not supported.",
            "Remove it from the entry, or give the records themselves as the source.",
            kind="data_source",
        )
    is_hub = place == "hf_hub_url"
    kind = str(entry.get("formatting") or "alpaca")
    given = {key: column for key, column in _mapping(entry, "columns", name).items() if column}
    names = _ALPACA if kind == "alpaca" else _SHAREGPT
    columns = {names[key]: column for key, column in given.items() if key in names}
    is_pair = bool(entry.get("ranking"))
    if is_pair and given:
        columns = {"prompt" if part == "messages" else part: column for part, column in columns.items()}
        columns |= {part: given.get(part, part) for part in ("chosen", "rejected")}
        columns.pop("reply", None)
    turns: tuple[str, ...] = (columns.get("prompt" if is_pair else "messages", "conversations"),)
    if is_pair:
        turns = (*turns, columns.get("chosen", "chosen"), columns.get("rejected", "rejected"))
    if kind == "alpaca" and columns.keys() == {"prompt"}:
        columns = {"text": columns["prompt"]}  # a set for pre-training has no response
    rows = entry.get("num_samples")
    return DatasetEntry(
        name,
        file,
        None if is_hub else file.parent / Path(entry["file_name"]).expanduser(),
        (entry["hf_hub_url"], entry.get("subset")) if is_hub else ("", None),
        str(entry.get("split") or "train"),
        rows if isinstance(rows, int) and rows > 0 else None,
        columns,
        turns,
        None if kind == "alpaca" else _turn_tags(_mapping(entry, "tags", name)),
        str(given.get("kto_tag", "")),
    )


def _mapping(entry: Mapping[str, Any], key: str, name: str) -> dict[str, str]:
    value = entry.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(member, str | None) for member in value.values()):
        raise WorkbenchError(f"{name}: {key} is not a mapping of names.", "Correct the entry.", kind="data_source")
    return value


def _turn_tags(tags: Mapping[str, str]) -> TurnTags | None:
    role, content = tags.get("role_tag") or "from", tags.get("content_tag") or "value"
    roles = {tags.get(tag) or default: role for tag, (default, role) in _ROLE_TAGS.items()}
    usual = role in ROLE_KEYS and content in TEXT_KEYS
    if usual and all(ROLES.get(spelled.lower()) == ROLES[meant] for spelled, meant in roles.items()):
        return None
    return TurnTags(role, content, roles)


def with_usual_turns(rows: ReadRows, columns: tuple[str, ...], tags: TurnTags) -> ReadRows:
    """Rows whose turns in some columns have the usual keys and role names."""

    def read() -> Iterator[Row]:
        for row in rows():
            if row.record is None:
                yield row
                continue
            renamed = {name: _renamed(row.record[name], name, tags) for name in columns if name in row.record}
            yield Row({**row.record, **renamed}, row.where, row.fraction, row.problem, row.note)

    return read


def _renamed(value: object, column: str, tags: TurnTags) -> object:
    """A list of turns, or a single one, under the usual names; any other value as it is."""
    try:
        turns = as_structure(value, column, "a list of turns")
    except BadRecord:
        return value
    if isinstance(turns, list):
        return [tags.renamed(turn) for turn in turns]
    return tags.renamed(turns) if isinstance(turns, dict) else value
