"""Records in the shapes that people have them: what is fed of each, and what is named as unused."""

import bz2
import csv
import gzip
import json
import lzma
import sqlite3
import zipfile
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.records import known_columns
from workbench.data.records.conversation import BadRecord, Conversation, Pair
from workbench.data.records.convert import TOOLS_IN_SYSTEM, Converted, convert
from workbench.data.records.detect import detect
from workbench.data.records.order import JOINED, SHORTENED
from workbench.data.records.unused import KNOWN_NAMES
from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.cutting import Cut
from workbench.data.templates.template import Template
from workbench.data.tokens.vocabulary import refuse_unknown_tokens
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection

USER, REPLY = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}
SHAREGPT = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]
TOOL = {"name": "weather", "description": "The weather of a city.", "parameters": {"type": "object", "properties": {}}}
WRAPPED = {"type": "function", "function": TOOL}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def converted(record: dict[str, Any], **options: Any) -> Converted:
    return convert(record, detect(list(record), [record], **options))


def conversation(record: dict[str, Any], **options: Any) -> Conversation:
    content = converted(record, **options).content
    assert isinstance(content, Conversation)
    return content


PAIR = [("user", "Hi?"), ("assistant", "Yes.")]
SYSTEM = ("system", "Be kind.")
SHAPES = {
    "messages": ({"messages": [USER, REPLY]}, PAIR),
    "messages with a system column": ({"messages": [USER, REPLY], "system": "Be kind."}, [SYSTEM, *PAIR]),
    "sharegpt": ({"conversations": SHAREGPT}, PAIR),
    "sharegpt with a system column": ({"conversations": SHAREGPT, "system": "Be kind."}, [SYSTEM, *PAIR]),
    "sharegpt with role": (
        {"conversations": [{"role": "user", "value": "Hi?"}, {"role": "assistant", "value": "Yes."}]},
        PAIR,
    ),
    "turns as JSON text": ({"messages": json.dumps([USER, REPLY])}, PAIR),
    "turns as Python text": ({"messages": str([USER, REPLY])}, PAIR),
    "turns as JSON text, encoded twice": ({"messages": json.dumps(json.dumps([USER, REPLY]))}, PAIR),
    "each turn as JSON text": ({"messages": [json.dumps(USER), json.dumps(REPLY)]}, PAIR),
    "messages in an object": ({"messages": {"messages": [USER, REPLY]}}, PAIR),
    "an object of lists": ({"messages": {"role": ["user", "assistant"], "content": ["Hi?", "Yes."]}}, PAIR),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}, REPLY]}, PAIR),
    "texts and parts": ({"messages": [{"role": "user", "content": [{"text": "H"}, "i?"]}, REPLY]}, PAIR),
    "a list of texts": (
        {"messages": [{"role": "user", "content": ["Hi?", "So?"]}, REPLY]},
        [("user", "Hi?\n\nSo?"), PAIR[1]],
    ),
    "a single part": ({"messages": [{"role": "user", "content": {"type": "text", "text": "Hi?"}}, REPLY]}, PAIR),
    "Human and AI": ({"messages": [{"role": "Human", "content": "Hi?"}, {"role": "AI", "content": "Yes."}]}, PAIR),
    "columns user and assistant": ({"system": "Be kind.", "user": "Hi?", "assistant": "Yes."}, [SYSTEM, *PAIR]),
    "metharme": ({"prompt": "Hi?", "generation": "Yes."}, PAIR),
    "alpaca": ({"instruction": "Hi?", "input": "", "output": "Yes."}, PAIR),
    "alpaca with history": (
        {"instruction": "Hi?", "output": "Yes.", "history": [["One?", "1"]], "system": "Be kind."},
        [SYSTEM, ("user", "One?"), ("assistant", "1"), *PAIR],
    ),
    "dolly": ({"instruction": "Hi?", "context": "Bergen.", "response": "Yes."}, [("user", "Hi?\n\nBergen."), PAIR[1]]),
    "a question with context": (
        {"question": "Hi?", "context": "Bergen.", "answer": "Yes."},
        [("user", "Hi?\n\nBergen."), PAIR[1]],
    ),
    "pairs": ({"conversation": [{"input": "Hi?", "output": "Yes."}]}, PAIR),
    "pairs with a system prompt": (
        {"messages": [{"system": "Be kind.", "human": "Hi?", "assistant": "Yes."}]},
        [SYSTEM, *PAIR],
    ),
    "texts in turn": ({"conversations": ["Hi?", "Yes."]}, PAIR),
    "a transcript": ({"chat": "USER: Hi?\n\n\nASSISTANT: Yes. <|endoftext|>\n\n\n"}, PAIR),
    "squad": (
        {"question": "Hi?", "context": "Bergen.", "answers": {"text": ["Yes.", "Yes."]}},
        [("user", "Hi?\n\nBergen."), PAIR[1]],
    ),
    "several contexts": (
        {"question": "Hi?", "context": {"contexts": ["Bergen.", "Oslo."]}, "answer": "Yes."},
        [("user", "Hi?\n\nBergen.\n\nOslo."), PAIR[1]],
    ),
    "problem and solution": ({"problem": "Hi?", "solution": "Yes."}, PAIR),
    "a document and its summary": ({"document": "Hi?", "summary": "Yes."}, PAIR),
    "an empty system turn and a system column": (
        {"messages": [{"role": "system", "content": ""}, USER, REPLY], "system": "Be kind."},
        [SYSTEM, *PAIR],
    ),
    "prompt and completion": ({"prompt": "Hi?", "completion": "Yes."}, PAIR),
    "prompt and completion as turns": ({"prompt": [USER], "completion": [REPLY]}, PAIR),
    "prompt of turns and a response": ({"prompt": [USER], "response": "Yes."}, PAIR),
    "orca": ({"system_prompt": "Be kind.", "question": "Hi?", "response": "Yes."}, [SYSTEM, *PAIR]),
    "a conversation in a list": ({"messages": [[USER, REPLY]]}, PAIR),
    "history as objects": (
        {"instruction": "Hi?", "output": "Yes.", "history": [{"user": "One?", "assistant": "1"}]},
        [("user", "One?"), ("assistant", "1"), *PAIR],
    ),
    "a question about an article": (
        {"article": "Bergen.", "question": "Hi?", "answer": "Yes."},
        [("user", "Hi?\n\nBergen."), PAIR[1]],
    ),
    "camel": ({"message_1": "Hi?", "message_2": "Yes."}, PAIR),
    "dates": (
        {"prompt": date(2024, 1, 2), "completion": datetime(2024, 1, 2, 3, 4)},
        [("user", "2024-01-02"), ("assistant", "2024-01-02T03:04:00")],
    ),
    "a later system prompt": (
        {"messages": [USER, REPLY, {"role": "system", "content": "Be kind."}, USER, REPLY]},
        [*PAIR, SYSTEM, *PAIR],
    ),
    "the assistant opens": (
        {"messages": [{"role": "assistant", "content": "Hello."}, USER, REPLY]},
        [("assistant", "Hello."), *PAIR],
    ),
}


