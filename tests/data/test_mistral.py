"""Calls of tools in Mistral's two forms, whose templates reject ids other than nine letters or digits."""

import pytest

from tests.data.mistral_templates import LISTED, MARKED
from tests.data.test_records import CALL, tokenizer_of_bytes
from tests.data.test_reply_form import FORECAST, TOOLS
from tests.data.test_tools_and_reasoning import QUESTION
from workbench.data.records.conversation import Conversation, Message
from workbench.data.templates.template import Template

# Replies of such models, written from the published form.
REPLIES = {
    LISTED: '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "AbC123xyz"}, '
    '{"name": "forecast", "arguments": {"city": "Bergen", "days": 2}, "id": "VvvODy9mT"}]',
    MARKED: '[TOOL_CALLS]weather[CALL_ID]AbC123xyz[ARGS]{"city": "Oslo"}'
    '[TOOL_CALLS]forecast[CALL_ID]VvvODy9mT[ARGS]{"city": "Bergen", "days": 2}',
}
ANSWER: Message = {"role": "assistant", "content": "Rain in Oslo, sun in Bergen."}


def template_of(source: str) -> Template:
    return Template.for_model(tokenizer_of_bytes(), source)


def asked(*ids: str) -> list[Message]:
    """A question, two calls and their results in the other order, with these ids or none."""
    calls = [CALL, FORECAST]
    results: list[Message] = [{"role": "tool", "content": "sun"}, {"role": "tool", "content": "rain"}]
    if ids:
        calls = [{**call, "id": id_} for call, id_ in zip(calls, ids, strict=True)]
        results = [{**one, "tool_call_id": id_} for one, id_ in zip(results, reversed(ids), strict=True)]
    return [QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}, *results, ANSWER]


@pytest.mark.parametrize("source", REPLIES, ids=["listed", "marked"])
@pytest.mark.parametrize("ids", [(), ("call_1", "call_2"), ("AbC123xyz", "VvvODy9mT")], ids=["none", "long", "short"])
def test_a_record_with_any_ids_is_trained(source: str, ids: tuple[str, ...]) -> None:
    cut = template_of(source).cut(Conversation(asked(*ids), TOOLS))
    text = "".join(piece.text for piece in cut.pieces)
    calls, answer = [piece.text for piece in cut.pieces if piece.reply]
    assert answer.strip().startswith(ANSWER["content"])
    form = template_of(source).reply_form
    read = form.read(calls.removesuffix("<|im_end|>"), TOOLS)["tool_calls"]
    first, second = (call.pop("id") for call in read)
    assert read == [CALL, FORECAST]
    assert first != second
    assert text.count(first) == text.count(second) == 2, "a call and its result have one id"
    if ids == ("AbC123xyz", "VvvODy9mT"):
        assert (first, second) == ids


@pytest.mark.parametrize("source", REPLIES, ids=["listed", "marked"])
def test_a_reply_keeps_its_ids_so_that_chat_has_the_tokens_of_training(source: str) -> None:
    template, text = template_of(source), REPLIES[source]
    message = template.reply_form.read(text, TOOLS)
    calls = [{**CALL, "id": "AbC123xyz"}, {**FORECAST, "id": "VvvODy9mT"}]
    assert message == {"role": "assistant", "content": "", "tool_calls": calls}
    prompt = template.encode_prompt([QUESTION], TOOLS)
    trained = template.encode_conversation(Conversation(asked("AbC123xyz", "VvvODy9mT"), TOOLS)).input_ids
    assert trained[: len(prompt)] == prompt
    chat = [QUESTION, message, *asked("AbC123xyz", "VvvODy9mT")[2:4]]
    prompt = template.encode_prompt(chat, TOOLS)
    assert trained[: len(prompt)] == prompt
    assert text in template.tokenizer.decode(prompt)
