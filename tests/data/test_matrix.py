"""Every source × every format gives the token ids and labels that were written out here by hand."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.popular_sets import QWEN3
from workbench.data.open_source import Source
from workbench.data.records.detect import detect
from workbench.data.rows.hub import hub_rows
from workbench.data.sources import Records, load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.recipe.sections.data import DataSection

_ = -100

# <s> [S] be kind [Q] add two and three [A] five </s>
SYSTEM_IDS = [1, 3, 6, 7, 4, 8, 9, 11, 10, 5, 12, 2]
SYSTEM_LABELS = [_, _, _, _, _, _, _, _, _, _, 12, 2]
# <s> [Q] add two and three [A] five </s>
SINGLE_IDS = [1, 4, 8, 9, 11, 10, 5, 12, 2]
SINGLE_LABELS = [_, _, _, _, _, _, _, 12, 2]
# <s> [Q] add two and three [A] five </s> [Q] why [A] because the sea is blue </s>
MULTI_IDS = [1, 4, 8, 9, 11, 10, 5, 12, 2, 4, 13, 5, 14, 15, 16, 17, 18, 2]
MULTI_LABELS = [_, _, _, _, _, _, _, 12, 2, _, _, _, 14, 15, 16, 17, 18, 2]
# the sea is blue and why be kind </s>
TEXT_IDS = [15, 16, 17, 18, 11, 13, 6, 7, 2]

# <s> [T] add [Q] add two and three [A] [C] add two three </s> [R] five [A] five </s>
CALL_IDS = [1, 25, 8, 4, 8, 9, 11, 10, 5, 26, 8, 9, 10, 2, 27, 12, 5, 12, 2]
CALL_LABELS = [_, _, _, _, _, _, _, _, _, 26, 8, 9, 10, 2, _, _, _, 12, 2]
# <s> [Q] why [A] [K] two and three because the sea is blue </s>
THOUGHT_IDS = [1, 4, 13, 5, 28, 9, 11, 10, 14, 15, 16, 17, 18, 2]
THOUGHT_LABELS = [_, _, _, _, 28, 9, 11, 10, 14, 15, 16, 17, 18, 2]

TURNS = [
    ("user", "add two and three"),
    ("assistant", "five"),
    ("user", "why"),
    ("assistant", "because the sea is blue"),
]
SHAREGPT = {"user": "human", "assistant": "gpt"}
TOOLS = json.dumps([{"type": "function", "function": {"name": "add", "parameters": {}}}])
CALL = {"type": "function", "function": {"name": "add", "arguments": {"two": "three"}}}

FORMATS: dict[str, tuple[dict[str, Any], str, list[int], list[int]]] = {
    "instruction without system": (
        {"instruction": "add two and three", "response": "five"},
        "instruction",
        SINGLE_IDS,
        SINGLE_LABELS,
    ),
    "instruction": (
        {"instruction": "add two and three", "response": "five", "system": "be kind"},
        "instruction",
        SYSTEM_IDS,
        SYSTEM_LABELS,
    ),
    "instruction with input": (
        {"instruction": "add", "input": "two and three", "output": "five"},
        "instruction",
        SINGLE_IDS,
        SINGLE_LABELS,
    ),
    "prompt": ({"prompt": "add two and three", "completion": "five"}, "prompt", SINGLE_IDS, SINGLE_LABELS),
    "question": ({"question": "add two and three", "answer": "five"}, "question", SINGLE_IDS, SINGLE_LABELS),
    "messages": (
        {"messages": [{"role": role, "content": text} for role, text in TURNS]},
        "messages",
        MULTI_IDS,
        MULTI_LABELS,
    ),
    "messages of one turn": (
        {"messages": [{"role": role, "content": text} for role, text in TURNS[:2]]},
        "messages",
        SINGLE_IDS,
        SINGLE_LABELS,
    ),
    "messages with system": (
        {"messages": [{"role": role, "content": text} for role, text in [("system", "be kind"), *TURNS[:2]]]},
        "messages",
        SYSTEM_IDS,
        SYSTEM_LABELS,
    ),
    "sharegpt of one turn": (
        {"conversations": [{"from": SHAREGPT[role], "value": text} for role, text in TURNS[:2]]},
        "sharegpt",
        SINGLE_IDS,
        SINGLE_LABELS,
    ),
    "sharegpt": (
        {"conversations": [{"from": SHAREGPT[role], "value": text} for role, text in TURNS]},
        "sharegpt",
        MULTI_IDS,
        MULTI_LABELS,
    ),
    "text": ({"text": "the sea is blue and why be kind"}, "text", TEXT_IDS, TEXT_IDS),
    "tool calls": (
        {
            "messages": [
                {"role": "user", "content": "add two and three"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "five"},
                {"role": "assistant", "content": "five"},
            ],
            "tools": TOOLS,
        },
        "messages",
        CALL_IDS,
        CALL_LABELS,
    ),
    "sharegpt with tool calls": (
        {
            "conversations": [
                {"from": "human", "value": "add two and three"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"two": "three"}}'},
                {"from": "observation", "value": "five"},
                {"from": "gpt", "value": "five"},
            ],
            "tools": TOOLS,
        },
        "sharegpt",
        CALL_IDS,
        CALL_LABELS,
    ),
    "reasoning": (
        {
            "messages": [
                {"role": "user", "content": "why"},
                {"role": "assistant", "content": "because the sea is blue", "reasoning_content": "two and three"},
            ]
        },
        "messages",
        THOUGHT_IDS,
        THOUGHT_LABELS,
    ),
    "a column of reasoning": (
        {"question": "why", "thinking": "two and three", "answer": "because the sea is blue"},
        "question",
        THOUGHT_IDS,
        THOUGHT_LABELS,
    ),
}


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _gz(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _zst(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    with pa.output_stream(str(path), compression="zstd") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def _json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def _json_in_object(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"version": 1, "data": rows}), encoding="utf-8")


def _json_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(rows, file)


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def _table_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    _table(path.with_suffix(""), rows)
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


def _arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def _arrow_file(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def _folder(path: Path, rows: list[dict[str, Any]]) -> None:
    (path / "deeper").mkdir(parents=True)
    _jsonl(path / "a.jsonl", rows[:1])
    _parquet(path / "deeper" / "b.parquet", rows[1:])


def _saved_to_disk(path: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(path)


SOURCES: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "set.jsonl": _jsonl,
    "set.jsonl.gz": _gz,
    "set.jsonl.zst": _zst,
    "set.ndjson": _jsonl,
    "set.json": _json,
    "set.json.gz": _json_gz,
    "wrapped.json": _json_in_object,
    "set.csv": _table,
    "set.tsv": _table,
    "set.csv.gz": _table_gz,
    "set.parquet": _parquet,
    "set.arrow": _arrow,
    "file.arrow": _arrow_file,
    "folder": _folder,
    "saved": _saved_to_disk,
}
# How many of a record's tokens are cut off its end: of the shortest reply, "five </s>", a token is left.
CUTS = {"uncut": 0, "cut": 1}


def _ids_and_labels(records: Records, tokenizer: Any, data: DataSection) -> list[tuple[list[int], list[int]]]:
    encoded = encode_dataset(records, Template.for_model(tokenizer), data)
    return [(row["input_ids"], row["labels"]) for row in encoded.train]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOURCES)
def test_ids_and_labels(name: str, form: str, cut: str, words: Any, tmp_path: Path) -> None:
    record, kind, ids, labels = FORMATS[form]
    if (".csv" in name or ".tsv" in name) and kind in ("messages", "sharegpt"):
        pytest.skip("a table's cell holds no list of turns")
    path = tmp_path / name
    SOURCES[name](path, [record, record, record])
    end = len(ids) - CUTS[cut]
    data = DataSection(source=str(path), eval_fraction=0.0, max_length=end if CUTS[cut] else 1024)
    records = load_records(data)
    assert records.format == kind
    assert _ids_and_labels(records, words, data) == [(ids[:end], labels[:end])] * 3


@pytest.mark.parametrize("form", FORMATS)
def test_ids_and_labels_of_a_mix(form: str, words: Any, tmp_path: Path) -> None:
    """Two records of the format, each a second time, and every second of four of another format."""
    record, kind, ids, labels = FORMATS[form]
    _jsonl(tmp_path / "a.jsonl", [record] * 2)
    _parquet(tmp_path / "b.parquet", [FORMATS["question"][0]] * 4)
    data = DataSection(source=f"{tmp_path / 'a.jsonl'}*2 + {tmp_path / 'b.parquet'}*0.5", eval_fraction=0.0)
    records = load_records(data)
    assert records.format == (kind if kind == "question" else f"{kind}, question")
    assert _ids_and_labels(records, words, data) == [(ids, labels)] * 4 + [(SINGLE_IDS, SINGLE_LABELS)] * 2


@pytest.mark.parametrize("form", FORMATS)
def test_ids_and_labels_through_datasets(form: str, words: Any, tmp_path: Path) -> None:
    """The way of a hub set: ``datasets`` loads a folder in the same calls."""
    record, kind, ids, labels = FORMATS[form]
    _jsonl(tmp_path / "train.jsonl", [record, record, record])
    _jsonl(tmp_path / "test.jsonl", [record])
    source = hub_rows(str(tmp_path), None, "train[:2]", streaming=False)
    assert source.eval_rows is not None
    assert source.files is not None
    assert [file.suffix for file in source.files] == [".arrow", ".arrow"]
    records = Records((Source("hub", source, detect(list(record), [record])),), 0.1, True)
    assert records.format == kind
    encoded = encode_dataset(records, Template.for_model(words), DataSection())
    assert [(row["input_ids"], row["labels"]) for row in encoded.train] == [(ids, labels)] * 2
    assert [(row["input_ids"], row["labels"]) for row in encoded.eval] == [(ids, labels)]


def test_a_folder_of_documents(words: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the sea\r\nis blue", encoding="utf-8")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b.md").write_text("\ufeffbe kind", encoding="utf-8")
    data = DataSection(source=str(tmp_path), eval_fraction=0.0)
    assert _ids_and_labels(load_records(data), words, data) == [
        ([15, 16, 17, 18, 2], [15, 16, 17, 18, 2]),
        ([6, 7, 2], [6, 7, 2]),
    ]


@pytest.mark.parametrize(
    ("max_length", "ids", "labels"),
    [
        (18, MULTI_IDS, MULTI_LABELS),
        (17, MULTI_IDS[:17], MULTI_LABELS[:17]),
        (8, [1, 4, 8, 9, 11, 10, 5, 12], [_, _, _, _, _, _, _, 12]),
    ],
)
def test_cut(max_length: int, ids: list[int], labels: list[int], words: Any, tmp_path: Path) -> None:
    _jsonl(tmp_path / "set.jsonl", [FORMATS["messages"][0]])
    data = DataSection(source=str(tmp_path / "set.jsonl"), eval_fraction=0.0, max_length=max_length)
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    assert [(row["input_ids"], row["labels"]) for row in encoded.train] == [(ids, labels)]
    assert encoded.facts.cut == 18 - max_length
    assert encoded.facts.truncated == (max_length < 18)


def test_every_token_is_trained_without_completion_only(words: Any, tmp_path: Path) -> None:
    _jsonl(tmp_path / "set.jsonl", [FORMATS["prompt"][0]])
    data = DataSection(source=str(tmp_path / "set.jsonl"), eval_fraction=0.0, completion_only=False)
    assert _ids_and_labels(load_records(data), words, data) == [(SINGLE_IDS, SINGLE_IDS)]


def test_the_recipes_system_prompt_is_for_records_without_one(words: Any, tmp_path: Path) -> None:
    own = {"prompt": "add two and three", "completion": "five", "system": "be blue"}
    none = {"prompt": "add two and three", "completion": "five", "system": ""}
    _jsonl(tmp_path / "set.jsonl", [own, none])
    data = DataSection(source=str(tmp_path / "set.jsonl"), eval_fraction=0.0, system="be kind")
    assert [ids for ids, _labels in _ids_and_labels(load_records(data), words, data)] == [
        [1, 3, 6, 18, 4, 8, 9, 11, 10, 5, 12, 2],
        SYSTEM_IDS,
    ]


def test_named_template_on_a_base_model(bare_words: Any, tmp_path: Path) -> None:
    # <s> ### Instruction : add two and three ### Response : five </s>
    ids = [1, 19, 20, 22, 8, 9, 11, 10, 19, 21, 22, 12, 2]
    _jsonl(tmp_path / "set.jsonl", [FORMATS["prompt"][0]])
    data = DataSection(source=str(tmp_path / "set.jsonl"), eval_fraction=0.0)
    encoded = encode_dataset(load_records(data), Template.for_model(bare_words), data)
    assert [(row["input_ids"], row["labels"]) for row in encoded.train] == [(ids, [_] * 11 + [12, 2])]
    assert "no chat template" in encoded.notices[0]


# -- the tokenizer of SmolLM2 -----------------------------------------------------------------------------------------

# Its tokens that occur here, and their ids, spelled as in its vocabulary: Ċ is a line feed, Ġ a space.
SMOLLM2 = {
    "<|im_start|>": 1, "<|im_end|>": 2, '"': 18, ",": 28, ".": 30, "2": 34, "3": 35, "5": 37, ":": 42, "<": 44, ">": 46,
    "?": 47, "I": 57, "_": 79, "}": 109, "Ċ": 198, "Ġ": 216, "Ġa": 253, "Ġand": 284, "as": 292, "ol": 308, "Ġis": 314,
    "Ġas": 347, "Ġare": 359, "ĠH": 407, "Ġby": 411, "Ġcan": 416, 'Ġ"': 476, "ass": 520, "Ġone": 582, "Ġso": 588,
    "Ġthese": 623, "Ġits": 624, "Ġcall": 946, '",': 1002, "ĊĊ": 1116, "rain": 1155, "name": 1245, "Ġname": 1462,
    "Ġlook": 1492, "It": 1589, '":': 1799, "Ġgiven": 1836, "Ġkind": 1942, "type": 2058, "Ġ<": 2067, "To": 2068,
    "You": 2683, "Ġwrite": 2965, "Ġnamed": 3365, "ĠSm": 3511, "Ġfunctions": 3691, "###": 3757, "user": 4093,
    "call": 4350,
    "Why": 4898, "Ġhelpful": 5356, "lo": 5365, "ĠAI": 5646, "Be": 6077, "Ġarguments": 6604, "function": 6607,
    "Ġtrained": 7018, "response": 7639, "Add": 7684, "ĠFace": 8182, "istant": 9531, 'Ġ{"': 9583, "</": 9617,
    "system": 9690, "yes": 10407, "Os": 11062, "Ġassistant": 11173, "Ġschem": 12467, "ĠResponse": 14212, "think": 17400,
    "}}": 17859, ">,": 18128, "tool": 19324, "Ġrains": 19685, "ugging": 19712, "tools": 19746, "ĠJSON": 20110,
    "city": 20721, "ĠInstruction": 20880, "arguments": 24370, "LM": 34519, "Rain": 36951, '{"': 39428,
}  # fmt: skip

# Token by token; what is between [[ and ]] is trained.
OWN_SYSTEM = (
    "<|im_start|> system Ċ You Ġare Ġa Ġhelpful ĠAI Ġassistant Ġnamed ĠSm ol LM , Ġtrained Ġby ĠH ugging ĠFace "
    "<|im_end|> Ċ "
)
ADD = "<|im_start|> user Ċ Add . ĊĊ 2 Ġ 3 <|im_end|> Ċ <|im_start|> ass istant Ċ [[ 5 <|im_end|> ]] Ċ"
WHY = "<|im_start|> user Ċ Why ? <|im_end|> Ċ <|im_start|> ass istant Ċ [[ It Ġis Ġso . <|im_end|> ]] Ċ"
KIND = "<|im_start|> system Ċ Be Ġkind . <|im_end|> Ċ "
THINKS = (
    "<|im_start|> user Ċ Why ? <|im_end|> Ċ <|im_start|> ass istant Ċ "
    "[[ < think > Ċ I Ġlook . Ċ </ think > Ċ Ċ It Ġis Ġso . <|im_end|> ]] Ċ"
)
RAIN = (
    "<|im_start|> system Ċ You Ġcan Ġcall Ġthese Ġfunctions , Ġgiven Ġas ĠJSON Ġschem as : Ċ < tools > Ċ "
    '{" type ": Ġ" function ", Ġ" function ": Ġ{" name ": Ġ" rain " }} Ċ </ tools > Ċ '
    "To Ġcall Ġone , Ġwrite Ġits Ġname Ġand Ġarguments Ġas ĠJSON : Ċ < tool _ call > Ċ "
    '{" name ": Ġ< name >, Ġ" arguments ": Ġ< arguments > } Ċ </ tool _ call > <|im_end|> Ċ '
    "<|im_start|> user Ċ Rain ? <|im_end|> Ċ <|im_start|> ass istant Ċ "
    '[[ < tool _ call > Ċ {" name ": Ġ" rain ", Ġ" arguments ": Ġ{" city ": Ġ" Os lo " }} Ċ '
    "</ tool _ call > <|im_end|> ]] Ċ "
    "<|im_start|> user Ċ < tool _ response > Ċ yes Ċ </ tool _ response > <|im_end|> Ċ "
    "<|im_start|> ass istant Ċ [[ It Ġrains . <|im_end|> ]] Ċ"
)
REAL_RECORDS: dict[str, dict[str, Any]] = {
    "instruction": {"instruction": "Add.", "input": "2 3", "output": "5"},
    "sharegpt": {
        "system": "Be kind.",
        "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "It is so."}],
    },
    "reasoning": {
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "It is so.", "reasoning_content": "I look."},
        ]
    },
    "reasoning in the text": {"prompt": "Why?", "completion": "<think>\nI look.\n</think>\n\nIt is so."},
    "tools": {
        "messages": [
            {"role": "user", "content": "Rain?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "rain", "arguments": {"city": "Oslo"}}}],
            },
            {"role": "tool", "content": "yes"},
            {"role": "assistant", "content": "It rains."},
        ],
        "tools": '[{"name": "rain"}]',
    },
}
REAL: dict[tuple[str, str], tuple[str, list[str]]] = {
    ("instruction", "auto"): (OWN_SYSTEM + ADD, []),
    ("instruction", "chatml"): (ADD, []),
    ("instruction", "instruction-response"): (
        "### ĠInstruction : Ċ Add . ĊĊ 2 Ġ 3 Ċ Ċ ### ĠResponse : Ċ [[ 5 <|im_end|> ]]",
        [],
    ),
    ("sharegpt", "auto"): (KIND + WHY, []),
    ("sharegpt", "chatml-tools"): (KIND + WHY, []),
    ("reasoning", "auto"): (OWN_SYSTEM + WHY, ["messages[].reasoning_content"]),
    ("reasoning", QWEN3): (THINKS, []),
    ("reasoning in the text", "chatml"): (THINKS, []),
    ("tools", "chatml-tools"): (RAIN, []),
}


@pytest.mark.real
@pytest.mark.parametrize("name", ["set.jsonl", "set.parquet", "cells.csv"])
@pytest.mark.parametrize("case", REAL, ids=[f"{record}-{Path(template).stem}" for record, template in REAL])
def test_ids_and_labels_of_smollm2(case: tuple[str, str], name: str, smollm2: Any, tmp_path: Path) -> None:
    (tokens, unused), record, path = REAL[case], REAL_RECORDS[case[0]], tmp_path / name
    if name == "cells.csv":
        # A table's cell holds turns as JSON text.
        _table(path, [{key: value if isinstance(value, str) else json.dumps(value) for key, value in record.items()}])
    else:
        SOURCES[name](path, [record])
    ids, labels, trained = [], [], False
    for token in tokens.split():
        if token in ("[[", "]]"):
            trained = token == "[["
            continue
        ids.append(SMOLLM2[token])
        labels.append(SMOLLM2[token] if trained else _)
    data = DataSection(source=str(path), eval_fraction=0.0, template=case[1])
    encoded = encode_dataset(load_records(data), Template.for_model(smollm2, data.template), data)
    assert [(row["input_ids"], row["labels"]) for row in encoded.train] == [(ids, labels)]
    assert [field.path for field in encoded.facts.unused] == unused