@pytest.mark.parametrize(("record", "turns"), SHAPES.values(), ids=SHAPES)
def test_a_shape_is_read(record: dict[str, Any], turns: list[tuple[str, str]]) -> None:
    found = conversation(record)
    assert [(message["role"], message["content"]) for message in found.messages] == turns
    assert converted(record).unused == ()


def test_neighbors_of_one_role_are_joined_and_an_open_end_is_left_out() -> None:
    found = conversation({"messages": [USER, USER, REPLY, REPLY, USER]})
    assert found.texts == ["Hi?\n\nHi?", "Yes.\n\nYes."]
    assert found.changes == (JOINED, SHORTENED)


def test_a_system_prompt_that_is_there_twice_is_one_and_an_empty_response_at_the_end_is_left_out() -> None:
    system, nothing = {"role": "system", "content": "Be kind."}, {"role": "assistant", "content": ""}
    found = conversation({"messages": [system, system, USER, REPLY, USER, nothing]})
    assert found.texts == ["Be kind.", "Hi?", "Yes."]
    assert found.changes == (JOINED, SHORTENED)
    assert conversation({"messages": [USER, nothing, REPLY]}).texts == ["Hi?", "Yes."]
    # One that is not trained may be empty.
    assert conversation({"messages": [USER, nothing | {"weight": 0}, USER, REPLY]}).untrained == {1}
    with pytest.raises(BadRecord, match="a reply is empty"):
        conversation({"messages": [USER, nothing, USER, REPLY]})


