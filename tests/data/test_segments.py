"""Text in segments, each labeled as trained or not (Axolotl's ``input_output``): ids and masks by hand, no template."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import make_word_tokenizer
from workbench.data.prepare.write import Cleaning, write_cleaned
from workbench.data.records.conversation import BadRecord, Segment, Segments
from workbench.data.records.convert import convert
from workbench.data.records.detect import detect
from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.data.tokens.samples import NO_END
from workbench.errors import WorkbenchError
from workbench.evaluation.eval_set import build_eval_set
from workbench.export.conversations import write_conversations
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home

_ = -100
SEGMENTS = [
    {"label": False, "text": "<s> why "},
    {"label": True, "text": "because the sea is blue </s>"},
    {"label": False, "text": " and add two"},
    {"label": True, "text": "five </s>"},
]
IDS = [1, 13, 14, 15, 16, 17, 18, 2, 11, 8, 9, 12, 2]
LABELS = [_, _, 14, 15, 16, 17, 18, 2, _, _, _, 12, 2]


def _file(path: Path, *records: dict[str, Any]) -> DataSection:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return DataSection(source=str(path), eval_fraction=0.0)


def _rows(data: DataSection, words: Any) -> list[tuple[list[int], list[int]]]:
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    return [(row["input_ids"], row["labels"]) for row in encoded.train]


def test_each_segment_is_tokenized_by_itself_and_trained_as_its_label_says(words: Any, tmp_path: Path) -> None:
    data = _file(tmp_path / "a.jsonl", {"segments": SEGMENTS})
    records = load_records(data)
    assert records.format == "segments"
    assert _rows(data, words) == [(IDS, LABELS)]
    # Nothing is put around them, also where the tokenizer begins texts with <s>.
    assert _rows(data, make_word_tokenizer(begin=True)) == [(IDS, LABELS)]
    facts = data_facts(records, Template.for_model(words), data)
    assert (facts.total, facts.trained, facts.notices, facts.unused) == (13, 8, (), ())
    assert _rows(data.model_copy(update={"completion_only": False}), words) == [(IDS, IDS)]
    assert _rows(data.model_copy(update={"responses": "last"}), words) == [(IDS, [_] * 11 + [12, 2])]


@pytest.mark.parametrize("layout", ["text in a cell", "an object of lists", "Parquet", "other labels", "by hand"])
def test_layouts_of_segments(layout: str, words: Any, tmp_path: Path) -> None:
    path, columns = tmp_path / "a.jsonl", {}
    record: dict[str, Any] = {"segments": SEGMENTS}
    match layout:
        case "text in a cell":
            path = tmp_path / "a.csv"
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["segments"], [json.dumps(SEGMENTS)]])
        case "an object of lists":
            record = {"segments": {key: [segment[key] for segment in SEGMENTS] for key in ("label", "text")}}
        case "Parquet":
            import pyarrow as pa
            import pyarrow.parquet

            path = tmp_path / "a.parquet"
            pyarrow.parquet.write_table(pa.Table.from_pylist([record]), path)
        case "other labels":
            marks = [0, "true", "no", 1.0]
            record = {"segments": [{**one, "label": label} for one, label in zip(SEGMENTS, marks, strict=True)]}
        case _:
            record, columns = {"parts": SEGMENTS}, {"segments": "parts"}
    if path.suffix == ".jsonl":
        _file(path, record)
    assert _rows(DataSection(source=str(path), eval_fraction=0.0, columns=columns), words) == [(IDS, LABELS)]


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([{"text": "a"}], "segment 1 of segments has no label, expected true (trained) or false"),
        ([SEGMENTS[0], {"label": 0.5, "text": "a"}], "segment 2 of segments has the label '0.5'"),
        ([{"label": True, "text": None}], "segment 1 of segments is nothing, expected text"),
        ([SEGMENTS[0], "a"], "segment 2 of segments is text, expected an object with label and text"),
        ([{"label": True, "text": " "}], "column segments is empty"),
        ([], "column segments is empty"),
        ("a", "column segments is text that is not JSON"),
    ],
)
def test_segments_that_cannot_be_read_say_why(segments: Any, reason: str) -> None:
    form = detect(["segments"], [{"segments": SEGMENTS}])
    with pytest.raises(BadRecord, match=re.escape(reason)):
        convert({"segments": segments}, form)
    with pytest.raises(BadRecord, match="column segments is missing"):
        convert({}, form)


def test_segments_of_which_none_is_trained_are_skipped_with_that_reason(words: Any, tmp_path: Path) -> None:
    data = _file(tmp_path / "a.jsonl", {"segments": SEGMENTS}, {"segments": SEGMENTS[::2]})
    facts = data_facts(load_records(data), Template.for_model(words), data)
    assert (facts.records, facts.skipped) == (1, 1)
    assert "no response is trained" in next(iter(facts.skipped_reasons))


def test_what_segments_and_their_record_hold_besides_is_named(words: Any, tmp_path: Path) -> None:
    marked = [{**SEGMENTS[0], "role": "user"}, {"label": True, "text": "because", "critique": "It could be longer."}]
    data = _file(tmp_path / "a.jsonl", {"segments": marked, "text": "<s> why because", "context": "Another text."})
    facts = data_facts(load_records(data), Template.for_model(words), data)
    # The text only repeats the segments.
    assert {(field.path, field.asks) for field in facts.unused} == {
        ("segments[].role", False),
        ("segments[].critique", True),
        ("text", False),
        ("context", True),
    }
    assert f"{NO_END}: 1 record." in facts.notices


def test_segments_without_labels_are_no_format() -> None:
    speech = {"text": "Hello there.", "segments": [{"start": 0.0, "end": 1.5, "text": "Hello there."}]}
    assert detect(list(speech), [speech]).kind == "text"
    with pytest.raises(WorkbenchError, match="match no known record format"):
        detect(["segments"], [{"segments": speech["segments"]}])


def test_segments_are_cleaned_written_and_read_back(words: Any, tmp_path: Path) -> None:
    long = [SEGMENTS[0], {"label": True, "text": "because " * 30}]
    data = _file(tmp_path / "a.jsonl", *[{"segments": SEGMENTS}] * 2, {"segments": SEGMENTS[:2]}, {"segments": long})
    data = data.model_copy(update={"max_length": 20})
    template, file = Template.for_model(words), tmp_path / "clean.jsonl"
    cleaned = write_cleaned(load_records(data), template, data, file, Cleaning("split"))
    # Segments are not split: where they may be is not known.
    assert (cleaned.read, cleaned.duplicates, cleaned.over_length, cleaned.train_records) == (4, 1, 1, 2)
    written = DataSection(source=str(file), eval_fraction=0.0)
    assert _rows(written, words) == [(IDS, LABELS), (IDS[:8], LABELS[:8])]
    _file(tmp_path / "b.jsonl", {"text": "why"})
    mixed = data.model_copy(update={"source": f"{tmp_path / 'a.jsonl'} + {tmp_path / 'b.jsonl'}"})
    with pytest.raises(WorkbenchError, match="mix plain text and segments, which one file cannot hold"):
        write_cleaned(load_records(mixed), template, mixed, tmp_path / "c.jsonl", Cleaning())
    # An export has a file of them for Axolotl.
    (exported,) = write_conversations(Home(tmp_path), data, tmp_path)
    assert (exported.name, exported.kind, exported.records) == ("records-segments.jsonl", "segments", 4)
    assert json.loads((tmp_path / exported.name).open().readline()) == {"segments": SEGMENTS}


def test_an_evaluation_asks_for_the_last_trained_segment(words: Any, tmp_path: Path) -> None:
    data = _file(tmp_path / "a.jsonl", {"segments": SEGMENTS}, {"segments": SEGMENTS[1:2]})
    eval_set = build_eval_set(
        Home(tmp_path), data, Template.for_model(words), is_run_data=False, records=0, replies=5, prompts=[],
        report=lambda progress: None, cancelled=bool,
    )  # fmt: skip
    (question,) = eval_set.questions  # the other record has nothing before its response
    assert (question.ids, question.reference) == (IDS[:11], "five ")
    assert [sample.trained_tokens for sample in eval_set.samples] == [8, 6]


def test_the_last_trained_segment_is_found() -> None:
    segments = Segments((Segment("a", True), Segment("b", False)))
    assert (segments.last_trained, segments.text) == (0, "ab")
    assert Segments((Segment("a", False),)).with_last_trained().segments == (Segment("a", False),)
