"""Splitting long records, and finding equal ones."""

from dataclasses import replace
from typing import Any

import pytest

from workbench.data.prepare.duplicates import SeenRecords
from workbench.data.prepare.record_line import record_line
from workbench.data.prepare.splitting import split_conversation, split_text
from workbench.data.records.conversation import Conversation


def talk(*texts: str, system: str = "") -> Conversation:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    messages += [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return Conversation(messages)


def size(conversation: Conversation) -> int:
    return sum(map(len, conversation.texts))


@pytest.mark.parametrize(
    "text", ["".join(map(str, range(100, 260))), "word " * 300, "one\n\ntwo\n\n" + "x y " * 90, "\n\n\n", "short"]
)
@pytest.mark.parametrize("overlap", [0, 7])
def test_parts_of_a_text_cover_it_and_fit(text, overlap):
    parts = list(split_text(text, len, 40, overlap))
    assert all(len(part) <= 40 for part in parts)
    at = 0
    for part in parts:
        start = text.index(part, max(at - overlap, 0)) if at else 0
        assert start <= at or not text[at:start].strip()
        at = start + len(part)
    assert not text[at:].strip()


def test_a_conversation_is_split_before_questions_and_keeps_its_marks() -> None:
    whole = Conversation(
        talk("aa", "bb", "cc", "dd", "ee", "f" * 9, "gg", "hh", system="s").messages, untrained=frozenset({2})
    )
    parts, left_out = split_conversation(whole, lambda part: size(part) <= 9)
    assert [part.texts for part in parts] == [["s", "aa", "bb", "cc", "dd"], ["s", "gg", "hh"]]
    assert [part.untrained for part in parts] == [frozenset({2}), frozenset()]
    assert left_out == 1
    # A part in which nothing is trained is left out too.
    assert split_conversation(whole, lambda part: size(part) <= 5)[1] == 2
    # A later system prompt stays with the question after it.
    later = talk("aa", "bb").messages + talk("cc", "dd", system="s").messages
    parts, _ = split_conversation(Conversation(later), lambda part: size(part) <= 5)
    assert [part.texts for part in parts] == [["aa", "bb"], ["s", "cc", "dd"]]
    opened = Conversation([{"role": "assistant", "content": "hi"}, *talk("aa", "bb").messages])
    parts, _ = split_conversation(opened, lambda part: size(part) <= 4)
    assert [part.texts for part in parts] == [["hi"], ["aa", "bb"]]


def test_equal_records_are_those_with_the_same_turns_tools_and_loss() -> None:
    seen = SeenRecords(0.0)
    record = talk("aa", "bb")
    assert seen.match(record, add=True) == ""
    assert seen.match(talk("aa", "bb"), add=True) == "exact"
    assert seen.match(Conversation(record.messages, [{"name": "wind"}]), add=True) == ""
    assert seen.match(Conversation(record.messages, untrained=frozenset({1})), add=True) == ""
    assert seen.match("text", add=False) == seen.match("text", add=True) == ""


def test_a_line_holds_what_the_record_is_read_back_from() -> None:
    whole = Conversation(talk("aa", "bb", "cc", "dd").messages, [{"name": "wind"}], frozenset({1}))
    line = record_line(whole, "Be kind.")
    assert [message.get("weight") for message in line["messages"]] == [None, None, 0, None, None]
    assert line["messages"][0] == {"role": "system", "content": "Be kind."}
    assert line["tools"] == [{"name": "wind"}]
    assert "chat_template_kwargs" not in line
    told = replace(whole, template_kwargs={"enable_thinking": False})
    assert record_line(told, None)["chat_template_kwargs"] == {"enable_thinking": False}
    asked = Conversation(
        [{"role": "user", "content": "a", "instruction": "a", "input": "b"}, *talk("q", "r").messages[1:]]
    )
    assert record_line(asked, None)["messages"][0] == {"role": "user", "content": "a"}
    assert record_line(asked, None, keep_apart=True)["messages"][0]["input"] == "b"
    assert record_line("text", "Be kind.") == {"text": "text"}
