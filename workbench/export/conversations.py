"""Writes a run's records as JSON Lines for other tools: conversations as ``messages``, plain text as ``text``."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.records.conversation import Conversation
from workbench.data.sources import load_records
from workbench.models.child import report
from workbench.recipe.schema import DataSection
from workbench.storage.paths import Home


@dataclass(frozen=True)
class RecordFile:
    """One written file of records. ``kind``: ``messages`` or ``text``."""

    name: str
    kind: str
    held_out: bool
    records: int


def write_conversations(home: Home, data: DataSection, folder: Path) -> list[RecordFile]:
    """Write all usable records into ``folder``, adding the recipe's system prompt to those without one.

    Held-out records go into ``….eval.jsonl``, which the workbench reads as a file's eval split.
    """

    counts: Counter[tuple[str, bool]] = Counter()
    files = {}
    try:
        for number, item in enumerate(load_records(data, home).items()):
            if item.content is None:
                continue
            kind = "text" if isinstance(item.content, str) else "messages"
            key = (kind, item.held_out)
            if key not in files:
                files[key] = (folder / _name(*key)).open("w", encoding="utf-8")
            line = {kind: item.content} if isinstance(item.content, str) else _fields(item.content, data.system)
            files[key].write(json.dumps(line, ensure_ascii=False) + "\n")
            counts[key] += 1
            if number % 1000 == 0:
                report("writing the records", min(item.fraction, 1.0), f"{number:,} records")
    finally:
        for file in files.values():
            file.close()
    return [RecordFile(_name(*key), key[0], key[1], count) for key, count in sorted(counts.items())]


def _name(kind: str, held_out: bool) -> str:
    return f"records{'' if kind == 'messages' else '-text'}{'.eval' if held_out else ''}.jsonl"


def _fields(conversation: Conversation, system: str | None) -> dict[str, Any]:
    """``messages``, with ``weight`` 0 on responses that are not trained, and ``tools`` where there are any."""
    messages: list[dict[str, Any]] = []
    for place, message in enumerate(conversation.messages):
        kept = {key: value for key, value in message.items() if key not in ("instruction", "input")}
        messages.append(kept | {"weight": 0} if place in conversation.untrained else kept)
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages, "tools": conversation.tools} if conversation.tools else {"messages": messages}
