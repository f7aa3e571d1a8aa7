"""What a model writes, read as a message: through the real chat templates of models, as TRL ships them."""

from typing import Any

import pytest

from tests.data.test_records import WRAPPED
from tests.data.test_tools_and_reasoning import ANSWER, ASKS, QUESTION, RESULT, template_of
from workbench.data.records.conversation import Conversation, Message
from workbench.data.templates.reply_form import ReplyForm, ReplySplitter
from workbench.data.templates.template import Template

DAYS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [
    WRAPPED,
    {"type": "function", "function": {"name": "forecast", "description": "Days ahead.", "parameters": DAYS}},
]
FORECAST = {"type": "function", "function": {"name": "forecast", "arguments": {"city": "Bergen", "days": 2}}}
NOW = {"type": "function", "function": {"name": "now", "arguments": {}}}
# Templates that write calls and reasoning, and templates that write only calls.
REASONING = ["qwen3", "qwen3_5_think", "qwen3_6", "qwen3_8", "glm4moe", "gptoss"]
CALLS = ["llama3_1", "qwen2_5", "qwen3_instruct_2507", "qwen3_5_nothink"]
# Templates whose calls hold typed values; Gemma 4's write reasoning before calls alone.
TYPED_VALUES = ["gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5", "lfm2_2_5", "lfm2_2_5_v2"]


def written(template: Template, messages: list[Message], tools: list[dict[str, Any]]) -> str:
    """What the model writes for the last message, as training has it, without the end of the turn."""
    prompt = template.encode_prompt(messages[:-1], tools)
    pieces = template.cut(Conversation(messages, tools)).pieces
    text = "".join(piece.text for piece in pieces)[len(template.tokenizer.decode(prompt)) :]
    known = ("<|im_end|>", "<|eot_id|>", "<|return|>", "<|call|>", "<|tool_response>", "<turn|>")
    ends = [end for end in known if text.rstrip().endswith(end)]
    return text.rstrip().removesuffix(ends[0]) if ends else text.rstrip("\n")


def said(template: Template, message: Message, tools: list[dict[str, Any]]) -> Message:
    return template.reply_form.read(written(template, [QUESTION, message], tools), tools)


@pytest.mark.parametrize("name", REASONING)
def test_reasoning_answer_and_calls_are_read(name: str) -> None:
    template = template_of(name)
    assert template.reply_form.has_key
    answer = said(template, ANSWER, TOOLS)
    assert answer == ANSWER
    asks = said(template, ASKS, TOOLS)
    assert (asks["reasoning_content"], asks["tool_calls"], asks["content"]) == ("I must look.", ASKS["tool_calls"], "")


@pytest.mark.parametrize("name", [*REASONING, *CALLS, *TYPED_VALUES])
def test_the_conversation_has_the_same_tokens_in_chat_as_in_training(name: str) -> None:
    template = template_of(name)
    messages = [QUESTION, ASKS, RESULT, ANSWER]
    if name in CALLS:
        messages = [{key: value for key, value in one.items() if key != "reasoning_content"} for one in messages]
    trained = template.encode_conversation(Conversation(messages, TOOLS)).input_ids
    chat: list[Message] = [QUESTION]
    for message, result in ((messages[1], messages[2]), (messages[3], None)):
        prompt = template.encode_prompt(chat, TOOLS)
        assert trained[: len(prompt)] == prompt
        reply = template.reply_form.read(written(template, [*chat, message], TOOLS), TOOLS)
        chat += [reply, result] if result else [reply]
    assert template.encode_conversation(Conversation(chat, TOOLS)).input_ids == trained


def test_a_prompt_that_closes_the_reasoning_is_followed_by_an_answer() -> None:
    """Qwen 3.5's small models: the prompt says that there is no reasoning."""
    template = template_of("qwen3_5_nothink")
    form = template.reply_form
    assert form.read("It rains.", TOOLS) == {"role": "assistant", "content": "It rains."}
    assert form.read("<think>\nSo it does.\n</think>\n\nIt rains.", TOOLS) == ANSWER
    assert template_of("qwen3_5_think").reply_form.read("So it does.\n</think>\n\nIt rains.", TOOLS) == ANSWER


@pytest.mark.parametrize("name", ["gemma4", "lfm2_2_5"])
def test_reasoning_before_calls_of_typed_values_is_read(name: str) -> None:
    template = template_of(name)
    assert template.reply_form.has_key
    message = said(template, {**ASKS, "tool_calls": [*ASKS["tool_calls"], FORECAST]}, TOOLS)
    assert message["reasoning_content"] == "I must look."
    assert message["tool_calls"] == [*ASKS["tool_calls"], FORECAST]
    # Reasoning before an answer is shown apart too, and sent back as the template has it.
    form = template.reply_form
    answer = form.read(f"{form.opens}\nSo it does.\n{form.closes}It rains.", TOOLS)
    assert answer == ANSWER


# The template of gpt-oss writes one call per turn.
@pytest.mark.parametrize("name", [*(name for name in REASONING if name != "gptoss"), "qwen2_5"])
def test_several_calls_are_read_with_numbers_and_text(name: str) -> None:
    calls = [ASKS["tool_calls"][0], FORECAST]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    assert said(template_of(name), message, TOOLS)["tool_calls"] == calls


