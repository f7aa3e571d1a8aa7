"""The law of records: whatever a record holds is in the text that is fed, or named. Through real templates."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.mistral_templates import LISTED, MARKED
from tests.data.test_records import tokenizer_of_bytes
from tests.data.test_tools_and_reasoning import TEMPLATES
from workbench.data.records.convert import convert
from workbench.data.records.detect import detect
from workbench.data.templates.template import Template

_FILES = ["llama3_1", "qwen2_5", "qwen3", "qwen3_5_think", "glm4moe", "gptoss", "gemma4_v5", "lfm2_2_5"]
NAMES = ["chatml", "chatml-tools", *_FILES, "mistral listed", "mistral marked"]
# Where a key may be added, by how the place is named where the key is unused.
PLACES = {
    "a column": "{}",
    "the system prompt": "messages[].{}",
    "a question": "messages[].{}",
    "a part of a question": "messages[].content[].{}",
    "a call's turn": "messages[].{}",
    "a call": "messages[].tool_calls[].{}",
    "the function of a call": "messages[].tool_calls[].{}",
    "a result": "messages[].{}",
    "an answer": "messages[].{}",
    "a tool": "tools[].{}",
    "the function of a tool": "tools[].{}",
}
_keys = st.from_regex(r"zz[a-z_]{1,8}", fullmatch=True)
_kinds = st.sampled_from(["text", "number", "object", "list"])


def _template(name: str) -> Template:
    sources = {"mistral listed": LISTED, "mistral marked": MARKED}
    path = str(TEMPLATES / f"{name}.jinja") if name in _FILES else name
    return Template.for_model(tokenizer_of_bytes(), sources.get(name, path))


@pytest.fixture(scope="module")
def templates() -> dict[str, Template]:
    return {name: _template(name) for name in NAMES}


def _record(added: dict[str, dict[str, Any]], with_calls: bool, with_system: bool) -> dict[str, Any]:
    def of(place: str) -> dict[str, Any]:
        return added.get(place, {})

    call = {
        "type": "function", "id": "Abc123xyz", **of("a call"),
        "function": {"name": "weather", "arguments": {"city": "Oslo"}, **of("the function of a call")},
    }  # fmt: skip
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {
        "type": "function", **of("a tool"),
        "function": {
            "name": "weather", "description": "The weather.", "parameters": schema, **of("the function of a tool"),
        },
    }  # fmt: skip
    question = [{"type": "text", "text": "Rain in Oslo?", **of("a part of a question")}]
    calls = [
        {"role": "assistant", "content": None, "tool_calls": [call], **of("a call's turn")},
        {"role": "tool", "name": "weather", "tool_call_id": "Abc123xyz", "content": "rain", **of("a result")},
    ]
    messages = [
        *([{"role": "system", "content": "Be kind.", **of("the system prompt")}] if with_system else []),
        {"role": "user", "content": question, **of("a question")},
        *(calls if with_calls else []),
        {"role": "assistant", "content": "It rains.", **of("an answer")},
    ]
    return {"messages": messages, **({"tools": [tool]} if with_calls else {}), **of("a column")}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(NAMES),
    drawn=st.lists(st.tuples(st.sampled_from(sorted(PLACES)), _keys, _kinds), min_size=1, max_size=6),
    with_system=st.booleans(),
)
def test_a_key_in_any_place_is_fed_or_named(
    templates: dict[str, Template], name: str, drawn: list[tuple[str, str, str]], with_system: bool
) -> None:
    template = templates[name]
    with_calls = template.renderer.takes_tool_calls
    with_system = with_system and not name.startswith("mistral")
    added: dict[str, dict[str, Any]] = {}
    marks: dict[tuple[str, str], int] = {}
    for mark, (place, key, kind) in enumerate(drawn, start=700_000_001):
        marks[place, key] = mark
        value = {"text": f"mark {mark} of it", "number": mark, "object": {"a": mark}, "list": [mark]}[kind]
        added.setdefault(place, {})[key] = value
    record = _record(added, with_calls, with_system)
    held = str(record)
    found = convert(record, detect(list(record), [record]))
    assert not isinstance(found.content, str)
    cut = template.cut(found.content)  # type: ignore[arg-type]
    fed = "".join(piece.text for piece in cut.pieces)
    named = {field.path for field in (*found.unused, *cut.unused)}
    for (place, key), mark in marks.items():
        if str(mark) in held:  # a record without calls has no place for what belongs to them
            assert str(mark) in fed or PLACES[place].format(key) in named, (place, key)
    # Nothing is named that is not there.
    assert all(path.rpartition(".")[2] in held for path in named)
    assert "It rains." in fed
    assert "Be kind." in fed or not with_system
    assert "Rain in Oslo?" in fed