def test_a_later_system_prompt_is_fed_where_the_template_writes_it() -> None:
    later = {"role": "system", "content": "Be brief."}
    found = conversation({"messages": [USER, REPLY, later, USER, REPLY]})
    pieces = Template.for_model(tokenizer_of_bytes(), "chatml").cut(found).pieces
    assert "<|im_start|>system\nBe brief.<|im_end|>" in "".join(piece.text for piece in pieces if not piece.reply)
    assert [piece.text for piece in pieces if piece.reply] == ["Yes.<|im_end|>"] * 2
    # Where it does not, that is named.
    cut = Template.for_model(tokenizer_of_bytes(), "alpaca").cut(found)
    assert [(field.path, field.asks) for field in cut.unused] == [("messages[].content", True)]


def test_a_column_of_turns_with_an_unknown_name_is_pointed_out() -> None:
    with pytest.raises(WorkbenchError) as refused:
        converted({"dialog": [USER, REPLY]})
    assert refused.value.cure == "The column dialog holds turns: set data.columns={messages: dialog}."
    with pytest.raises(WorkbenchError) as refused:
        converted({"talk": [USER], "score": 1})
    assert "such as {prompt: title" in refused.value.cure


@pytest.mark.parametrize(
    "calls",
    [
        [CALL],
        [{"name": "weather", "arguments": {"city": "Oslo"}}],
        [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}],
        json.dumps([CALL]),
    ],
    ids=["OpenAI", "bare", "arguments as text", "text"],
)
def test_tool_calls_have_one_form(calls: Any) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": calls}
    turns = [USER, call, {"role": "tool", "content": {"rain": 1}}, REPLY]
    found = conversation({"messages": turns, "tools": json.dumps([TOOL])})
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert found.messages[2] == {"role": "tool", "content": '{"rain": 1}'}
    assert found.tools == [WRAPPED]


@pytest.mark.parametrize(
    "tools", [{"weather": {k: TOOL[k] for k in ("description", "parameters")}}, {"weather": WRAPPED}, WRAPPED]
)
def test_tools_by_name(tools: Any) -> None:
    assert conversation({"messages": [USER, REPLY], "tools": tools}).tools[0]["function"] == TOOL