# Replies in the form of models whose values are typed: numbers stand without quotes, lists and objects within.
TYPED = {
    "gemma4": '<|tool_call>call:weather{city:<|"|>Oslo, {a:1}<|"|>}<tool_call|>'
    '<|tool_call>call:forecast{city:<|"|>Bergen<|"|>,days:2,more:{at:[1.5,true,<|"|>x<|"|>]}}<tool_call|>',
    "lfm2_2_5": "<|tool_call_start|>[weather(city='Oslo, {a:1}'), "
    "forecast(city=\"Bergen\", days=2, more={'at': [1.5, True, 'x']})]<|tool_call_end|>",
}


@pytest.mark.parametrize("name", TYPED)
def test_calls_with_typed_values_are_read(name: str) -> None:
    message = template_of(name).reply_form.read(TYPED[name], TOOLS)
    more = {"at": [1.5, True, "x"]}
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "weather", "arguments": {"city": "Oslo, {a:1}"}},
        {"name": "forecast", "arguments": {"city": "Bergen", "days": 2, "more": more}},
    ]
    assert message["content"] == ""


@pytest.mark.parametrize("name", TYPED)
def test_what_the_template_writes_for_typed_values_is_read_again(name: str) -> None:
    calls = [ASKS["tool_calls"][0], FORECAST, NOW]
    template = template_of(name)
    conversation = Conversation([QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}], TOOLS)
    text = "".join(piece.text for piece in template.cut(conversation).pieces if piece.reply)
    assert template.reply_form.read(text, TOOLS)["tool_calls"] == calls


@pytest.mark.parametrize("text", ["<|tool_call_start|>[f(1)]<|tool_call_end|>", "<|tool_call_start|>[f(a=b())]"])
def test_what_is_no_call_of_keywords_and_values_stays_text(text: str) -> None:
    assert template_of("lfm2_2_5").reply_form.read(text, TOOLS) == {"role": "assistant", "content": text}


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_6", "llama3_1", "gptoss"])
def test_a_call_without_arguments_is_read(name: str) -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [NOW]}
    assert said(template_of(name), message, TOOLS).get("tool_calls") == [NOW]


def test_white_space_of_a_call_does_not_matter_and_text_beside_it_is_kept() -> None:
    form = template_of("qwen2_5").reply_form
    call = '<tool_call>{"name":"forecast","arguments":{"city":"Bergen","days":2}}</tool_call>'
    assert form.read(f"I look.\n{call}", TOOLS) == {"role": "assistant", "content": "I look.", "tool_calls": [FORECAST]}
    assert form.read(f"{call} Done.", TOOLS)["content"] == "Done."


@pytest.mark.parametrize("text", ['<tool_call>{"name": "forecast", "argum', "no call", '{"name": "weather"}'])
def test_what_is_no_call_stays_text(text: str) -> None:
    form = template_of("qwen2_5").reply_form
    assert form.read(text, TOOLS) == {"role": "assistant", "content": text}


def test_without_tools_nothing_is_read_as_a_call() -> None:
    text = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    form = template_of("llama3_1").reply_form
    assert form.read(text, []) == {"role": "assistant", "content": text}
    assert form.read(text, TOOLS)["tool_calls"] == ASKS["tool_calls"]


def test_a_template_without_reasoning_gets_it_back_as_it_was_written() -> None:
    template = template_of("qwen2_5")
    text = "<think>\nSo it does.\n</think>\n\nIt rains."
    message = template.reply_form.read(text, TOOLS)
    assert message == {"role": "assistant", "content": text}
    record = Conversation([QUESTION, {"role": "assistant", "content": text}, QUESTION, ANSWER])
    prompt = template.encode_prompt([QUESTION, message, QUESTION])
    assert template.encode_conversation(record).input_ids[: len(prompt)] == prompt


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("form", "text", "reasoning", "answer"),
    [
        (ReplyForm(), "\n<think>Why?</think>\n\nSo.", "Why?", "So."),
        (ReplyForm(), " <thin air>", "", " <thin air>"),
        (ReplyForm(opens="", is_opened=True), "Why </thin?</think>So.", "Why </thin?", "So."),
        (ReplyForm("<a>r<m>", "<end><s>a", "<f><m>"), "<a>r<m>Why?<end><s>a<f><m>So.", "Why?", "So."),
        (ReplyForm("<a>r<m>", "<end><s>a", "<f><m>"), "<f><m>So.", "", "So."),
        (ReplyForm(), "<think>Cut off", "Cut off", ""),
    ],
)
def test_a_reply_is_split_while_it_is_written(
    form: ReplyForm, text: str, reasoning: str, answer: str, size: int
) -> None:
    splitter = ReplySplitter(form)
    pieces = [piece for at in range(0, len(text), size) for piece in splitter.feed(text[at : at + size])]
    pieces += splitter.feed("", final=True)
    assert "".join(piece.text for piece in pieces if piece.is_reasoning) == reasoning
    assert "".join(piece.text for piece in pieces if not piece.is_reasoning) == answer
