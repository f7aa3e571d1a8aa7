"""Renders a conversation through a chat template, in transformers' sandbox, in the form that the template expects."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.tool_calls import with_arguments_as_text
from workbench.data.templates.call_ids import with_short_ids
from workbench.data.templates.lookup import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "probe"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_RESULT_MARKS = ("<tool_response>", "</tool_response>")
# What a record may not set for its template: training decides it.
_RESERVED = frozenset({
    "conversation", "conversations", "messages", "tools", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs",
})  # fmt: skip


class MarkedText(NamedTuple):
    """A conversation's text, and start and end of each response in it, in characters."""

    text: str
    spans: list[tuple[int, int]]


class _CallForm(NamedTuple):
    """The form in which a template expects a message with tool calls.

    Attributes:
        text_arguments: a call's arguments are JSON text (most templates expect an object).
        null_content: empty content is null (most templates expect an empty string).
    """

    text_arguments: bool
    null_content: bool


@dataclass(frozen=True)
class Renderer:
    """A chat template's source bound to a tokenizer; probes tell which parts the template writes.

    Attributes:
        name: the template's name for error messages.
    """

    name: str
    source: str
    tokenizer: "PreTrainedTokenizerBase"

    def render(self, conversation: Conversation, add_generation_prompt: bool) -> str:
        """The text of a conversation that is already in the form that the template expects.

        Args:
            add_generation_prompt: end the text with the prompt for the next response.

        Raises:
            BadRecord: the template rejects the conversation; includes the template's message.
        """
        if self._render_jinja is not None and conversation.messages:
            return self._rendered(conversation, add_generation_prompt=add_generation_prompt).text
        try:
            text = self.tokenizer.apply_chat_template(
                list(self._in_content_form(conversation.messages)),
                tools=conversation.tools or None,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **_settings(conversation),
            )
        except self._rejections as error:
            raise self._rejected(error) from None
        return str(text)

    def render_marked(self, conversation: Conversation) -> MarkedText | None:
        """The text with the responses that the template's ``{% generation %}`` blocks mark.

        None if the template has no such blocks. TRL trains on these spans with ``assistant_only_loss``.

        Raises:
            BadRecord: as :meth:`render`.
        """
        if not self._has_marks or self._render_jinja is None:
            return None
        return self._rendered(conversation, return_assistant_tokens_mask=True)

    def _rendered(self, conversation: Conversation, **options: bool) -> MarkedText:
        """The text of a conversation, and the spans in ``{% generation %}`` blocks, where these are asked for."""
        assert self._render_jinja is not None
        # As in ``apply_chat_template``: a key without a value is no key.
        given = self._in_content_form(conversation.messages)
        messages = [{key: value for key, value in message.items() if value is not None} for message in given]
        settings = _settings(conversation)
        try:
            texts, spans = self._render_jinja(
                conversations=[messages],
                tools=conversation.tools or None,
                chat_template=self.source,
                **options,
                **({**self._special_tokens, **settings} if settings else self._special_tokens),
            )
        except self._rejections as error:
            raise self._rejected(error) from None
        return MarkedText(texts[0], [(start, end) for start, end in spans[0]] if spans else [])

    def _in_content_form(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as the template reads them: their content as text, or as a list of parts."""
        return [as_parts(message) for message in messages] if self.takes_parts else messages

    @cached_property
    def _render_jinja(self) -> Callable[..., tuple[list[str], list[Any]]] | None:
        """transformers' renderer; None if the tokenizer does more than call it.

        Called directly it takes two thirds of the time of ``apply_chat_template``.
        """
        from transformers import PreTrainedTokenizerBase
        from transformers.utils.chat_template_utils import render_jinja_template

        is_overridden = type(self.tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
        return None if is_overridden else render_jinja_template

    @cached_property
    def _special_tokens(self) -> dict[str, str]:
        return dict(self.tokenizer.special_tokens_map)

    @cached_property
    def _rejections(self) -> tuple[type[Exception], ...]:
        """What a template raises for a conversation that it cannot write."""
        import jinja2

        return jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError

    def _rejected(self, error: Exception) -> BadRecord:
        return BadRecord(f"the {self.name} template rejects it ({one_line(error)})")

    def prepare(self, conversation: Conversation, system: str | None) -> Conversation:
        """Return the conversation in the form that the template expects.

        The system prompt becomes the first message or, if the template writes no system prompt, the beginning of the
        first question. Arguments of tool calls become an object or JSON text.

        Args:
            system: the system prompt for a conversation without its own.

        Raises:
            BadRecord: the conversation has tool calls or results, and the template writes none.
        """
        messages = conversation.messages
        if any(message["role"] == "tool" or "tool_calls" in message for message in messages):
            self._check_tools()
            messages = [self._with_call_form(self._without_marks(message)) for message in messages]
            messages = with_short_ids(messages) if self._wants_short_ids else messages
        has_system = bool(messages) and messages[0]["role"] == "system"
        if messages is conversation.messages and (self.takes_system if has_system else not system):
            return conversation
        messages = list(messages)
        shift = 0  # how far the messages move
        if system and not has_system:
            messages.insert(0, {"role": "system", "content": system})
            shift += 1
        if len(messages) > 1 and messages[0]["role"] == "system" and not self.takes_system:
            first = next((n for n, message in enumerate(messages) if message["role"] == "user"), None)
            if first is not None:
                # Never inside a response: there it would be trained.
                text = f"{messages[0]['content']}\n\n{messages[first]['content']}"
                messages[first] = {**messages[first], "content": text}
                del messages[0]
                shift -= 1
        untrained = frozenset(index + shift for index in conversation.untrained)
        return replace(conversation, messages=messages, untrained=untrained)

    # -- probes of the template -----------------------------------------------------------------------------------

    @cached_property
    def _has_marks(self) -> bool:
        return _GENERATION.search(self.source) is not None

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the template writes content only as a list of parts, as templates of image-text models may."""
        question: Message = {"role": "user", "content": "§question§"}
        return not self._writes_question(question) and self._writes_question(as_parts(question))

    def _writes_question(self, question: Message) -> bool:
        try:
            text = self.tokenizer.apply_chat_template([question], chat_template=self.source, tokenize=False)
        except self._rejections:
            return False
        return "§question§" in str(text)

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template writes a system prompt; Gemma's rejects it, others leave it out."""
        messages = [{"role": "system", "content": "§system§"}, {"role": "user", "content": _PROBE}]
        return "§system§" in (self._prompt_of(messages) or "")

    @cached_property
    def takes_tool_calls(self) -> bool:
        """Whether the template writes tool calls and their results."""
        return self._call_form is not None

    @cached_property
    def _call_form(self) -> _CallForm | None:
        """The form in which the template writes tool calls; None if it writes none.

        A form in which a call continues its own prompt is preferred.
        """
        forms = [_CallForm(*form) for form in product((False, True), repeat=2)]
        scores = {form: self._score_call(form) for form in forms}
        return max((form for form in forms if scores[form]), key=lambda form: scores[form], default=None)

    @cached_property
    def _wants_short_ids(self) -> bool:
        """Whether the template rejects ids of calls other than nine letters or digits."""
        form = self._call_form
        return form is not None and self._prompt_of(_call_and_result(form, "call_probe_1234")) is None

    def _score_call(self, form: _CallForm) -> int:
        """0 if the template does not write a call in this form, 2 if the call continues its own prompt, else 1."""
        messages = _call_and_result(form, "probe1234")
        text = self._prompt_of(messages) or ""
        # A template that writes an object as Python does writes no JSON.
        if "'probe_key'" in text or not all(part in text for part in ("probe_name", "probe_key", "§result§")):
            return 0
        prompt = self._prompt_of(messages[:1])
        return 2 if prompt and text.startswith(prompt) else 1

    def _prompt_of(self, messages: Sequence[Message]) -> str | None:
        try:
            return self.render(Conversation(list(messages)), True)
        except BadRecord:
            return None

    def _without_marks(self, message: Message) -> Message:
        """A result without the marks around it that the template writes itself, and records of Hermes also have."""
        if message["role"] != "tool" or not all(mark in self.source for mark in _RESULT_MARKS):
            return message
        text, (start, end) = message["content"].strip(), _RESULT_MARKS
        if not (text.startswith(start) and text.endswith(end)):
            return message
        return message | {"content": text.removeprefix(start).removesuffix(end).strip()}

    def _check_tools(self) -> None:
        if not self.takes_tool_calls:
            raise BadRecord(f"the {self.name} template writes no tool calls (data.template chatml-tools does)")

    def _with_call_form(self, message: Message) -> Message:
        if "tool_calls" not in message or self._call_form is None:
            return message
        return _in_form(message, self._call_form)


def as_parts(message: Message) -> Message:
    """A message with its text as the only part of a list, as processors expect it."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _settings(conversation: Conversation) -> dict[str, Any]:
    """A record's settings for its template, such as ``enable_thinking``."""
    given = conversation.template_kwargs
    return {key: value for key, value in given.items() if key not in _RESERVED} if given else {}


def _call_and_result(form: _CallForm, id_: str) -> list[Message]:
    function = {"name": "probe_name", "arguments": {"probe_key": "probe_value"}}
    calls: list[dict[str, object]] = [{"type": "function", "id": id_, "function": function}]
    return [
        {"role": "user", "content": _PROBE},
        _in_form({"role": "assistant", "content": "", "tool_calls": calls}, form),
        {"role": "tool", "content": "§result§", "name": "probe_name", "tool_call_id": id_},
    ]


def _in_form(message: Message, form: _CallForm) -> Message:
    """A message with tool calls, in the form that a template expects."""
    calls = with_arguments_as_text(message["tool_calls"]) if form.text_arguments else message["tool_calls"]
    return message | {"tool_calls": calls, "content": message["content"] or (None if form.null_content else "")}