def test_parts_of_reasoning_are_reasoning_and_what_else_parts_hold_is_named() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "abc"}
    parts = [thought, {"type": "text", "text": "Yes.", "citations": ["a"], "image_url": None}]
    found = converted({"messages": [USER, {"role": "assistant", "content": parts}]})
    assert isinstance(found.content, Conversation)
    assert found.content.messages[1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    assert [field.path for field in found.unused] == [
        "messages[].content[].signature",
        "messages[].content[].citations",
    ]
    both = converted({"messages": [USER, {"role": "assistant", "content": [thought, "Yes."], "reasoning": "No."}]})
    assert {field.path for field in both.unused} == {"messages[].content[].signature", "messages[].content[].thinking"}


def test_what_a_call_holds_beside_its_function_is_named() -> None:
    bare = {"name": "weather", "arguments": {"city": "Oslo"}, "id": "a", "thought": "I must look at the sky first."}
    call = {"role": "assistant", "content": None, "tool_calls": [bare]}
    found = conversation({"messages": [USER, call, {"role": "tool", "content": "rain"}, REPLY]})
    assert found.messages[1]["tool_calls"] == [{**CALL, "id": "a", "thought": "I must look at the sky first."}]
    cut = Template.for_model(tokenizer_of_bytes(), "chatml-tools").cut(found)
    assert [(field.path, field.asks) for field in cut.unused] == [
        ("messages[].tool_calls[].id", False),
        ("messages[].tool_calls[].thought", True),
    ]


def test_reasoning_before_a_call_of_sharegpt() -> None:
    call = {"from": "function_call", "value": "<think>Hm.</think>" + json.dumps(CALL["function"])}
    message = conversation(
        {"conversations": [SHAREGPT[0], call, {"from": "observation", "value": "rain"}, SHAREGPT[1]]}
    ).messages[1]
    assert message == {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "Hm."}


def test_preference_records_of_openai() -> None:
    record = {
        "input": {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True},
        "preferred_output": [REPLY],
        "non_preferred_output": [{**REPLY, "content": "No."}],
    }
    found = converted(record)
    assert isinstance(found.content, Pair)
    assert [side.texts for side in (found.content.chosen, found.content.rejected)] == [["Hi?", "Yes."], ["Hi?", "No."]]  # type: ignore[union-attr]
    assert found.content.chosen.tools == [WRAPPED]  # type: ignore[union-attr]
    assert [field.path for field in found.unused] == ["input.parallel_tool_calls"]


def test_a_weight_between_not_trained_and_trained_is_refused_in_words() -> None:
    with pytest.raises(
        BadRecord, match=r"turn 2 of messages has weight '0\.5': a response is trained \(1\) or not \(0\)"
    ):
        conversation({"messages": [USER, {**REPLY, "weight": 0.5}]})


def test_sharegpt_calls_and_observations() -> None:
    turns = [
        SHAREGPT[0],
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "rain"},
        SHAREGPT[1],
    ]
    found = conversation({"conversations": turns, "tools": json.dumps([WRAPPED])})
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[1]["tool_calls"] == [CALL]
    assert found.tools == [WRAPPED]


@pytest.mark.parametrize(
    ("key", "off"), [("weight", 0), ("loss", False), ("train", "false"), ("trainable", 0.0), ("loss_mask", 0)]
)
def test_a_turn_says_whether_it_is_trained(key: str, off: Any) -> None:
    found = conversation({"messages": [USER, REPLY | {key: off}, USER, REPLY | {key: 1}]})
    assert found.untrained == {1}
    assert all(message.keys() == {"role", "content"} for message in found.messages)


def test_responses_in_a_prompt_are_not_trained() -> None:
    assert conversation({"prompt": [USER, REPLY, USER], "completion": [REPLY]}).untrained == {1}


