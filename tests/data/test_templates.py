"""Training and chat give the model the same tokens, for every template and both kinds of tokenizer."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.conftest import make_word_tokenizer
from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.templates.cutting import REWRITTEN
from workbench.data.templates.named import NAMED
from workbench.data.templates.template import Template
from workbench.data.tokens.tokenize import token_ids
from workbench.errors import WorkbenchError

TALK: list[Message] = [
    {"role": "user", "content": "add two and three"},
    {"role": "assistant", "content": "five"},
    {"role": "user", "content": "why"},
    {"role": "assistant", "content": "because the sea is blue"},
]
# Qwen 3 and others drop the reasoning of earlier turns once another question follows.
REWRITING = (
    "{% for m in messages %}{% if m.role == 'user' %}[Q] {{ m.content }} {% else %}"
    "[A] {% if loop.last %}{{ 'be kind ' }}{% endif %}{{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[A] {% endif %}"
)
# Gemma's refuses a system prompt, as this does.
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[Q] {{ m.content }} {% else %}[A] {{ m.content }}</s> {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[A] {% endif %}"
)


# Every choice there is: the model's own, the named ones, and Jinja of one's own.
CHOICES = ["auto", *NAMED, REWRITING, NO_SYSTEM]
NAMES = ["auto", *NAMED, "custom that rewrites", "custom without system"]


def assert_chat_is_training(template: Template, talk: list[Message]) -> None:
    """Before each trained reply, training has the very tokens that chat gives the model at that point."""
    encoded = template.encode_conversation(Conversation(talk))
    assert len(encoded.input_ids) == len(encoded.trained)
    rewritten = REWRITTEN in template.cut(Conversation(talk)).changes
    replies = [number for number, turn in enumerate(talk) if turn["role"] == "assistant"]
    for number in replies[-1:] if rewritten else replies:
        prompt = template.encode_prompt(talk[:number])
        assert encoded.input_ids[: len(prompt)] == prompt
        assert not encoded.trained[len(prompt) - 1]
        assert encoded.trained[len(prompt)]
    if rewritten:
        assert not any(encoded.trained[: len(prompt)])


@pytest.mark.parametrize("name", CHOICES, ids=NAMES)
@pytest.mark.parametrize("system", [None, "be kind"])
def test_chat_is_training(name: str, system: str | None, words: Any, bare_words: Any) -> None:
    for tokenizer in (words, bare_words):
        assert_chat_is_training(Template.for_model(tokenizer, name, system), TALK)


@pytest.mark.real
@pytest.mark.parametrize("name", CHOICES, ids=NAMES)
@pytest.mark.parametrize("is_base", [False, True], ids=["chat model", "without a template"])
def test_chat_is_training_on_the_real_tokenizer(name: str, is_base: bool, smollm2: Any) -> None:
    tokenizer = copy.copy(smollm2)
    if is_base:
        tokenizer.chat_template = None
    template = Template.for_model(tokenizer, name)
    assert any("no chat template" in notice for notice in template.notices) == (is_base and name == "auto")
    assert_chat_is_training(template, TALK)
    assert_chat_is_training(Template.for_model(tokenizer, name, "Answer as a sailor."), TALK[:2])


@pytest.mark.real
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["auto", *NAMED]),
    st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0),
)
def test_chat_is_training_whatever_is_said(smollm2: Any, name: str, texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() or "." for text in texts]
    talk = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    if all(turn["content"].strip() for turn in talk):
        assert_chat_is_training(Template.for_model(smollm2, name), talk)


@pytest.mark.real
def test_smollm2s_own_system_prompt_is_in_training_and_chat(smollm2: Any) -> None:
    template = Template.for_model(smollm2)
    encoded = template.encode_conversation(Conversation(TALK[:2]))
    own = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    assert smollm2.decode(template.encode_prompt(TALK[:1])) == (
        own + "<|im_start|>user\nadd two and three<|im_end|>\n<|im_start|>assistant\n"
    )
    reply = [token for token, trained in zip(encoded.input_ids, encoded.trained, strict=True) if trained]
    assert smollm2.decode(reply) == "five<|im_end|>"
    # Nothing is lost against tokenising the whole text at once, as other programs do.
    assert encoded.input_ids == smollm2(template.render(TALK[:2]), add_special_tokens=False)["input_ids"]
    assert template.end_token_ids == (smollm2.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("instruction-response", "### Instruction:\nwhy\n\n### Response:\nbecause</s>"),
        ("user-assistant", "### User: why\n### Assistant: because</s>"),
        (
            "alpaca",
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nwhy\n\n### Response:\nbecause</s>",
        ),
        ("chatml", "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\nbecause<|im_end|></s>\n"),
        ("plain", "why\nbecause</s>"),
    ],
)
def test_named_templates(name: str, text: str, words: Any, bare_words: Any) -> None:
    talk = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "because"}]
    assert Template.for_model(words, name).render(talk) == text
    assert Template.for_model(bare_words, name).render(talk) == "<s>" + text


def test_alpaca_sets_an_input_apart(words: Any) -> None:
    question = {"role": "user", "content": "add\n\ntwo and three", "instruction": "add", "input": "two and three"}
    text = Template.for_model(words, "alpaca").render([question], add_generation_prompt=True)
    assert "provides further context" in text
    assert text.endswith("### Instruction:\nadd\n\n### Input:\ntwo and three\n\n### Response:\n")


def test_a_template_that_rewrites_earlier_turns_trains_the_last_reply_only(words: Any) -> None:
    template = Template.for_model(words, REWRITING)
    encoded = template.encode_conversation(Conversation(TALK))
    assert REWRITTEN in template.cut(Conversation(TALK)).changes
    # [Q] add two and three [A] five </s> [Q] why [A] be kind because the sea is blue </s>
    assert encoded.input_ids == [4, 8, 9, 11, 10, 5, 12, 2, 4, 13, 5, 6, 7, 14, 15, 16, 17, 18, 2]
    assert encoded.trained == [False] * 11 + [True] * 8
    assert_chat_is_training(template, TALK)


def test_a_template_without_a_place_for_a_system_prompt(words: Any) -> None:
    template = Template.for_model(words, NO_SYSTEM, system="be kind")
    assert template.encode_prompt(TALK[:1]) == [4, 6, 7, 8, 9, 11, 10, 5]
    assert "does not support a system prompt" in template.notices[0]
    assert_chat_is_training(template, TALK)


def test_a_template_that_refuses_a_conversation_says_why(words: Any) -> None:
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('The user comes first') }}{% endif %}" + REWRITING
    template = Template.for_model(words, strict)
    with pytest.raises(BadRecord, match="The user comes first"):
        template.cut(Conversation(TALK[1:]))
    with pytest.raises(WorkbenchError, match="The user comes first"):
        template.encode_prompt(TALK[1:3])


@pytest.mark.parametrize(
    ("jinja", "words_of_it"),
    [
        ("{{ messages", "unexpected"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}", "unsafe"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "cannot render a question|does not write the reply"),
        ("no-such-template", "Unknown template"),
        ("missing.jinja", "Cannot read"),
    ],
)
def test_a_template_that_cannot_be_used(jinja: str, words_of_it: str, words: Any) -> None:
    with pytest.raises(WorkbenchError, match=words_of_it) as caught:
        Template.for_model(words, jinja)
    assert "chatml" in caught.value.cure or "readable" in caught.value.cure


def test_a_template_without_an_end_is_told(words: Any) -> None:
    template = Template.for_model(words, "{% for m in messages %}{{ m.content }} {% endfor %}")
    assert "where to stop" in template.notices[0]
    assert template.end_token_ids == ()


@pytest.mark.parametrize("name", ["auto", *NAMED, NO_SYSTEM])
def test_saved_with_the_adapter(name: str, words: Any, bare_words: Any, tmp_path: Path) -> None:
    for tokenizer in (words, bare_words):
        template = Template.for_model(tokenizer, name, system="be kind")
        template.save(tmp_path)
        loaded = Template.load(tmp_path, tokenizer)
        assert loaded == template
        assert loaded.encode_prompt(TALK[:3]) == template.encode_prompt(TALK[:3])


def test_other_programs_read_the_same_template(words: Any, tmp_path: Path) -> None:
    template = Template.for_model(words, "alpaca", system="be kind")
    template.save(tmp_path)
    jinja = (tmp_path / "chat_template.jinja").read_text(encoding="utf-8")
    theirs = words.apply_chat_template(TALK[:1], chat_template=jinja, tokenize=False, add_generation_prompt=True)
    assert theirs == template.render(TALK[:1], add_generation_prompt=True)


def test_an_adapter_of_another_program(words: Any, bare_words: Any, tmp_path: Path) -> None:
    assert Template.load(tmp_path, words) == Template.for_model(words)
    (tmp_path / "chat_template.jinja").write_text(NO_SYSTEM, encoding="utf-8")
    assert Template.load(tmp_path, bare_words).source == NO_SYSTEM


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 1, "source": "x", "system": null}', '{"name": "plain"}'])
def test_a_damaged_template_file(text: str, words: Any, tmp_path: Path) -> None:
    (tmp_path / "template.json").write_text(text, encoding="utf-8")
    with pytest.raises(WorkbenchError, match="cannot be read"):
        Template.load(tmp_path, words)


def test_a_tokenizer_that_puts_a_space_before_a_text() -> None:
    """SentencePiece's way: a text's first word gets a space. A later piece of a text must not get one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, ":": 5, "\n": 6, "▁a": 7}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    spaced = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    template = Template.for_model(
        spaced,
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% else %}:{% endif %}{% endfor %}",
    )
    encoded = template.encode_conversation(
        Conversation([{"role": "user", "content": "b"}, {"role": "assistant", "content": "a"}])
    )
    # ▁ b : a </s>, and not ▁a in place of a
    assert encoded.input_ids == [2, 4, 5, 3, 1]
    assert encoded.trained == [False, False, False, True, True]


