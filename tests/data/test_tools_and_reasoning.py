"""Calls of tools and reasoning through the real chat templates of models, as TRL ships them."""

from pathlib import Path
from typing import Any

import pytest
import trl

from tests.data.test_records import CALL, WRAPPED, tokenizer_of_bytes
from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.reasoning import without_reasoning
from workbench.data.templates.template import Template

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QUESTION: Message = {"role": "user", "content": "Rain in Oslo?"}
ASKS: Message = {"role": "assistant", "content": "", "reasoning_content": "I must look.", "tool_calls": [CALL]}
RESULT: Message = {"role": "tool", "content": "rain", "name": "weather"}
ANSWER: Message = {"role": "assistant", "content": "It rains.", "reasoning_content": "So it does."}


def template_of(name: str) -> Template:
    return Template.for_model(tokenizer_of_bytes(), str(TEMPLATES / f"{name}.jinja"))


def trained(name: str, conversation: Conversation, **options: Any) -> list[str]:
    return [piece.text for piece in template_of(name).cut(conversation, **options).pieces if piece.reply]


# The text that is trained of each response, written by hand from the models' formats.
CALLS = {
    "llama3_1": '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>',
    "qwen2_5": '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
    "qwen3": "<think>\nI must look.\n</think>\n\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
    "qwen3_6": "I must look.\n</think>\n\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n"
    "</function>\n</tool_call><|im_end|>",
    "glm4moe": "\n<think>I must look.</think>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>"
    "\n</tool_call>",
    "gptoss": "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant to=functions.weather"
    '<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_trained_and_its_result_is_not(name: str) -> None:
    conversation = Conversation([QUESTION, ASKS], [WRAPPED])
    assert trained(name, conversation) == [CALLS[name]]
    pieces = template_of(name).cut(Conversation([QUESTION, ASKS, RESULT, ANSWER], [WRAPPED])).pieces
    whole = "".join(piece.text for piece in pieces)
    assert "rain" in whole
    assert not any(piece.reply and "rain\n" in piece.text for piece in pieces)


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5", "qwen3", "qwen3_6", "glm4moe"])
def test_the_text_is_that_of_transformers(name: str) -> None:
    template, messages = template_of(name), [QUESTION, ASKS, RESULT, ANSWER]
    text = "".join(piece.text for piece in template.cut(Conversation(messages, [WRAPPED])).pieces)
    assert text == template.tokenizer.apply_chat_template(
        messages, tools=[WRAPPED], chat_template=template.source, tokenize=False
    )


@pytest.mark.parametrize(
    "name", [*CALLS, "qwen3_5_think", "qwen3_5_nothink", "qwen3_6_training", "gemma4", "deepseekv3", "lfm2_2_5"]
)
def test_training_and_chat_see_the_same_tokens_with_tools_and_reasoning(name: str) -> None:
    template = template_of(name)
    encoded = template.encode_conversation(Conversation([QUESTION, ASKS, RESULT, ANSWER], [WRAPPED]))
    prompt = template.encode_prompt([QUESTION, ASKS, RESULT], [WRAPPED])
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.trained[len(prompt)]
    assert not encoded.trained[len(prompt) - 1]


def test_arguments_are_text_where_the_template_expects_text() -> None:
    cut = template_of("deepseekv3").cut(Conversation([QUESTION, ASKS, RESULT, ANSWER], [WRAPPED]))
    assert '```json\n{"city": "Oslo"}\n```' in "".join(piece.text for piece in cut.pieces)


def test_a_call_that_does_not_continue_its_prompt_is_no_record_to_train_on() -> None:
    """DeepSeek's prompt opens reasoning, which its finished calls leave out."""
    with pytest.raises(BadRecord, match="does not continue its own prompt with a tool call"):
        template_of("deepseekv3").cut(Conversation([QUESTION, ASKS], [WRAPPED]))


@pytest.mark.parametrize("name", ["llama3", "phi3", "gemma3"])
def test_a_template_without_tools_says_so_and_names_one_that_has_them(name: str) -> None:
    with pytest.raises(BadRecord, match=r"writes no tool calls \(data.template chatml-tools does\)"):
        template_of(name).cut(Conversation([QUESTION, ASKS, RESULT, ANSWER], [WRAPPED]))


def test_the_named_template_writes_tools() -> None:
    template = Template.for_model(tokenizer_of_bytes(), "chatml-tools")
    cut = template.cut(Conversation([QUESTION, ASKS | {"reasoning_content": ""}, RESULT, ANSWER], [WRAPPED]))
    assert [piece.text for piece in cut.pieces if piece.reply] == [CALLS["qwen2_5"], "It rains.<|im_end|>"]
    assert "<tools>" in cut.pieces[0].text
    assert "<tool_response>\nrain\n</tool_response>" in cut.pieces[2].text


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5", "phi3"])
def test_reasoning_that_a_template_does_not_write_is_named(name: str) -> None:
    cut = template_of(name).cut(Conversation([QUESTION, ANSWER]))
    assert [(unused.path, unused.asks) for unused in cut.unused] == [("messages[].reasoning_content", True)]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("name", ["qwen3", "gptoss", "glm4moe"])
def test_a_template_gets_reasoning_under_any_key(name: str, key: str) -> None:
    message = {"role": "assistant", "content": "It rains.", key: "So it does."}
    cut = template_of(name).cut(Conversation([QUESTION, message]))
    assert "So it does." in "".join(piece.text for piece in cut.pieces if piece.reply)
    assert cut.unused == ()


def test_tools_that_a_template_does_not_write_are_named() -> None:
    cut = template_of("phi3").cut(Conversation([QUESTION, {"role": "assistant", "content": "Yes."}], [WRAPPED]))
    assert [(unused.path, unused.asks) for unused in cut.unused] == [("tools", True)]


THINKS: Message = {"role": "assistant", "content": "<think>\nSo it does.\n</think>\n\nIt rains."}


@pytest.mark.parametrize("content", [ANSWER, THINKS], ids=["in a key", "in the text"])
def test_reasoning_is_trained_masked_or_dropped(content: Message) -> None:
    conversation = Conversation([QUESTION, content])
    assert trained("qwen3", conversation) == ["<think>\nSo it does.\n</think>\n\nIt rains.<|im_end|>"]
    assert trained("qwen3", conversation, answer_only=True) == ["It rains.<|im_end|>"]
    assert "So it does" not in "".join(trained("qwen3", without_reasoning(conversation)))


def test_a_turn_that_is_not_trained_stays_in_the_text() -> None:
    reply = {"role": "assistant", "content": "It rains."}
    conversation = Conversation([QUESTION, reply, QUESTION, {**reply, "content": "Still."}], untrained=frozenset({1}))
    cut = template_of("llama3_1").cut(conversation)
    assert [piece.text for piece in cut.pieces if piece.reply] == ["Still.<|eot_id|>"]
    assert "It rains." in "".join(piece.text for piece in cut.pieces)


def test_a_system_prompt_without_a_place_is_never_inside_a_response() -> None:
    template = Template.for_model(
        tokenizer_of_bytes(), "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    )
    strict = Template.for_model(
        tokenizer_of_bytes(),
        "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}] {{ m.content }}\n{% endif %}{% endfor %}",
    )
    reply = {"role": "assistant", "content": "Hello."}
    conversation = Conversation([{"role": "system", "content": "Be kind."}, reply, QUESTION, ANSWER])
    assert "[system] Be kind." in template.cut(conversation).pieces[0].text
    pieces = strict.cut(conversation).pieces
    assert "Be kind.\n\nRain in Oslo?" in "".join(piece.text for piece in pieces if not piece.reply)
    assert not any("Be kind." in piece.text for piece in pieces if piece.reply)


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5"])
def test_an_opening_response_is_trained(name: str) -> None:
    reply = {"role": "assistant", "content": "Hello."}
    assert len(trained(name, Conversation([reply, QUESTION, {**reply, "content": "Yes."}]))) == 2


def test_the_marks_of_a_template_are_those_that_trl_trains() -> None:
    template = template_of("qwen3_6_training")
    messages = [QUESTION, {"role": "assistant", "content": "Yes."}, QUESTION, {"role": "assistant", "content": "No."}]
    encoded = template.encode_conversation(Conversation(messages))
    theirs = template.tokenizer.apply_chat_template(
        messages, chat_template=template.source, return_dict=True, return_assistant_tokens_mask=True
    )
    assert encoded.input_ids == theirs["input_ids"]
    pairs = list(zip(encoded.trained, map(bool, theirs["assistant_masks"]), strict=True))
    assert not any(ours and not trl_trains for ours, trl_trains in pairs)
    # What only TRL trains: reasoning's opening mark, which the prompt already holds, and white space after a turn.
    left = [i for i, pair in zip(encoded.input_ids, pairs, strict=True) if pair == (False, True)]
    assert template.tokenizer.decode(left).replace("<think>", "").strip() == ""


def test_a_marked_template_that_rejects_a_record_is_a_reason_to_skip_it() -> None:
    source = (TEMPLATES / "qwen3_6_training.jinja").read_text()
    template = Template.for_model(tokenizer_of_bytes(), source)
    with pytest.raises(BadRecord, match="No user query found"):
        template.cut(Conversation([{"role": "assistant", "content": "Hello."}]))


@pytest.mark.parametrize("text", ["<s>hello</s>", "hello</s>", "<s>hello"])
def test_begin_and_end_are_not_doubled(text: str, words: Any) -> None:
    pieces = Template.for_model(words, "plain").text_pieces(text)
    assert pieces[0].text.count("</s>") == 1
    assert pieces[0].text.count("<s>") <= 1