@pytest.mark.parametrize(
    ("record", "way"),
    [
        ({"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}, "data.columns={prompt: prompt, reply: chosen}"),
        ({"chosen": [USER, REPLY], "rejected": [USER, REPLY]}, "data.columns={messages: chosen}"),
        ({"prompt": [USER], "chosen": [REPLY], "rejected": [REPLY]}, "data.columns={prompt: prompt, reply: chosen}"),
        ({"chosen": "Hi? Yes.", "rejected": "Hi? No."}, "data.columns={text: chosen}"),
        ({"prompt": "Hi?", "completion": "Yes.", "label": True}, "data.format to prompt"),
        ({"Prompt": "Hi?", "Completion": "Yes.", "Label": False}, "data.format to prompt"),
        ({"messages": [USER, REPLY], "label": False}, "data.columns={messages: messages}"),
        ({"input": "Hi?", "output": "No.", "label": False}, "data.columns={prompt: input, reply: output}"),
        ({"messages": [USER, REPLY], "rejected_response": "No."}, "data.columns={messages: messages}"),
        (
            {"instruction": "Hi?", "input": "Bergen.", "history": [], "chosen": "Yes.", "rejected": "No."},
            "data.columns={prompt: instruction, reply: chosen, input: input, history: history}",
        ),
        ({"prompt": "Hi?", "response_a": "Yes.", "response_b": "No."}, "to a column chosen and the other to rejected"),
    ],
)
def test_preference_data_is_recognized_and_says_what_to_do(record: dict[str, Any], way: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    with pytest.raises(WorkbenchError, match="preference data") as refused:
        load_records(DataSection(source=str(path)))
    assert way in refused.value.cure
    is_pair = any(name.startswith("rejected") for name in record)
    assert ("set objective.kind to dpo" in refused.value.cure) == is_pair


def test_the_way_out_of_preference_data_works_and_names_the_rest() -> None:
    record = {"prompt": [USER], "chosen": [REPLY], "rejected": [{"role": "assistant", "content": "No."}]}
    found = converted(record, by_hand={"prompt": "prompt", "reply": "chosen"})
    assert [(unused.path, unused.asks) for unused in found.unused] == [("rejected", True)]


def test_members_of_a_column_that_is_used_in_part_are_named() -> None:
    answers = {"text": ["Yes."], "answer_start": [0]}
    found = converted({"question": "Hi?", "context": {"contexts": ["Bergen."], "labels": ["A"]}, "answers": answers})
    assert [(unused.path, unused.asks) for unused in found.unused] == [
        ("context.labels", False),
        ("answers.answer_start", False),
    ]


def test_a_system_column_beside_another_system_prompt_is_named() -> None:
    found = converted({"messages": [{"role": "system", "content": "Be kind."}, USER, REPLY], "system": "Be brief."})
    assert isinstance(found.content, Conversation)
    assert found.content.texts == ["Be kind.", "Hi?", "Yes."]
    assert [(unused.path, unused.asks) for unused in found.unused] == [("system", True)]


def test_reasoning_in_a_column_of_its_own() -> None:
    thought = "As far as I know."
    found = conversation({"question": "Hi?", "Complex_CoT": thought, "answer": "Yes."})
    assert found.messages[1] == {**REPLY, "reasoning_content": thought}
    # What the template does not write is named as the record names it.
    cut = Template.for_model(tokenizer_of_bytes(), "chatml").cut(found)
    assert [(unused.path, unused.asks) for unused in cut.unused] == [("Complex_CoT", True)]
    by_hand = {"prompt": "q", "reply": "a", "reasoning": "why"}
    assert conversation({"q": "Hi?", "why": thought, "a": "Yes."}, by_hand=by_hand).messages == found.messages


def test_reasoning_is_not_written_twice() -> None:
    thinks = "<think>\nAs far as I know.\n</think>\n\nYes."
    found = converted({"question": "Hi?", "reasoning": "As far as I know.", "answer": thinks})
    assert isinstance(found.content, Conversation)
    assert found.content.messages[1] == {**REPLY, "content": thinks}
    assert [(unused.path, unused.asks) for unused in found.unused] == [("reasoning", False)]


def test_a_label_named_reasoning_is_no_reasoning() -> None:
    found = converted({"prompt": "Hi?", "completion": "Yes.", "reasoning": "on"})
    assert [unused.path for unused in found.unused] == ["reasoning"]


def test_tools_that_the_system_prompt_lists_are_not_listed_again() -> None:
    system = {"role": "system", "content": f"Use these: <tools>{json.dumps([TOOL])}</tools>"}
    found = converted({"messages": [system, USER, REPLY], "tools": json.dumps([TOOL])})
    assert isinstance(found.content, Conversation)
    assert found.content.tools == []
    assert found.content.changes == (TOOLS_IN_SYSTEM,)
    assert [(unused.path, unused.asks) for unused in found.unused] == [("tools", False)]
    prose = {"role": "system", "content": "You may ask for the weather."}
    assert conversation({"messages": [prose, USER, REPLY], "tools": json.dumps([TOOL])}).tools == [WRAPPED]


def test_a_response_of_calls_alone_is_calls_where_there_are_tools() -> None:
    calls = json.dumps([{"name": "weather", "arguments": {"city": "Oslo"}}])
    record = {"query": "Hi?", "answers": calls, "tools": json.dumps([TOOL])}
    assert conversation(record).messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert conversation({**record, "tools": ""}).messages[1] == {"role": "assistant", "content": calls}


def test_prose_in_a_column_named_like_tools_is_named() -> None:
    found = converted({"messages": [USER, REPLY], "function_description": "Tells the weather of a city."})
    assert [(unused.path, unused.asks) for unused in found.unused] == [("function_description", True)]


def test_settings_of_a_record_reach_its_template() -> None:
    source = (
        "{% if loud %}!{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    found = conversation(
        {"messages": [USER, REPLY], "chat_template_kwargs": {"loud": True, "soft": 1, "tokenize": True}}
    )
    cut = Template.for_model(tokenizer_of_bytes(), source).cut(found)
    assert "".join(piece.text for piece in cut.pieces).startswith("!<|im_start|>user")
    assert [unused.path for unused in cut.unused] == ["chat_template_kwargs.soft", "chat_template_kwargs.tokenize"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"id": 1, "messages": "hello"}, "column messages is text that is not JSON"),
        ({"messages": []}, "column messages is empty"),
        ({"messages": [{"speaker": "a", "content": "b"}]}, "turn 1 of column messages has no role"),
        ({"role": "user", "content": "Hi?"}, "is a single turn"),
    ],
)
def test_a_column_of_the_right_name_says_what_is_wrong_with_it(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(WorkbenchError) as refused:
        converted(record)
    assert reason in refused.value.message


def test_a_format_is_read_from_many_records() -> None:
    records: list[dict[str, Any]] = [{"conversations": []}, {"conversations": None}, {"conversations": SHAREGPT}]
    assert detect(["conversations"], records).kind == "sharegpt"


@pytest.mark.parametrize("layout", ["one line", "many lines"])
def test_a_json_list_named_jsonl(layout: str, tmp_path: Path) -> None:
    records = [{"prompt": f"p{n}", "completion": "c"} for n in range(6)]
    (tmp_path / "x.jsonl").write_text(json.dumps(records, indent=None if layout == "one line" else 1))
    assert len(list(load_records(DataSection(source=str(tmp_path / "x.jsonl"))).items())) == 6


def test_a_bare_list_of_turns_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps([USER, REPLY]) + "\n" + json.dumps([USER, REPLY]) + "\n")
    items = list(load_records(DataSection(source=str(tmp_path / "x.jsonl"))).items())
    assert [item.content and item.content.texts for item in items] == [["Hi?", "Yes."]] * 2  # type: ignore[union-attr]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_with_any_separator(separator: str, tmp_path: Path) -> None:
    lines = [["prompt", "completion"], ["Hi, you; there?", "Yes."]]
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(lines)
    (item,) = load_records(DataSection(source=str(tmp_path / "x.csv"))).items()
    assert item.content.texts == ["Hi, you; there?", "Yes."]  # type: ignore[union-attr]


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_a_compressed_file(suffix: str, pack: Any, tmp_path: Path) -> None:
    path = tmp_path / f"x.jsonl.{suffix}"
    path.write_bytes(pack(b'{"prompt": "Hi?", "completion": "Yes."}\n' * 3))
    assert len(list(load_records(DataSection(source=str(path))).items())) == 3
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WorkbenchError, match="is damaged"):
        list(load_records(DataSection(source=str(path))).items())


