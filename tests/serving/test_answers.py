"""Calls of tools and reasoning in the form of OpenAI's API, and messages that come back in it."""

import json

import pytest
from transformers import AutoTokenizer

from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.serving.answers import ChatAnswer
from workbench.serving.reply import Reply
from workbench.serving.requests import ChatRequest, to_messages

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    }
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>'


@pytest.fixture(scope="module")
def template(tiny_llama):
    return Template.for_model(AutoTokenizer.from_pretrained(tiny_llama), "chatml-tools")


def _streamed(answer, pieces):
    chunks = [*answer.begin(), *(chunk for piece in pieces for chunk in answer.add(piece, None))]
    chunks += answer.end(Reply([5], "".join(pieces), "stop"))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    return deltas, chunks[-1]["choices"][0]["finish_reason"]


def test_a_call_of_a_tool_is_told_apart_from_the_answer(template):
    text = "I look it up.\n" + CALL
    whole = ChatAnswer("mate", template, TOOLS).whole(Reply([5], text, "stop"), None, {})["choices"][0]
    (call,) = whole["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"place": "Oslo"}
    assert (call["function"]["name"], whole["finish_reason"]) == ("weather", "tool_calls")
    assert whole["message"]["content"].strip() == "I look it up."
    deltas, reason = _streamed(
        ChatAnswer("mate", template, TOOLS), ["I look it up.\n<tool", CALL.removeprefix("<tool")]
    )
    assert reason == "tool_calls"
    assert [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta] == [call["function"]]
    assert "".join(delta.get("content") or "" for delta in deltas).strip() == "I look it up."


def test_without_tools_nothing_is_read_as_a_call(template):
    deltas, reason = _streamed(ChatAnswer("mate", template, []), ["Say: ", CALL])
    assert "".join(delta.get("content") or "" for delta in deltas) == "Say: " + CALL
    assert reason == "stop"


def test_a_reply_cut_short_keeps_its_reason(template):
    (choice,) = ChatAnswer("mate", template, TOOLS).whole(Reply([5], CALL, "length"), None, {})["choices"]
    assert choice["finish_reason"] == "length"


def test_messages_of_the_client_become_those_of_the_template():
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}}
    messages = to_messages(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "How is "}, {"type": "text", "text": "Oslo?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ]
    )
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert [message.content for message in messages] == ["Be brief.", "How is Oslo?", "", "rain"]
    assert messages[2].tool_calls == [call]
    assert messages[3].name == "weather"


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "user", "content": "a", "attachments": ["b"]}, "messages[0] has attachments"),
        ({"role": "critic", "content": "a"}, "messages[0].role: input should be"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "reads only text"),
    ],
)
def test_a_turn_that_would_not_reach_the_model_is_refused(turn, words):
    with pytest.raises(WorkbenchError) as error:
        to_messages([turn])
    assert words in error.value.message


def test_a_field_that_is_null_has_its_default():
    body = {"model": "a", "messages": [{"role": "user"}], "temperature": None, "top_p": None, "n": None, "seed": -1}
    sampling = ChatRequest.read(body).sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (1.0, 1.0, 2**63 - 1)
    tool_free = {**body, "tools": TOOLS, "tool_choice": "none"}
    assert ChatRequest.read(tool_free).offered_tools == []
    with pytest.raises(WorkbenchError, match=r"tool_choice: input should be 'auto' or 'none'"):
        ChatRequest.read({**body, "tool_choice": "required"})
