"""Writes a run's records as JSON Lines for other tools: conversations, segments, text, pairs, labeled responses."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.data.prepare.record_line import record_line
from workbench.data.records.conversation import Content, Conversation, Pair, Segments, Unpaired
from workbench.data.sources import load_records
from workbench.models.child import report
from workbench.objectives.objective import RecordKind
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home

_NAMES = {
    "messages": "records",
    "text": "records-text",
    "segments": "records-segments",
    "pairs": "pairs",
    "sides": "pairs",
    "flat": "pairs",
    "unpaired": "responses",
}

Layout = Literal["apart", "whole", "flat"]
"""How responses that are compared are written: with the prompt beside them, with the prompt before each of them, or
beside one prompt and one system prompt as text."""


@dataclass(frozen=True)
class RecordFile:
    """One written file of records.

    Attributes:
        kind: ``messages``, ``segments`` or ``text``; ``pairs`` (``messages`` is the prompt, ``chosen`` and ``rejected``
            one turn), ``sides`` (``chosen`` and ``rejected`` are whole conversations), ``flat`` (``system``, ``input``,
            ``chosen`` and ``rejected`` are text) or ``unpaired`` (``label``, and ``messages`` or ``prompt`` and
            ``completion``).
        records: how many it holds.
        left_out: usable records that the layout has no place for.
    """

    name: str
    kind: str
    held_out: bool
    records: int
    left_out: int = 0


def write_conversations(
    home: Home | None, data: DataSection, folder: Path, kind: RecordKind = "texts", *, layout: Layout = "apart"
) -> list[RecordFile]:
    """Write all usable records into ``folder``, adding the recipe's system prompt to those without one.

    Held-out records go into ``….eval.jsonl``, which the workbench reads as a file's eval split.

    Args:
        kind: the records that the objective reads.
        layout: how responses that are compared are written.
    """
    counts: Counter[tuple[str, bool]] = Counter()
    left_out: Counter[tuple[str, bool]] = Counter()
    files = {}
    try:
        for number, item in enumerate(load_records(data, home, kind=kind).items()):
            if item.content is None:
                continue
            for form, line in _lines(item.content, kind, data.system, layout):
                key = (form, item.held_out)
                if line is None:
                    left_out[key] += 1
                    continue
                if key not in files:
                    files[key] = (folder / _name(*key)).open("w", encoding="utf-8")
                files[key].write(json.dumps(line, ensure_ascii=False) + "\n")
                counts[key] += 1
            if number % 1000 == 0:
                report("writing the records", min(item.fraction, 1.0), f"{number:,} records")
    finally:
        for file in files.values():
            file.close()
    return [RecordFile(_name(*key), key[0], key[1], count, left_out[key]) for key, count in sorted(counts.items())]


def left_out_notices(files: list[RecordFile]) -> list[str]:
    """The notice about records that a tool's layout has no place for."""
    count = sum(file.left_out for file in files)
    records = "1 record is" if count == 1 else f"{count:,} records are"
    why = "pairs with tools, of plain text, or that differ before the last turn"
    return [f"{records} left out: {why}."] if count else []


def _lines(
    content: Content, kind: RecordKind, system: str | None, layout: Layout
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """A record as lines, each with the kind of its file; None where the layout has no place for it."""
    match content:
        case Pair(chosen, rejected) if kind == "unpaired":
            for side, label in ((chosen, True), (rejected, False)):
                yield "unpaired", _labeled(side, label, system, layout == "apart")
        case Pair(chosen, rejected) if layout == "apart":
            yield "pairs", _pair(chosen, rejected, system)
        case Pair(chosen, rejected) if layout == "flat":
            yield "flat", _flat(chosen, rejected, system)
        case Pair(chosen, rejected):
            sides = [_turns(side, system) for side in (chosen, rejected)]
            yield "sides", None if None in sides else dict(zip(("chosen", "rejected"), sides, strict=True))
        case Unpaired(response, good):
            yield "unpaired", _labeled(response, good, system, layout == "apart")
        case str():
            yield "text", record_line(content, system)
        case Segments():
            yield "segments", record_line(content, system)
        case Conversation():
            yield "messages", record_line(content, system)


def _pair(chosen: Conversation | str, rejected: Conversation | str, system: str | None) -> dict[str, Any] | None:
    one, other = _turns(chosen, system), _turns(rejected, system)
    if one is None or other is None or one[:-1] != other[:-1]:
        return None
    return {"messages": one[:-1], "chosen": one[-1], "rejected": other[-1]}


def _flat(chosen: Conversation | str, rejected: Conversation | str, system: str | None) -> dict[str, Any] | None:
    """A pair as text; None if its prompt is more than one turn after a system prompt."""
    if (pair := _pair(chosen, rejected, system)) is None:
        return None
    turns = {turn["role"]: turn["content"] for turn in pair["messages"]}
    if len(turns) != len(pair["messages"]) or turns.keys() - {"system"} != {"user"}:
        return None
    answers = {side: pair[side]["content"] for side in ("chosen", "rejected")}
    return {"system": turns.get("system", ""), "input": turns["user"], **answers}


def _labeled(response: Conversation | str, good: bool, system: str | None, prompt_apart: bool) -> dict[str, Any] | None:
    turns = _turns(response, system)
    if turns is None:
        return None
    if prompt_apart:
        return {"prompt": turns[:-1], "completion": turns[-1:], "label": good}
    return {"messages": turns, "label": good}


def _turns(side: Conversation | str, system: str | None) -> list[dict[str, Any]] | None:
    """The turns of one side; None if it is plain text, or has what these layouts cannot hold."""
    if isinstance(side, str):
        return None
    line = record_line(side, system)
    turns = [{key: value for key, value in turn.items() if key != "weight"} for turn in line["messages"]]
    is_plain = line.keys() == {"messages"} and all(turn.keys() == {"role", "content"} for turn in turns)
    return turns if is_plain and turns[-1]["role"] == "assistant" else None


def _name(kind: str, held_out: bool) -> str:
    return f"{_NAMES[kind]}{'.eval' if held_out else ''}.jsonl"
