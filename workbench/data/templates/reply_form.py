"""Reads what a model writes as a message: its reasoning, its answer and its calls of tools.

The marks around them are those of the model's template, found by rendering a response with known texts. Where a
template knows no reasoning, ``<think>`` and ``</think>`` are its marks, and the message keeps them in its content, as a
record does that is trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.templates.call_pattern import CallPattern, call_pattern, common_start
from workbench.data.templates.python_calls import PythonCalls
from workbench.data.templates.render import Renderer

_QUESTION: Message = {"role": "user", "content": "probe"}
_REASONING, _ANSWER = "probe_reasoning", "probe_answer"
_CALL: dict[str, Any] = {
    "type": "function",
    "id": "probe1234",
    "function": {"name": "probe_first", "arguments": {"probe_key": "x"}},
}


class ReplyText(NamedTuple):
    """A stretch of a reply."""

    text: str
    is_reasoning: bool


@dataclass(frozen=True)
class ReplyForm:
    """The marks in a template's responses.

    Attributes:
        opens, closes: around the reasoning.
        answers: before the answer; empty in most templates.
        is_opened: the prompt ends with ``opens``, so that a reply begins with reasoning.
        has_key: the template writes the reasoning that a message has under ``reasoning_content``.
        calls: how it writes calls of tools; None if it writes none, or in a form that cannot be read.
    """

    opens: str = "<think>"
    closes: str = "</think>"
    answers: str = ""
    is_opened: bool = False
    has_key: bool = False
    calls: CallPattern | PythonCalls | None = None

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts that a reply is split at: their tokens have to stay in its text."""
        return self.opens, self.closes, self.answers, *(self.calls.literals if self.calls else ())

    def read(self, text: str, tools: Sequence[Mapping[str, Any]]) -> Message:
        """A reply as a message of a conversation, as the template expects it in the next prompt.

        Args:
            text: all that the model wrote, with the tokens of :attr:`literals`, without the end of the turn.
            tools: the functions that it may call; without any no calls are read.
        """
        pieces = ReplySplitter(self).feed(text, final=True)
        reasoning = "".join(piece.text for piece in pieces if piece.is_reasoning)
        written = "".join(piece.text for piece in pieces if not piece.is_reasoning)
        answer, calls = self.calls.read(written, tools) if self.calls and tools else (written, [])
        message: Message = {"role": "assistant", "content": answer}
        if reasoning.strip() and self.has_key:
            message["reasoning_content"] = reasoning.strip()
        elif reasoning.strip():
            message["content"] = (self.opens if self.is_opened else "") + text.removesuffix(written) + answer
        return message | ({"tool_calls": calls} if calls else {})


class ReplySplitter:
    """Tells the reasoning of a reply from its answer while the reply is written; the marks are left out."""

    def __init__(self, form: ReplyForm) -> None:
        self._form = form
        self._held = ""
        self._step: Callable[[bool], ReplyText | None] = self._reasoning if form.is_opened else self._start

    def feed(self, text: str, *, final: bool = False) -> list[ReplyText]:
        """Take a piece of the reply; returns what is known of it by now. With ``final``, all of it."""
        self._held += text
        pieces: list[ReplyText] = []
        while self._held:
            held, step = self._held, self._step
            piece = step(final)
            if piece is not None and piece.text:
                pieces.append(piece)
            if (self._held, self._step) == (held, step):
                break
        return pieces

    def _start(self, final: bool) -> None:
        """Look for the mark that opens the reasoning."""
        begun = self._held.lstrip()
        if begun.startswith(self._form.opens):
            self._held, self._step = begun.removeprefix(self._form.opens), self._reasoning
        elif final or not self._form.opens.startswith(begun):
            self._step = self._unreasoned

    def _reasoning(self, final: bool) -> ReplyText:
        """Take the reasoning up to the mark that closes it."""
        text, closed, rest = self._held.partition(self._form.closes)
        if closed:
            self._held, self._step = rest, self._answer_start
        else:
            kept = 0 if final else _begun(text, self._form.closes)
            text, self._held = text[: len(text) - kept], text[len(text) - kept :]
        return ReplyText(text, is_reasoning=True)

    def _unreasoned(self, final: bool) -> None:
        """Look for the mark before the answer of a reply without reasoning, whose white space is kept."""
        begun, answers = self._held.lstrip(), self._form.answers
        if answers and begun.startswith(answers):
            self._held, self._step = begun.removeprefix(answers), self._answer
        elif final or not answers or not answers.startswith(begun):
            self._step = self._answer

    def _answer_start(self, final: bool) -> None:
        """Drop white space and the mark between reasoning and answer."""
        self._held = self._held.lstrip()
        answers = self._form.answers
        if self._held and (final or not answers.startswith(self._held) or self._held == answers):
            self._held, self._step = self._held.removeprefix(answers), self._answer

    def _answer(self, _: bool) -> ReplyText:
        text, self._held = self._held, ""
        return ReplyText(text, is_reasoning=False)


