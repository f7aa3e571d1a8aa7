"""What is wrong with a source is said with its place, what was expected and what to do; the rest goes on."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from workbench.data.records.conversation import BadRecord, Conversation
from workbench.data.records.convert import convert
from workbench.data.records.detect import detect
from workbench.data.records.formats import RecordFormat
from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection

GOOD = '{"prompt": "why", "completion": "because"}\n'
PAIRS = RecordFormat("prompt", {"prompt": "p", "reply": "r"}, "")
TURNS = RecordFormat("messages", {"messages": "m"}, "")


def section(path: Path | str, **changes: Any) -> DataSection:
    return DataSection(source=str(path), eval_fraction=0.0, **changes)


def refusal(path: Path | str, words: Any, **changes: Any) -> WorkbenchError:
    data = section(path, **changes)
    with pytest.raises(WorkbenchError) as caught:
        encode_dataset(load_records(data), Template.for_model(words), data)
    assert caught.value.cure
    return caught.value


# name: file, content, the message, records that are left when the malformed one is skipped
MALFORMED = {
    "broken off": ("x.jsonl", GOOD + '{"prompt": "why", "comp', r"x\.jsonl, line 2, column 19: unterminated string", 1),
    "no comma": ("x.jsonl", GOOD * 2 + '{"prompt": "a" "completion": "b"}', r"line 3, column 16: expecting ','", 2),
    "no object": ("x.jsonl", "[1, 2]\n" + GOOD, r"line 1, column 1: expected a JSON object", 1),
    "a key twice": ("x.jsonl", GOOD + '{"prompt": "a", "prompt": "b"}\n' + GOOD, r"line 2.*'prompt' is given twice", 2),
    "nested too deeply": ("x.jsonl", GOOD + "[" * 100_000, r"line 2.*nested too deeply", 1),
    "too many digits": ("x.jsonl", GOOD + '{"prompt": ' + "1" * 5000 + "}\n", r"line 2.*too many digits", 1),
    "not UTF-8": ("x.jsonl", GOOD + '{"prompt": "caf\udce9", "completion": "b"}', r"line 2, column 16: not UTF-8", 1),
    "list broken off": ("x.json", f'[{GOOD},{GOOD}, {{"prompt"', r"x\.json, line 3, column 12: .*the rest is lost", 2),
    "list without comma": ("x.json", f"[{GOOD}{GOOD}]", r"line 2, '\{' instead of , or \]; the rest is lost", 1),
    "list of other things": ("x.json", f"[{GOOD}, 7, {GOOD}]", r"line 2, expected a JSON object", 2),
    "too few cells": ("x.csv", "prompt,completion\na,b\nc\n", r"x\.csv, line 3, column 2: 1 cells, expected 2", 1),
    "too many cells": ("x.tsv", "prompt\tcompletion\na\tb\nc\td\te\n", r"line 3, column 3: 3 cells, expected 2", 1),
    "an open quotation": ("x.csv", 'prompt,completion\na,b\nc,"d\n', r"line 3, column 1: unexpected end of data", 1),
    "a cell not UTF-8": ("x.csv", "prompt,completion\na,b\nc,\udcff\n", r"line 3, column 2: not UTF-8", 1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_stops_with_its_place_or_is_counted(name: str, words: Any, tmp_path: Path) -> None:
    file, content, message, left = MALFORMED[name]
    path = tmp_path / file
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    error = refusal(path, words)
    assert error.kind == "data_malformed"
    assert re.search(message, error.message), error.message
    data = section(path, malformed="skip")
    facts = data_facts(load_records(data), Template.for_model(words), data)
    assert (facts.records, facts.skipped, sum(facts.skipped_reasons.values())) == (left, 1, 1)
    assert any("Skipped: 1 record (" in notice for notice in facts.notices)


UNUSABLE = {
    "0 bytes": ("x.jsonl", b"", "is empty"),
    "0 bytes of JSON": ("x.json", b"", "is empty"),
    "0 bytes of CSV": ("x.csv", b"", "is empty"),
    "a header alone": ("x.csv", b"prompt,completion\n", "is empty"),
    "blank lines": ("x.jsonl", b"\n\r\n \n", "is empty"),
    "an empty list": ("x.json", b" [ ] ", "is empty"),
    "an empty object": ("x.jsonl", b"{}\n", "without columns"),
    "no known columns": ("x.jsonl", b'{"title": "a", "body": "b"}\n', "no known record format: 'title', 'body'"),
    "a column name twice": ("x.csv", b"prompt,prompt\na,b\n", "two columns named 'prompt'"),
    "a header not UTF-8": ("x.csv", b"\xff\xfd\n", "has no column names"),
    "no Parquet": ("x.parquet", b"PAR1 or not", "is damaged"),
    "no Arrow": ("x.arrow", b"\x00" * 100, "is damaged"),
    "no gzip": ("x.jsonl.gz", b"not gzip", "is damaged"),
    "gzip cut off": ("x.jsonl.gz", gzip.compress(GOOD.encode() * 1000)[:-20], "is damaged"),
    "no zstd": ("x.jsonl.zst", b"not zstd", "is damaged"),
    "an unknown kind": ("x.docx", b"PK", "an unsupported file type"),
    "Parquet in gzip": ("x.parquet.gz", b"", "an unsupported file type"),
    "every reply empty": ("x.jsonl", b'{"prompt": "a", "completion": ""}\n', "no usable record"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable(name: str, words: Any, tmp_path: Path) -> None:
    file, content, message = UNUSABLE[name]
    (tmp_path / file).write_bytes(content)
    assert message in refusal(tmp_path / file, words).message


def test_a_folder_with_nothing_usable(words: Any, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert "no supported files (1 files)" in refusal(tmp_path, words).message


def test_a_files_name_cannot_steer_the_terminal(words: Any, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb.jsonl"
    path.write_text(GOOD + "{", encoding="utf-8")
    assert r"a\x1b[2Jb.jsonl, line 2" in refusal(path, words).message
    assert refusal(tmp_path / "\x1b[31m.jsonl", words).message.isprintable()


@pytest.mark.parametrize("name", ["missing.jsonl", "./missing", "/nowhere/at/all", "folder/"])
def test_a_missing_path(name: str, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No such file or folder" in refusal(name, words).message


def test_a_bundled_set_misspelt(words: Any) -> None:
    assert "Did you mean first-mate?" in refusal("fist-mate", words).cure


def test_a_hub_set_without_the_hub(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = refusal("nobody/nothing-of-the-kind", words)
    assert error.kind in ("hub_unreachable", "data_missing")
    assert "nobody/nothing-of-the-kind" in error.message


@pytest.mark.parametrize(
    ("record", "form", "reason"),
    [
        ({"p": "a"}, PAIRS, "column r is missing"),
        ({"p": "a", "r": None}, PAIRS, "column r is empty"),
        ({"p": "a", "r": " \n"}, PAIRS, "column r is empty"),
        ({"p": "a", "r": float("nan")}, PAIRS, "column r is empty"),
        ({"p": "", "r": "b"}, PAIRS, "column p is empty"),
        ({"p": "a", "r": ["b", "c"]}, PAIRS, "column r is a list, expected text"),
        ({"p": {"a": 1}, "r": "b"}, PAIRS, "column p is an object, expected text"),
        ({"p": True, "r": "b"}, PAIRS, "column p is a boolean, expected text"),
        ({"p": "a\ud800", "r": "b"}, PAIRS, "column p is not valid UTF-8"),
        ({"m": None}, TURNS, "column m is empty"),
        ({"m": "hello"}, TURNS, "expected a list of turns"),
        ({"m": ["hello"]}, TURNS, "turn 1 of m is text, expected an object with role and content"),
        ({"m": [{"content": "a"}]}, TURNS, "turn 1 of m has no role"),
        ({"m": [{"role": "ghost", "content": "a"}]}, TURNS, "unknown role 'ghost'"),
        ({"m": [{"role": "user"}]}, TURNS, "turn 1 of m has no text"),
        ({"m": [{"role": "user", "content": "a"}]}, TURNS, "there is no assistant turn"),
        ({"m": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, TURNS, "no assistant turn"),
        ({"m": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, TURNS, "no assistant turn"),
        ({"m": [{"role": 0, "content": "a"}]}, TURNS, "turn 1 of m has a number as its role, expected system, user"),
        ({"m": [{"role": "user", "content": float("nan")}]}, TURNS, "turn 1 of m has no text"),
        ({"p": "a", "r": float("inf")}, PAIRS, "column r is inf, expected text"),
        ({"p": "a", "r": b"b"}, PAIRS, "column r is bytes, expected text"),
        ({"m": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}, TURNS, "a reply is empty"),
        (
            {"m": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
            TURNS,
            "holds an image, and only text is trained",
        ),
    ],
)
def test_a_record_that_is_skipped_says_why(record: dict[str, Any], form: RecordFormat, reason: str) -> None:
    with pytest.raises(BadRecord, match=re.escape(reason)):
        convert(record, form)


def test_numbers_and_text_parts_are_text() -> None:
    assert convert({"p": "a", "r": 7}, PAIRS).content.texts[1] == "7"  # type: ignore[union-attr]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "human", "content": parts}, {"role": "GPT", "content": "c"}]
    assert convert({"m": turns}, TURNS).content.messages == [  # type: ignore[union-attr]
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "c"},
    ]


def test_skipped_records_are_counted_by_reason(words: Any, tmp_path: Path) -> None:
    rows = (
        [{"prompt": "why", "completion": "because"}] * 3 + [{"prompt": "why", "completion": ""}] * 2 + [{"prompt": 1.5}]
    )
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = section(tmp_path / "x.jsonl")
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    assert encoded.counts["skipped_reasons"] == {"column completion is empty": 2, "column completion is missing": 1}
    assert len(encoded.train) == 3


def test_byte_order_mark_and_crlf(words: Any, tmp_path: Path) -> None:
    for name, text in {
        "a.jsonl": GOOD * 2,
        "b.json": f"[{GOOD},{GOOD}]",
        "c.csv": "prompt,completion\nwhy,because\nwhy,because\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        data = section(path)
        facts = data_facts(load_records(data), Template.for_model(words), data)
        assert (facts.records, facts.skipped) == (2, 0)
        # <s> [Q] why [A] because </s>
        assert facts.total == 2 * 6


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["instruction", "input", "output"], "instruction"),
        (["Instruction", "Response"], "instruction"),
        (["instruction", "context", "response", "category"], "instruction"),
        (["prompt", "completion"], "prompt"),
        (["id", "question", "answer"], "question"),
        (["text"], "text"),
        (["quote", "author", "tags"], "text"),
    ],
)
def test_detection(columns: list[str], kind: str) -> None:
    form = detect(columns, [])
    assert form.kind == kind
    assert form.reason


def test_turns_are_told_apart_by_their_keys() -> None:
    messages = [{"role": "user", "content": "a"}]
    sharegpt = [{"from": "human", "value": "a"}]
    assert detect(["conversations"], [{"conversations": sharegpt}]).kind == "sharegpt"
    assert detect(["conversations"], [{"conversations": messages}]).kind == "messages"
    assert detect(["messages"], [{"messages": messages}]).kind == "messages"


def test_columns_by_hand(words: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"title": "why", "body": "because"}\n', encoding="utf-8")
    data = section(path, columns={"prompt": "title", "reply": "body"})
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    assert encoded.train[0]["input_ids"] == [1, 4, 13, 5, 14, 2]
    assert "columns set in the recipe" in encoded.facts.reason
    for columns, message in {
        '{"prompt": "title"}': "neither prompt and reply",
        '{"prompt": "titel", "reply": "body"}': "no column 'titel'",
        '{"question": "title"}': "unknown part 'question'",
    }.items():
        assert message in refusal(path, words, columns=json.loads(columns)).message


def test_a_format_that_was_asked_for_and_is_not_there(words: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(GOOD, encoding="utf-8")
    error = refusal(tmp_path / "x.jsonl", words, format="messages")
    assert "no columns for format messages" in error.message


def test_no_reply_survives_the_cut(words: Any, tmp_path: Path) -> None:
    row = {"prompt": "add two and three and five and two and three", "completion": "five"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    error = refusal(tmp_path / "x.jsonl", words, max_length=8)
    assert error.kind == "data_no_tokens"
    assert "All 1 records lost their response" in error.message
    assert "longest record has 15 tokens" in error.cure


def test_mixed_schemas_are_counted(words: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(GOOD + '{"question": "why", "answer": "because"}\n' + GOOD, encoding="utf-8")
    data = section(tmp_path / "x.jsonl")
    facts = data_facts(load_records(data), Template.for_model(words), data)
    assert (facts.records, facts.skipped) == (2, 1)
    assert facts.skipped_reasons == {"column prompt is missing": 1}


def test_a_folder_of_records_may_have_a_readme_and_no_other_documents(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"text": "c"}\n')
    (tmp_path / "README.md").write_text("# About")
    first, second = load_records(DataSection(source=str(tmp_path))).items()
    assert isinstance(first.content, Conversation)
    assert second.problem == "column prompt is missing"
    (tmp_path / "notes.txt").write_text("Other text.")
    with pytest.raises(WorkbenchError, match=r"mixes documents \(notes.txt …\) with records \(train.jsonl …\)"):
        load_records(DataSection(source=str(tmp_path)))


def test_a_record_without_the_column_of_turns_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text(f'{json.dumps({"messages": turns})}\n{{"instruction": "a", "output": "b"}}\n')
    assert [item.problem for item in load_records(DataSection(source=str(path))).items()] == [
        "",
        "column messages is missing",
    ]
