"""Records with images, videos or audio: each is counted and named before a run, with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_refusals import section
from workbench.data.facts import DataFacts
from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.errors import WorkbenchError

TEXT = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "because"}]
# As OpenAI, TRL, Anthropic and Qwen write them.
PARTS = (
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "image"},
    {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
    {"image": "sea.png"},
)


def with_part(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "why"}]}, TEXT[1]]}


def counted(words: Any, tmp_path: Path, records: list[dict[str, Any]], **changes: Any) -> DataFacts:
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    data = section(tmp_path / "x.jsonl", **changes)
    return data_facts(load_records(data), Template.for_model(words), data)


def test_records_with_an_image_in_a_turn_are_counted_together_and_asked_about(words: Any, tmp_path: Path) -> None:
    records = [{"messages": TEXT}] * 3 + [with_part(part) for part in PARTS] + [with_part({"type": "input_audio"})]
    facts = counted(words, tmp_path, records)
    assert facts.train_records == 3
    assert facts.skipped_reasons == {
        "holds an image, and only text is trained": 4,
        "holds audio, and only text is trained": 1,
    }
    (question,) = facts.questions
    assert question.startswith("5 records with an image, audio in a turn: skipped, as only text is trained.")
    assert "Remove these parts" in question


def test_a_column_of_images_is_asked_about_by_its_name(words: Any, tmp_path: Path) -> None:
    records = [{"messages": TEXT, "images": ["sea.png"]}] * 2 + [{"messages": TEXT, "images": []}]
    facts = counted(words, tmp_path, records)
    assert facts.train_records == 3
    (question,) = facts.questions
    assert "images (2 records). Only the text of these records is trained." in question
    assert "data.ignore: [images]" in question
    assert counted(words, tmp_path, records, ignore=["images"]).questions == ()


def test_data_that_is_all_images_is_refused_with_the_reason_and_what_to_do(words: Any, tmp_path: Path) -> None:
    counted(words, tmp_path, [with_part(PARTS[1])] * 2)
    data = section(tmp_path / "x.jsonl")
    with pytest.raises(WorkbenchError, match="holds an image, and only text is trained: 2") as caught:
        encode_dataset(load_records(data), Template.for_model(words), data)
    assert "Remove these parts" in caught.value.cure


def test_a_tool_may_return_an_object_with_an_image(words: Any, tmp_path: Path) -> None:
    result = {"role": "tool", "content": [{"image": "sea.png"}]}
    facts = counted(words, tmp_path, [{"messages": [TEXT[0], TEXT[1], result, TEXT[1]]}])
    assert facts.skipped_reasons.get("holds an image, and only text is trained") is None
