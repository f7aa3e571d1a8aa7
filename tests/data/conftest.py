"""A tokenizer small enough to tokenise by hand."""

import pytest

# One word, one id; white space separates words and is no token.
VOCABULARY = {
    "<unk>": 0,
    "<s>": 1,
    "</s>": 2,
    "[S]": 3,
    "[Q]": 4,
    "[A]": 5,
    "be": 6,
    "kind": 7,
    "add": 8,
    "two": 9,
    "three": 10,
    "and": 11,
    "five": 12,
    "why": 13,
    "because": 14,
    "the": 15,
    "sea": 16,
    "is": 17,
    "blue": 18,
    "###": 19,
    "Instruction": 20,
    "Response": 21,
    ":": 22,
    "User": 23,
    "Assistant": 24,
    "[T]": 25,
    "[C]": 26,
    "[R]": 27,
    "[K]": 28,
}

# Every turn has its mark, and so have tools, calls of them, their results, and reasoning. A reply ends with </s> and a
# line feed that is no part of it.
CHAT_TEMPLATE = (
    "<s>{% if tools %}[T]{% for tool in tools %} {{ tool.function.name }}{% endfor %} {% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}[S] {{ message.content }}\n"
    "{% elif message.role == 'user' %}[Q] {{ message.content }}\n"
    "{% elif message.role == 'tool' %}[R] {{ message.content }}\n"
    "{% else %}[A] {% if message.reasoning_content %}[K] {{ message.reasoning_content }} {% endif %}"
    "{{ message.content }}{% for call in message.tool_calls or [] %} [C] {{ call.function.name }}"
    "{% for name, value in call.function.arguments.items() %} {{ name }} {{ value }}{% endfor %}{% endfor %}"
    "</s>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[A]{% endif %}"
)


def make_word_tokenizer(chat_template: str | None = CHAT_TEMPLATE, begin: bool = False):  # type: ignore[no-untyped-def]
    """A tokenizer of :data:`VOCABULARY`. With ``begin`` it puts ``<s>`` before a text, as Llama's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(":", "isolated")]
    )
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = chat_template
    return fast


@pytest.fixture(scope="session")
def words():  # type: ignore[no-untyped-def]
    """The tokenizer with its own chat template."""
    return make_word_tokenizer()


@pytest.fixture(scope="session")
def bare_words():  # type: ignore[no-untyped-def]
    """The tokenizer of a base model: no chat template, and a begin of sequence before each text."""
    return make_word_tokenizer(chat_template=None, begin=True)


@pytest.fixture(scope="session")
def smollm2(smollm2_home):  # type: ignore[no-untyped-def]
    """The tokenizer of SmolLM2-135M-Instruct."""
    from transformers import AutoTokenizer

    from workbench.models.sources import find_local
    from workbench.recipe.sections.model import ModelSection

    return AutoTokenizer.from_pretrained(find_local(smollm2_home, ModelSection()).folder)
