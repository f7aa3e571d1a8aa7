"""Writes a run's records as JSON Lines for other tools: as ``messages``, ``segments`` or plain ``text``."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from workbench.data.prepare.record_line import record_line
from workbench.data.records.conversation import Segments, chosen_side
from workbench.data.sources import load_records
from workbench.models.child import report
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home


@dataclass(frozen=True)
class RecordFile:
    """One written file of records. ``kind``: ``messages``, ``segments`` or ``text``."""

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
            # Pairs are refused when the records are opened.
            content = chosen_side(item.content)
            kind = "messages"
            if isinstance(content, str | Segments):
                kind = "text" if isinstance(content, str) else "segments"
            key = (kind, item.held_out)
            if key not in files:
                files[key] = (folder / _name(*key)).open("w", encoding="utf-8")
            files[key].write(json.dumps(record_line(content, data.system), ensure_ascii=False) + "\n")
            counts[key] += 1
            if number % 1000 == 0:
                report("writing the records", min(item.fraction, 1.0), f"{number:,} records")
    finally:
        for file in files.values():
            file.close()
    return [RecordFile(_name(*key), key[0], key[1], count) for key, count in sorted(counts.items())]


def _name(kind: str, held_out: bool) -> str:
    return f"records{'' if kind == 'messages' else f'-{kind}'}{'.eval' if held_out else ''}.jsonl"
