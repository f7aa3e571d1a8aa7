"""Renders a conversation through a chat template, in transformers' sandbox, in the form that this template expects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.reasoning import REASONING_KEYS
from workbench.data.records.tool_calls import with_arguments_as_text
from workbench.data.templates.lookup import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "probe"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OWN_KEYS = frozenset({"role", "content", "instruction", "input"})


@dataclass(frozen=True)
class Renderer:
    """A template's source bound to a tokenizer, and what the template can write.

    ``name`` is for messages only.
    """

    name: str
    source: str
    tokenizer: "PreTrainedTokenizerBase"

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

    def generated_spans(self, conversation: Conversation) -> list[tuple[int, int]] | None:
        """Where the text holds responses, as the template's ``{% generation %}`` blocks mark them, from 0.

        None if the template has no such blocks. Those are what TRL trains with ``assistant_only_loss``.
        """
        if _GENERATION.search(self.source) is None:
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        _, spans = render_jinja_template(
            conversations=[list(conversation.messages)],
            tools=conversation.tools or None,
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return [(start, end) for start, end in spans[0]]

    def prepared(self, conversation: Conversation, system: str | None) -> Conversation:
        """The conversation in the form that the template expects.

        The system prompt is in place (inside the first user turn where the template has none); arguments of calls are
        an object or text.

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
        found: dict[str, object] = {}
        for message in prepared.messages:
            for key in message.keys() - _OWN_KEYS:
                found.setdefault(key, message[key])
        unwritten = [(key, value) for key, value in found.items() if not self._writes(prepared, key, text)]
        if prepared.tools and self._text_of(replace(prepared, tools=[])) == text:
            unwritten.append(("tools", prepared.tools))
        return unwritten

    def _writes(self, prepared: Conversation, key: str, text: str) -> bool:
        if not any(map(self._mentions, REASONING_KEYS if key in REASONING_KEYS else (key,))):
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
    def takes_tool_calls(self) -> bool:
        """Whether the template writes calls of tools and their results."""
        return self._call_form is not None

    @cached_property
    def _call_form(self) -> tuple[bool, bool] | None:
        """How the template expects a call: arguments as JSON text (most expect an object), content null (most: empty).

        None if it writes no calls. A form in which a call continues its own prompt is preferred.
        """
        forms = [(as_text, null) for as_text in (False, True) for null in (False, True)]
        written = {form: self._writes_call(*form) for form in forms}
        return max((form for form in forms if written[form]), key=lambda form: written[form], default=None)

    def _writes_call(self, as_text: bool, null: bool) -> int:
        """0 if a call in this form is not written, 2 if it continues its own prompt, else 1."""
        function = {"name": "probe_name", "arguments": {"probe_key": "probe_value"}}
        calls: list[dict[str, object]] = [{"type": "function", "id": "probe1234", "function": function}]
        messages: list[Message] = [
            {"role": "user", "content": _PROBE},
            _in_form({"role": "assistant", "content": "", "tool_calls": calls}, as_text, null),
            {"role": "tool", "content": "§result§", "name": "probe_name", "tool_call_id": "probe1234"},
        ]
        text = self._prompt_of(messages) or ""
        # Python's notation of an object would be no JSON.
        if "'probe_key'" in text or not all(part in text for part in ("probe_name", "probe_key", "§result§")):
            return 0
        return 2 if text.startswith(self._prompt_of(messages[:1]) or text + "|") else 1

    def _prompt_of(self, messages: Sequence[Message]) -> str | None:
        try:
            return self.render(Conversation(list(messages)), True)
        except BadRecord:
            return None

    def _refuse_unwritten_tools(self) -> None:
        if not self.takes_tool_calls:
            raise BadRecord(f"the {self.name} template writes no tool calls (data.template chatml-tools does)")

    def _message(self, message: Message) -> Message:
        if "tool_calls" not in message or self._call_form is None:
            return message
        return _in_form(message, *self._call_form)


def _in_form(message: Message, as_text: bool, null: bool) -> Message:
    """A message with calls: their arguments as JSON text or an object, empty content as null or as an empty text."""
    calls = with_arguments_as_text(message["tool_calls"]) if as_text else message["tool_calls"]
    return message | {"tool_calls": calls, "content": message["content"] or (None if null else "")}
