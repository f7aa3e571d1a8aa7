"""Damaged files of every kind give facts or one clear error; every line of theirs is accounted for."""

import csv
import gzip
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection

FILES = 10_000
LONGEST_SECONDS = 5.0

_PAIRS = [{"prompt": f"why two and {n}", "completion": "because the sea is blue"} for n in range(8)]
_TURNS = [
    {"messages": [{"role": "user", "content": "why"}, {"role": "assistant", "content": f"because {n}, é ☃"}]}
    for n in range(5)
]
_TOLD = [{"instruction": f"add two {n}", "input": "and three", "output": "five", "system": "be kind"} for n in range(6)]
_SHARED = [
    {"conversations": [{"from": "human", "value": "why"}, {"from": "gpt", "value": f"because {n}"}]} for n in range(5)
]
_ASKED = [{"question": f"why {n}", "answer": "the sea is blue"} for n in range(8)]
_TEXTS = [{"text": f"the sea is blue {n}, é ☃"} for n in range(8)]
_PUT_IN = (
    *(b"\n", b"\r\n", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\t", b"-"),
    *(b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\x1b[2J", b"[/red]"),
    *(b"NaN", b"null", b"1e999", b"9" * 5000, b'{"prompt": 1}\n', b'"prompt"'),
)


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "completion"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(_PAIRS)
    return text.getvalue().encode()


def _zstd(data: bytes) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def _columnar(kind: str, rows: list[dict[str, Any]] = _PAIRS) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


SEEDS: dict[str, Callable[[], bytes]] = {
    "pairs.jsonl": lambda: _lines(_PAIRS),
    "turns.jsonl": lambda: _lines(_TURNS),
    "told.jsonl": lambda: _lines(_TOLD),
    "shared.jsonl": lambda: _lines(_SHARED),
    "texts.jsonl": lambda: _lines(_TEXTS),
    "asked.jsonl.zst": lambda: _zstd(_lines(_ASKED)),
    "told.json": lambda: json.dumps(_TOLD).encode(),
    "shared.parquet": lambda: _columnar("parquet", _SHARED),
    "pairs.json": lambda: json.dumps(_PAIRS, indent=1).encode(),
    "turns.json": lambda: json.dumps({"data": _TURNS}).encode(),
    "pairs.csv": lambda: _table(","),
    "pairs.tsv": lambda: _table("\t"),
    "pairs.jsonl.gz": lambda: gzip.compress(_lines(_PAIRS), mtime=0),
    "pairs.parquet": lambda: _columnar("parquet"),
    "pairs.arrow": lambda: _columnar("arrow"),
    "a.txt": "the sea is blue\n\nbe kind, é ☃".encode,
}


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: a byte flipped, a stretch cut out, doubled or moved, something put in, the end lost."""
    for _ in range(rng.randint(1, 4)):
        at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        match rng.randrange(6):
            case 0 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[to:]
            case 2:
                data = data[:at] + data[at:to] + data[at:]
            case 3:
                data = data[:at]
            case 4:
                data = data[to:] + data[:at]
            case _:
                data = data[:at] + rng.choice(_PUT_IN) + data[at:]
    return data


def account(path: Path, policy: str, template: Template) -> str:
    """Read a file as a run would. Returns what came of it; anything but facts or a WorkbenchError is raised."""
    section = DataSection(source=str(path), malformed=policy, eval_fraction=0.0, max_length=64)
    started = time.process_time()
    try:
        facts = data_facts(load_records(section), template, section)
    except WorkbenchError as refusal:
        error = refusal
    else:
        error = None
    assert time.process_time() - started < LONGEST_SECONDS
    if error is not None:
        assert error.message
        assert error.cure
        return "error"
    json.dumps(facts.as_json())
    if path.name.endswith(".jsonl"):
        lines = [
            line for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n") if line and not line.isspace()
        ]
        assert facts.records + facts.skipped + facts.lost_reply == len(lines)
    assert facts.total == facts.trained + facts.masked
    return "facts"


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files(name: str, words: Any, tmp_path: Path) -> None:
    rng = random.Random(name)
    template = Template.for_model(words)
    whole = SEEDS[name]()
    path = tmp_path / name
    outcomes = {"facts": 0, "error": 0}
    for number in range(FILES // len(SEEDS) + 1):
        path.write_bytes(mutate(whole, rng))
        try:
            outcomes[account(path, ("skip", "stop")[number % 2], template)] += 1
        except BaseException:
            print(f"file {number} of {name}: {path.read_bytes()!r}")
            raise
    assert outcomes["facts"]
    assert outcomes["error"] or name == "a.txt"
