"""Ollama's templates: Go's language for what the Jinja of training writes, or nothing where they cannot agree."""

import pytest

from workbench.data.templates.named import NAMED
from workbench.data.templates.template import Template
from workbench.export.ollama import TurnPattern, modelfile, pattern_of

LLAMA3 = (
    "{{- bos_token }}{%- for message in messages %}{{- '<|start|>' + message.role + '<|end|>\n\n' + message.content"
    " | trim + '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\n\n' }}{%- endif %}"
)
WITH_DEFAULT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COUNTS = (
    "{% for message in messages %}[{{ loop.index }}]{{ message.role }}: {{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.mark.parametrize("name", ["auto", *NAMED, LLAMA3, WITH_DEFAULT], ids=lambda name: name[:12])
def test_the_pattern_writes_what_the_template_writes(tokenizer, name):
    template = Template.for_model(tokenizer, name)
    pattern = pattern_of(template)
    assert pattern is not None
    turns = [{"role": "user", "content": "A {{ brace }} and two\nlines"}, {"role": "assistant", "content": "Yes."}]
    for messages in ([turns[0]], [*turns, turns[0]], [{"role": "system", "content": "Terse."}, *turns, turns[0]]):
        assert pattern.render(messages) == template.render(messages, add_generation_prompt=True)


def test_a_template_that_is_more_than_roles_in_turn_is_not_guessed(tokenizer):
    template = Template.for_model(tokenizer, COUNTS)
    assert pattern_of(template) is None
    text = modelfile(template, None, tokenizer, 512)
    assert "TEMPLATE" not in text
    assert 'PARAMETER stop "<|im_end|>"' in text


def test_the_go_template_by_letter():
    pattern = TurnPattern("<s>", "</s>", "{{x}}", "<u>", "</u>", "<a>", " ", "</a>")
    assert pattern.as_go() == (
        '{{ if .System }}<s>{{ .System }}</s>{{ else }}{{ "{{" }}x}}{{ end }}'
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        '{{ if eq .Role "user" }}<u>{{ .Content }}</u>'
        '{{ else if eq .Role "assistant" }}<a> {{ .Content }}{{ if not $last }}</a>{{ end }}{{ end }}'
        '{{ if and $last (ne .Role "assistant") }}<a>{{ end }}{{ end }}'
    )


def test_a_reply_that_was_begun_is_continued_and_two_questions_ask_once():
    pattern = TurnPattern("", "", "", "<u>", "</u>", "<a>", "", "</a>")
    begun = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because"}]
    assert pattern.render(begun) == "<u>Why?</u><a>Because"
    twice = [{"role": "user", "content": "Why?"}, {"role": "user", "content": "And how?"}]
    assert pattern.render(twice) == "<u>Why?</u><u>And how?</u><a>"


def test_a_default_system_prompt_goes_into_the_modelfile(tokenizer):
    template = Template.for_model(tokenizer, "auto", "Talk like a sailor.")
    pattern = pattern_of(template)
    assert pattern is not None
    text = modelfile(template, pattern, tokenizer, 512, "apache-2.0")
    assert f'TEMPLATE """{pattern.as_go()}"""' in text
    assert text.endswith('PARAMETER num_ctx 512\nLICENSE """apache-2.0"""\n')
    assert 'SYSTEM """Talk like a sailor."""' in text
    assert "sailor" not in text.partition("SYSTEM")[0]