def reply_form(renderer: Renderer) -> ReplyForm:
    """Find the marks in a template's responses."""
    prompt = _text(renderer, [_QUESTION], prompts=True)
    marks = _reasoning_marks(renderer, prompt)
    if marks is None:
        form = ReplyForm()
        is_opened = prompt.rstrip().endswith(form.opens)
        return ReplyForm(is_opened=is_opened, calls=call_pattern(renderer, prompt, form.closes))
    opens, closes, answers = marks
    calls = call_pattern(renderer, prompt, closes)
    return ReplyForm(opens, closes, answers, is_opened=not opens, has_key=True, calls=calls)


def _reasoning_marks(renderer: Renderer, prompt: str) -> tuple[str, str, str] | None:
    """The texts around the reasoning, and before the answer; None if the template writes no reasoning."""
    thought: Message = {"role": "assistant", "content": _ANSWER, "reasoning_content": _REASONING}
    before, reasoning, rest = _text(renderer, [_QUESTION, thought]).partition(_REASONING)
    between, answer, _ = rest.partition(_ANSWER)
    called = _text(renderer, [_QUESTION, {**thought, "content": "", "tool_calls": [_CALL]}])
    if not (reasoning and answer and between.strip()):
        return _marks_before_a_call(renderer, prompt, called)
    # What follows the reasoning whether an answer comes or a call; the rest belongs to the answer.
    closes = common_start(between, called.partition(_REASONING)[2]) if _REASONING in called else between
    closes = closes if closes.strip() else between
    common = common_start(before, prompt)
    opens = before[len(common) :].strip()
    if not opens and prompt[len(common) :].strip():
        # The prompt opens the reasoning and closes it again, as Qwen 3.5's does for its small models.
        opens = common.rstrip().rpartition("\n")[2]
    return opens, closes.strip(), between.removeprefix(closes).strip()


def _marks_before_a_call(renderer: Renderer, prompt: str, called: str) -> tuple[str, str, str] | None:
    """The marks of a template that writes reasoning before calls alone, as Gemma 4's does."""
    before, reasoning, rest = called.partition(_REASONING)
    plain = _text(renderer, [_QUESTION, {"role": "assistant", "content": "", "tool_calls": [_CALL]}])
    start, name, _ = plain[len(common_start(plain, prompt)) :].partition(_CALL["function"]["name"])
    closes = rest.partition(_CALL["function"]["name"])[0].removesuffix(start).strip()
    if not (reasoning and name and closes):
        return None
    return before[len(common_start(before, prompt)) :].strip(), closes, ""


def _text(renderer: Renderer, messages: list[Message], *, prompts: bool = False) -> str:
    try:
        return renderer.render(renderer.prepare(Conversation(messages), None), prompts)
    except BadRecord:
        return ""


def _begun(text: str, mark: str) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    longest = min(len(text), len(mark) - 1)
    return next((count for count in range(longest, 0, -1) if mark.startswith(text[-count:])), 0)


def special_token_ids(added: Mapping[int, Any], literals: Sequence[str], ends: Sequence[int]) -> frozenset[int]:
    """The special tokens that a reply's text is shown without: all but those in the marks.

    Args:
        added: the tokenizer's ``added_tokens_decoder``.
        ends: tokens that end a reply.
    """
    marks = "\n".join(literals)
    return frozenset(
        number for number, token in added.items() if token.special and (number in ends or str(token) not in marks)
    )
