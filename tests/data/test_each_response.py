"""``data.responses: each``: every response after the prompt of a chat, also where a template rewrites earlier turns."""

import json
from dataclasses import replace
from pathlib import Path

from tests.data.test_template_matrix import CALLED, TALK
from tests.data.test_tools_and_reasoning import template_of
from workbench.data.prepare.write import Cleaning, write_cleaned
from workbench.data.records.conversation import Conversation
from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.cutting import REWRITTEN
from workbench.data.tokens.encode import encode_dataset
from workbench.recipe.sections.data import DataSection

SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'


def _data(path: Path, *records: object, **changes: object) -> DataSection:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return DataSection(source=str(path), eval_fraction=0.0, max_length=100_000, **changes)  # type: ignore[arg-type]


def _parts(data: DataSection) -> list[tuple[str, str]]:
    """What precedes the trained text of each row, and that text; white space after the end of a turn left out."""
    template = template_of("qwen3")
    rows = []
    for row in encode_dataset(load_records(data), template, data).train:
        start = next(place for place, label in enumerate(row["labels"]) if label != -100)
        trained = [label for label in row["labels"] if label != -100]
        rows.append((template.tokenizer.decode(row["input_ids"][:start]), template.tokenizer.decode(trained)))
    return rows


def test_each_response_is_written_as_after_the_prompt_of_a_chat(tmp_path: Path) -> None:
    data = _data(tmp_path / "a.jsonl", TALK, CALLED, responses="each")
    first, second, call, answer = _parts(data)
    assert first == (SYSTEM, f"{EMPTY}So.<|im_end|>")
    earlier = f"{SYSTEM}So.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
    assert second == (earlier, f"{EMPTY}Yes.<|im_end|>")
    assert call[1] == EMPTY + CALL
    assert answer[0].endswith(f"{CALL}\n<|im_start|>user\n<tool_response>\nyes\n</tool_response><|im_end|>\n"
                              "<|im_start|>assistant\n")  # fmt: skip
    template, (conversation, *_) = (
        template_of("qwen3"),
        load_records(data.model_copy(update={"responses": "all"})).items(),
    )
    assert isinstance(conversation.content, Conversation)
    for place, (prompt, _) in zip(conversation.content.responses, (first, second), strict=True):
        assert template.tokenizer.decode(template.encode_prompt(conversation.content.messages[:place])) == prompt


def test_without_it_the_last_response_alone_is_trained_and_a_notice_says_so(tmp_path: Path) -> None:
    data = _data(tmp_path / "a.jsonl", TALK, CALLED)
    template = template_of("qwen3")
    assert f"{REWRITTEN}: 2 records." in data_facts(load_records(data), template, data).notices
    each = data.model_copy(update={"responses": "each"})
    facts = data_facts(load_records(each), template, each)
    assert facts.records == 4
    assert "Each response of a conversation is a record of its own, with the turns before it." in facts.notices
    assert not any(notice.startswith(REWRITTEN) for notice in facts.notices)


def test_responses_that_a_record_excludes_stay_out_and_records_stay_on_their_side(tmp_path: Path) -> None:
    messages = [turn | {"weight": 0} if turn["content"] == "So." else turn for turn in TALK["messages"]]
    data = _data(tmp_path / "a.jsonl", *[{"messages": messages}, TALK] * 4, responses="each")
    held = replace(load_records(data), eval_fraction=0.25)
    items = list(held.items())
    assert [item.where.rpartition(" ")[2] for item in items] == [
        "1",
        "2",
        "2",
        "3",
        "4",
        "4",
        "5",
        "6",
        "6",
        "7",
        "8",
        "8",
    ]
    by_line = {item.where: {other.held_out for other in items if other.where == item.where} for item in items}
    assert all(len(sides) == 1 for sides in by_line.values())
    assert sum(sides == {True} for sides in by_line.values()) == 2


def test_a_cleaned_file_has_whole_conversations(tmp_path: Path) -> None:
    data = _data(tmp_path / "a.jsonl", TALK, responses="each")
    cleaned = write_cleaned(load_records(data), template_of("qwen3"), data, tmp_path / "b.jsonl", Cleaning())
    assert (cleaned.read, cleaned.train_records) == (1, 1)
    written = data.model_copy(update={"source": str(tmp_path / "b.jsonl")})
    assert _parts(written) == _parts(data)
