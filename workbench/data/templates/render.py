"""Renders a conversation through a chat template, in transformers' sandbox, in the form that this template expects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.tool_calls import with_arguments_as_text
from workbench.data.templates.lookup import one_line

_PROBE = "probe"
# Keys that models' templates read reasoning from, likeliest first; records use them interchangeably.
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
_OWN_KEYS = frozenset({"role", "content", "instruction", "input"})


@dataclass(frozen=True)
class Renderer:
    """A template's source bound to a tokenizer, and what the template can write.

    ``name`` is for messages only.
    """

    name: str
    source: str
    tokenizer: Any

    def render(self, conversation: Conversation, add_generation_prompt: bool) -> str:
        """The text of a conversation as it is, with the prompt for the next response where asked.

        Raises:
            BadRecord: the template refuses the conversation; with its own words.
        """
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                list(conversation.messages),
                tools=conversation.tools or None,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise BadRecord(f"the {self.name} template rejects it ({one_line(error)})") from None
        return str(text)

    def prepared(self, conversation: Conversation, system: str | None) -> Conversation:
        """The conversation in the form that the template expects.

        The system prompt is in place (inside the first user turn where the template has none), reasoning under the
        template's key, and arguments of calls are an object or text.

        Raises:
            BadRecord: it holds tool calls or results, and the template writes none.
        """
        if any(message["role"] == "tool" or "tool_calls" in message for message in conversation.messages):
            self._refuse_unwritten_tools()
        messages = [self._message(message) for message in conversation.messages]
        added = 0
        if system and (not messages or messages[0]["role"] != "system"):
            messages.insert(0, {"role": "system", "content": system})
            added += 1
        if len(messages) > 1 and messages[0]["role"] == "system" and not self.takes_system:
            text, first = messages[0]["content"], messages[1]
            messages[:2] = [{**first, "content": f"{text}\n\n{first['content']}"}]
            added -= 1
        untrained = frozenset(place + added for place in conversation.untrained)
        return replace(conversation, messages=messages, untrained=untrained)

    def unwritten(self, prepared: Conversation, text: str) -> list[tuple[str, Any]]:
        """Keys of turns that change nothing in the text, each with a value; ``tools`` is one of them.

        A key that the template's source mentions is left out once, to see whether that changes the text.
        """
        found: dict[str, Any] = {}
        for message in prepared.messages:
            for key in message.keys() - _OWN_KEYS:
                found.setdefault(key, message[key])
        unwritten = [(key, value) for key, value in found.items() if not self._writes(prepared, key, text)]
        if prepared.tools and self._text_of(replace(prepared, tools=[])) == text:
            unwritten.append(("tools", prepared.tools))
        return unwritten

    def _writes(self, prepared: Conversation, key: str, text: str) -> bool:
        if not self._mentions(key):
            return False
        without = [{k: value for k, value in message.items() if k != key} for message in prepared.messages]
        return self._text_of(replace(prepared, messages=without)) != text

    def _text_of(self, conversation: Conversation) -> str | None:
        try:
            return self.render(conversation, False)
        except BadRecord:
            return None

    def _mentions(self, key: str) -> bool:
        return re.search(rf"\b{re.escape(key)}\b", self.source) is not None

    # -- what the template can write ------------------------------------------------------------------------------

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template has a place for a system prompt; Gemma's refuses one, others leave it out."""
        messages = [{"role": "system", "content": "§system§"}, {"role": "user", "content": _PROBE}]
        return "§system§" in (self._prompt_of(messages) or "")

    @cached_property
    def reasoning_key(self) -> str | None:
        """The key that the template reads a response's reasoning from."""
        return next((key for key in REASONING_KEYS if self._mentions(key)), None)

    @cached_property
    def takes_tool_calls(self) -> bool:
        """Whether the template writes calls of tools and their results."""
        return self._writes_call(as_text=False) or self._writes_call(as_text=True)

    @cached_property
    def _arguments_as_text(self) -> bool:
        """Whether the template expects the arguments of a call as JSON text; most expect an object."""
        return not self._writes_call(as_text=False)

    def _writes_call(self, as_text: bool) -> bool:
        function = {"name": "probe_name", "arguments": {"probe_key": "probe_value"}}
        calls: list[dict[str, Any]] = [{"type": "function", "id": "probe1234", "function": function}]
        messages: list[Message] = [
            {"role": "user", "content": _PROBE},
            {"role": "assistant", "content": "", "tool_calls": with_arguments_as_text(calls) if as_text else calls},
            {"role": "tool", "content": "§result§", "name": "probe_name", "tool_call_id": "probe1234"},
        ]
        text = self._prompt_of(messages) or ""
        # Python's notation of an object would be no JSON.
        return all(part in text for part in ("probe_name", "probe_key", "§result§")) and "'probe_key'" not in text

    def _prompt_of(self, messages: Sequence[Message]) -> str | None:
        try:
            return self.render(Conversation(list(messages)), True)
        except BadRecord:
            return None

    def _refuse_unwritten_tools(self) -> None:
        if not self.takes_tool_calls:
            raise BadRecord(f"the {self.name} template writes no tool calls (data.template chatml-tools does)")

    def _message(self, message: Message) -> Message:
        if message.keys() <= _OWN_KEYS:
            return message
        changed = {self._name_of(key): value for key, value in message.items()}
        if "tool_calls" in changed and self._arguments_as_text:
            changed["tool_calls"] = with_arguments_as_text(changed["tool_calls"])
        return changed

    def _name_of(self, key: str) -> str:
        return (self.reasoning_key or key) if key in REASONING_KEYS else key