def test_an_sqlite_database(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE "my records" (prompt TEXT, completion TEXT)')
        database.executemany('INSERT INTO "my records" VALUES (?, ?)', [("Hi?", "Yes."), ("Hi?", "No.")])
    items = list(load_records(DataSection(source=str(path))).items())
    assert [item.content and item.content.texts for item in items] == [["Hi?", "Yes."], ["Hi?", "No."]]  # type: ignore[union-attr]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE more (a TEXT)")
    with pytest.raises(WorkbenchError, match=r"has 2 tables: 'my records', 'more'"):
        load_records(DataSection(source=str(path)))
    assert len(list(load_records(DataSection(source=f"{path}:my records")).items())) == 2
    with pytest.raises(WorkbenchError, match="has no table 'less': 'my records', 'more'"):
        load_records(DataSection(source=f"{path}:less"))


def test_a_zip_archive_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.csv", "prompt,completion\nHi?,Yes.\n")
        archive.writestr("__MACOSX/._train.csv", "")
    (item,) = load_records(DataSection(source=str(path))).items()
    assert item.content.texts == ["Hi?", "Yes."]  # type: ignore[union-attr]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("test.csv", "prompt,completion\nHi?,Yes.\n")
    with pytest.raises(WorkbenchError, match="is not an archive of one file of records"):
        load_records(DataSection(source=str(path)))


def test_a_token_beyond_the_embedding_is_refused_with_both_numbers(words: Any) -> None:
    refuse_unknown_tokens(len(words) - 1, words, len(words))
    refuse_unknown_tokens(3, words, len(words) - 1)  # no record uses the one that has no row
    with pytest.raises(WorkbenchError) as refused:
        refuse_unknown_tokens(len(words) - 1, words, len(words) - 1)
    last = words.convert_ids_to_tokens(len(words) - 1)
    assert f"{len(words)} tokens, the model's embedding {len(words) - 1} rows: {last!r}" in refused.value.message


# -- the law: used, or named ------------------------------------------------------------------------------------------

_values = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.integers(), st.booleans(), st.lists(st.integers(), min_size=1, max_size=3), st.just({"a": 1}),
)  # fmt: skip
_names = st.from_regex(r"zz[a-z_]{1,8}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(
    columns=st.dictionaries(_names, _values, max_size=4),
    keys=st.lists(st.dictionaries(_names, _values, max_size=3), min_size=3, max_size=3),
    part=st.dictionaries(_names, _values, max_size=2),
)
def test_whatever_a_record_holds_is_fed_or_named(
    columns: dict[str, Any], keys: list[dict[str, Any]], part: dict[str, Any]
) -> None:
    template = Template.for_model(tokenizer_of_bytes(), "chatml")
    content = [{"type": "text", "text": "Hi?", **part}]
    turns = [
        {"role": "system", "content": "Be kind.", **keys[0]},
        {"role": "user", "content": content, **keys[1]},
        {**REPLY, **keys[2]},
    ]
    found = converted({"messages": turns, **columns})
    assert isinstance(found.content, Conversation)
    cut = template.cut(found.content)
    named = {unused.path for unused in (*found.unused, *cut.unused)}
    of_turns = {f"messages[].{key}" for each in keys for key in each}
    assert named == {*columns, *of_turns, *(f"messages[].content[].{key}" for key in part)}


