"""Names what a chat template leaves out of a conversation's text.

A key that the template's source does not mention is left out. Where it mentions one, the conversation is rendered
without it: what the template writes changes the text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.reasoning import REASONING_KEYS
from workbench.data.records.tool_calls import CALL_KEYS
from workbench.data.records.unused import Unused, unwritten_field
from workbench.data.templates.render import Renderer

# Keys that every message has, and the two keys of an instruction with an input.
_BASIC_KEYS = frozenset({"role", "content", "instruction", "input"})
_TOOL_KEYS = frozenset({"type", "function", "name"})


def unwritten(renderer: Renderer, prepared: Conversation, text: str) -> tuple[Unused, ...]:
    """The fields of a conversation that are not in ``text``, which the template wrote for it.

    Args:
        prepared: the conversation in the form that the template expects.
    """
    return tuple(_Text(renderer, prepared, text).unwritten())


@dataclass(frozen=True, slots=True)
class _Text:
    """The text of a conversation, compared with what it would be without some of its fields."""

    renderer: Renderer
    prepared: Conversation
    text: str

    def unwritten(self) -> Iterator[Unused]:
        prepared = self.prepared
        first_values: dict[str, object] = {}
        for message in prepared.messages:
            if len(message) == 2:  # role and content
                continue
            for key in message.keys() - _BASIC_KEYS:
                first_values.setdefault(key, message[key])
        for key, value in first_values.items():
            if not self._writes(key):
                yield unwritten_field(key, value, prepared.origins.get(key, ""))
        if prepared.tools and self._text_of(replace(prepared, tools=[])) == self.text:
            yield unwritten_field("tools", prepared.tools, prepared.origins.get("tools", ""))
        elif prepared.tools:
            yield from self._members_of_tools()
        yield from self._contents()
        if "tool_calls" in first_values:
            yield from self._parts_of_calls()
        for key, value in prepared.template_kwargs.items():
            if not self._uses_setting(key):
                yield unwritten_field(key, value, f"chat_template_kwargs.{key}")

    def _contents(self) -> Iterator[Unused]:
        """The text of messages. Of an instruction with an input, a template may write the two keys that it has too."""
        text = self.text
        lacking = [
            place
            for place, message in enumerate(self.prepared.messages)
            if (message["content"] or "").strip() not in text and "instruction" not in message
        ]
        if any(not self._changes({"content": ""}, [place]) for place in lacking):
            yield Unused("messages[].content", asks=True)

    def _parts_of_calls(self) -> Iterator[Unused]:
        """Further calls of one message, as gpt-oss's template has one of each, and other keys of calls."""
        calls = {place: message.get("tool_calls") or [] for place, message in enumerate(self.prepared.messages)}
        if any(
            len(several) > 1 and not self._changes({"tool_calls": several[:1]}, [place])
            for place, several in calls.items()
        ):
            yield Unused("messages[].tool_calls[1:]", asks=True)
        others = {key: value for several in calls.values() for call in several for key, value in call.items()}
        for key, value in others.items():
            if key not in CALL_KEYS and not self._mentions(key):
                yield unwritten_field(f"tool_calls[].{key}", value)

    def _members_of_tools(self) -> Iterator[Unused]:
        """Members of tools that are not written: some templates write names, descriptions and parameters alone."""
        tools, column = self.prepared.tools, self.prepared.origins.get("tools", "tools")
        values = {key: value for tool in tools for key, value in (*tool.items(), *tool["function"].items())}
        for key, value in values.items():
            # Most templates write tools as JSON.
            if key in _TOOL_KEYS or json.dumps(value, ensure_ascii=False) in self.text:
                continue
            if self._text_of(replace(self.prepared, tools=[_without(tool, key) for tool in tools])) == self.text:
                yield unwritten_field(f"{column}[].{key}", value, f"{column}[].{key}")

    def _writes(self, key: str) -> bool:
        """Whether a key of messages is written, for each role that has it."""
        if not any(map(self._mentions, REASONING_KEYS if key in REASONING_KEYS else (key,))):
            return False
        messages = self.prepared.messages
        places = [place for place, message in enumerate(messages) if key in message]
        if key in REASONING_KEYS:
            # Templates leave out the reasoning of earlier turns, as the text shows.
            return self._changes({key: None}, places[-1:])
        roles: dict[str, list[int]] = {}
        for place in places:
            roles.setdefault(messages[place]["role"], []).append(place)
        return all(self._changes({key: None}, of_role) for of_role in roles.values())

    def _changes(self, other: Message, places: Sequence[int]) -> bool:
        """Whether the text is another one with ``other`` values in some messages; None: without the key."""
        messages = list(self.prepared.messages)
        for place in places:
            changed = messages[place] | other
            messages[place] = {name: value for name, value in changed.items() if value is not None}
        return self._text_of(replace(self.prepared, messages=messages)) != self.text

    def _uses_setting(self, key: str) -> bool:
        """Whether a setting of the template changes the text, or what the last response comes after."""
        if not self._mentions(key):
            return False
        settings = {name: value for name, value in self.prepared.template_kwargs.items() if name != key}
        other = replace(self.prepared, template_kwargs=settings)
        if self._text_of(other) != self.text:
            return True
        before, without = (replace(one, messages=one.messages[:-1]) for one in (self.prepared, other))
        return bool(before.messages) and self._text_of(before, True) != self._text_of(without, True)

    def _text_of(self, conversation: Conversation, add_generation_prompt: bool = False) -> str | None:
        try:
            return self.renderer.render(conversation, add_generation_prompt)
        except BadRecord:
            return None

    def _mentions(self, key: str) -> bool:
        return re.search(rf"\b{re.escape(key)}\b", self.renderer.source) is not None


def _without(tool: dict[str, Any], key: str) -> dict[str, Any]:
    """A tool without a member of it or of its function."""
    function = {name: member for name, member in tool["function"].items() if name != key}
    return {**{name: member for name, member in tool.items() if name != key}, "function": function}
