"""Columns that are mapped by hand: what there is to map, and what the mapping makes of a record."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_records import tokenizer_of_bytes
from workbench.data.columns import Column, FoundColumns, find_columns
from workbench.data.dataset_stats import columns
from workbench.data.records.detect import detect
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.examples import find_examples
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import edit

ROWS: list[dict[str, Any]] = [
    {"title": "", "body": "First.", "tags": ["a\x1b[2J"]},
    {"title": "Why do\nships float?", "body": "They push water aside.", "more": 3},
]


def written(path: Path, rows: list[dict[str, Any]]) -> DataSection:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSection(source=str(path))


def test_columns_have_their_first_value_that_is_filled(tmp_path: Path) -> None:
    found = find_columns(written(tmp_path / "x.jsonl", ROWS))
    assert found == FoundColumns((
        Column("title", "Why do ships float?"),
        Column("body", "First."),
        Column("tags", '["a\\u001b[2J"]'),
        Column("more", "3"),
    ))  # fmt: skip


def test_the_columns_that_detection_takes_are_known_and_a_mapping_does_not_hide_them(tmp_path: Path) -> None:
    data = written(tmp_path / "x.jsonl", [{"prompt": "Hi?", "completion": "Yes.", "context": "Bergen."}])
    detected = {"prompt": "prompt", "reply": "completion", "input": "context"}
    assert find_columns(data).detected == detected
    mapped = data.model_copy(update={"columns": {"prompt": "context", "reply": "completion"}})
    assert find_columns(mapped).detected == detected


def test_the_engine_finds_columns_and_downloads_nothing(tmp_path: Path) -> None:
    data = written(tmp_path / "x.jsonl", ROWS)
    assert columns(edit(Recipe(), {"data.source": data.source})) == find_columns(data)
    with pytest.raises(WorkbenchError, match="owner/name is not on this machine") as caught:
        columns(edit(Recipe(), {"data.source": "owner/name"}))
    assert caught.value.kind == "data_elsewhere"


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"messages": "turns", "prompt": "title"}, "sets prompt beside messages"),
        ({"text": "body", "system": "title", "tools": "turns"}, "sets system, tools beside text"),
    ],
)
def test_parts_that_would_be_dropped_are_refused(mapping: dict[str, str], said: str) -> None:
    record = {"turns": [{"role": "user", "content": "Hi?"}], "title": "A", "body": "B"}
    with pytest.raises(WorkbenchError, match=said):
        detect(list(record), [record], by_hand=mapping)


def test_a_record_that_is_not_used_is_an_example_with_its_problem(tmp_path: Path) -> None:
    data = written(tmp_path / "x.jsonl", ROWS).model_copy(update={"columns": {"prompt": "title", "reply": "body"}})
    template = Template.for_model(tokenizer_of_bytes(), "chatml")
    first, second = find_examples(load_records(data), template, data, invalid=True)
    assert (first.index, first.problem, first.text) == (0, "column title is empty", "")
    assert (second.index, second.problem) == (1, "")
    assert find_examples(load_records(data), template, data) == [second]