@pytest.mark.real
def test_ids_are_those_of_the_tokenizers_own_call(smollm2: Any, bare_words: Any) -> None:
    texts = ["", "\n", "why <|im_end|> and  two", "é ☃ 日本 𝕏", "</s> ### Response:", " leading", "a" * 3000]
    for tokenizer in (smollm2, bare_words):
        assert token_ids(tokenizer, texts) == tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_what_another_call_left_set_on_a_tokenizer_cuts_nothing() -> None:
    tokenizer = make_word_tokenizer()
    tokenizer.pad_token = "</s>"
    tokenizer(["why " * 20], truncation=True, max_length=4, padding="max_length")
    assert tokenizer.backend_tokenizer.truncation
    assert token_ids(tokenizer, ["why " * 20, "why"]) == [[13] * 20, [13]]


def test_a_tokenizer_with_a_way_of_its_own_keeps_it() -> None:
    from transformers import PreTrainedTokenizerFast

    class Shouting(PreTrainedTokenizerFast):
        def _encode_plus(self, text: Any, *args: Any, **options: Any) -> Any:
            return super()._encode_plus([one.lower() for one in text], *args, **options)

    tokenizer = make_word_tokenizer()
    own = Shouting(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
    assert token_ids(own, ["WHY"]) == [[13]]
    assert token_ids(tokenizer, ["WHY"]) == [[0]]


def test_a_template_of_an_image_text_model_gets_content_as_parts(words: Any, tmp_path: Path) -> None:
    """SmolVLM's walks over the parts of a content and writes nothing of a text."""
    source = (
        "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}"
        "{% endfor %} </s>\n{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
    )
    template = Template.for_model(words, source, "be brief")
    assert template.render([{"role": "user", "content": "hello"}]) == "system : be brief </s>\nuser : hello </s>\n"
    encoded = template.encode_conversation(
        Conversation([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}])
    )
    assert any(encoded.trained)
    # Other programs give it parts too, and get the same system prompt.
    template.save(tmp_path)
    content = [{"type": "text", "text": "hello"}]
    theirs = words.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=(tmp_path / "chat_template.jinja").read_text(encoding="utf-8"),
        tokenize=False,
    )
    assert theirs == "system : be brief </s>\nuser : hello </s>\n"


def test_the_template_of_a_processor_is_the_models_own(bare_words: Any, tmp_path: Path) -> None:
    """Processors of older repositories keep it in a file that the tokenizer does not read."""
    from workbench.models.tokenizers import load_tokenizer

    bare_words.save_pretrained(tmp_path)
    assert not load_tokenizer(tmp_path).chat_template
    (tmp_path / "chat_template.json").write_text('{"chat_template": "{{ messages[0].content }}"}', encoding="utf-8")
    assert load_tokenizer(tmp_path).chat_template == "{{ messages[0].content }}"


def test_a_response_is_not_trained_without_its_end_where_the_last_one_ends_in_another_token(words: Any) -> None:
    """As gpt-oss's template does: its end of sequence is that of the last response alone."""
    source = (
        "{% for message in messages %}{{ '[Q] ' if message.role == 'user' else '[A] ' }}{{ message.content }}"
        "{{ eos_token if loop.last and message.role == 'assistant' else ' [R]' }}{% endfor %}"
        "{% if add_generation_prompt %}[A] {% endif %}"
    )
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]
    cut = Template.for_model(words, source).cut(Conversation(turns))
    assert [piece.text for piece in cut.pieces if piece.reply] == ["d</s>"]