# Records of each kind, without what the test adds.
_BASES: list[dict[str, Any]] = [
    {"messages": [USER, REPLY]},
    {"conversations": SHAREGPT},
    {"instruction": "Hi?", "output": "Yes."},
    {"prompt": "Hi?", "completion": "Yes."},
    {"question": "Hi?", "answer": "Yes."},
    {"problem": "Hi?", "generated_solution": "Yes."},
    {"text": "Hi? Yes."},
    {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."},
    {"chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "No."}]},
    {"messages": [USER, REPLY], "rejected_response": "No."},
]
_KEYS = ("name", "value", "text", "from", "thinking", "reasoning", "tool_calls", "refusal", "thought", "id", "system")


@settings(max_examples=150, deadline=None)
@given(
    base=st.sampled_from(_BASES),
    columns=st.sets(
        st.sampled_from(sorted(KNOWN_NAMES - {"weight", "loss", "train", "training", "trainable"})), max_size=3
    ),
    keys=st.sets(st.sampled_from(_KEYS), max_size=2),
    name=st.sampled_from(["chatml", "chatml-tools"]),
)
def test_a_field_of_a_known_name_is_fed_named_or_a_reason_to_skip(
    base: dict[str, Any], columns: set[str], keys: set[str], name: str
) -> None:
    added: dict[str, Any] = {column: f"the {column} of all" for column in columns if column not in base}
    turns = {part: [*value] for part, value in base.items() if isinstance(value, list)}
    for value in turns.values():
        value[-1] = {**value[-1], **{key: f"its own {key} here" for key in keys if key not in value[-1]}}
    try:
        found = converted({**base, **turns, **added})
        sides = [found.content.chosen, found.content.rejected] if isinstance(found.content, Pair) else [found.content]
        template = Template.for_model(tokenizer_of_bytes(), name)
        cuts = [
            template.cut(side) if isinstance(side, Conversation) else Cut(template.text_pieces(side)) for side in sides
        ]
    except (BadRecord, WorkbenchError):
        return  # the reason is shown with the record
    fed = "".join(piece.text for cut in cuts for piece in cut.pieces)
    named = {unused.path for unused in (*found.unused, *(field for cut in cuts for field in cut.unused))}
    for column, value in added.items():
        assert value in fed or column in named, column
    for key in keys if turns else ():
        assert f"its own {key} here" in fed or f"messages[].{key}" in named or key in str(base), key


def tokenizer_of_bytes() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.BPE({c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|end|>", "<|return|>", "<|call|>"]})
    return tokenizer


@pytest.mark.parametrize(
    ("value", "asks"),
    [("open qa", False), (17, False), ("Paris is the capital of France.", True), ("Hi? Yes.", False)],
    ids=["a label", "a number", "a text", "a copy of what is fed"],
)
def test_a_field_that_reads_like_text_is_asked_about(value: Any, asks: bool) -> None:
    found = converted({"prompt": "Hi?", "completion": "Yes.", "extra": value})
    assert [(unused.path, unused.asks) for unused in found.unused] == [("extra", asks)]


def test_unused_fields_are_counted_named_and_can_be_waved_through(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi?", "completion": "Yes.", "context": "Bergen.", "rationale": "As I know."}] * 5
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSection(source=str(tmp_path / "x.jsonl"), format="prompt")
    template = Template.for_model(tokenizer_of_bytes(), "chatml")
    facts = data_facts(load_records(data), template, data)
    assert [(field.path, field.records, field.asks) for field in facts.unused] == [("rationale", 5, True)]
    assert not any("Not used" in notice for notice in facts.notices)
    assert "rationale (5 records)" in facts.questions[0]
    ignoring = data.model_copy(update={"ignore": ["rationale"]})
    facts = data_facts(load_records(ignoring), template, ignoring)
    assert facts.questions == ()
    assert "Not used for training: rationale (5 records)." in facts.notices


@pytest.mark.parametrize(
    ("group", "record", "content"),
    [
        ({"messages": ("posts",)}, {"posts": [USER, REPLY]}, Conversation([USER, REPLY])),
        ({"prompt": ("subject",), "reply": ("body",)}, {"subject": "Hi?", "body": "Yes."}, Conversation([USER, REPLY])),
        ({"text": ("note_body",)}, {"note_body": "Hi."}, "Hi."),
    ],
)
def test_a_new_format_takes_no_more_than_its_columns(
    monkeypatch: pytest.MonkeyPatch, group: dict[str, tuple[str, ...]], record: dict[str, Any], content: object
) -> None:
    """As CONTRIBUTING.md says: what such records consist of follows from the parts."""
    monkeypatch.setitem(known_columns.GROUPS, "letters", (group,))  # type: ignore[misc]
    monkeypatch.setitem(known_columns.OPTIONAL, "letters", ())  # type: ignore[misc]
    assert detect(list(record), [record]).kind == "letters"
    assert converted(record).content == content
