"""How a conversation becomes tokens: one object that serves training and chat, and travels with the adapter.

A conversation's text is cut where each response starts and where it ends, and each piece is tokenized by itself. So no
token straddles the place where the model starts to write, the tokens that training sees before a response are those
that chat gives the model, whatever the template, and which tokens are trained needs no guess from offsets.

The places are found by rendering prefixes: the prompt of a response must be the start of the whole text, and so must
the text up to its end. A template that rewrites earlier turns (some drop their reasoning) has no such places; then only
the last response of a conversation is trained, after exactly the prompt that chat would give.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.reasoning import REASONING_KEYS, split_thinking
from workbench.data.records.unused import Unused, unwritten_field
from workbench.data.records.values import common_length
from workbench.data.templates.lookup import (
    DEFAULT_NAME,
    begin_of_sequence,
    custom_source,
    named_source,
    one_line,
    own_template,
)
from workbench.data.templates.named import NAMED
from workbench.data.templates.pieces import Encoded, Piece, PieceEncoder
from workbench.data.templates.render import MarkedText, Renderer
from workbench.data.templates.reply_form import ReplyForm, reply_form
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "template.json"
REWRITTEN = "Trained on the last response only, because the template rewrites earlier turns"
_PROBE = "probe"
_PROBES = Conversation([{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}])


@dataclass(frozen=True)
class Cut:
    """A conversation's text in pieces, the fields that the template did not write, and what was done to it."""

    pieces: list[Piece]
    unused: tuple[Unused, ...] = ()
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """A chat template bound to a tokenizer.

    ``name`` is ``model`` for the model's own, ``custom``, or a named one. ``source`` is Jinja, rendered in
    transformers' sandbox. ``system`` is put before conversations that bring no system prompt.
    """

    name: str
    source: str
    tokenizer: "PreTrainedTokenizerBase" = field(repr=False, compare=False)
    system: str | None = None
    notices: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def for_model(cls, tokenizer: "PreTrainedTokenizerBase", name: str = "auto", system: str | None = None) -> Self:
        """The template that a recipe's ``data.template`` names.

        Args:
            name: ``auto`` (the model's own), a name of :data:`~workbench.data.templates.named.NAMED`, a path that ends
                in ``.jinja``, or Jinja itself.

        Raises:
            WorkbenchError: there is no such template, or it cannot be rendered.
        """
        notices: list[str] = []
        if name == "auto":
            own = own_template(tokenizer)
            if own is not None:
                return cls("model", own, tokenizer, system)._checked()
            name = DEFAULT_NAME
            notices.append(
                f"The model has no chat template; {name} is used for training and chat. Set data.template to change it."
            )
        if name in NAMED:
            source, source_notices = named_source(tokenizer, name)
            return cls(name, source, tokenizer, system, (*notices, *source_notices))._checked()
        return cls("custom", custom_source(name), tokenizer, system)._checked()

    @classmethod
    def load(cls, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> Self:
        """The template saved with an adapter; without one, the folder's ``chat_template.jinja`` or the model's own.

        Raises:
            WorkbenchError: the saved template is damaged.
        """
        path = Path(folder) / FILE
        jinja = Path(folder) / "chat_template.jinja"
        try:
            if path.exists():
                saved = json.loads(path.read_text(encoding="utf-8"))
                name, source, system = saved["name"], saved["source"], saved["system"]
                if not (isinstance(name, str) and isinstance(source, str) and isinstance(system, str | None)):
                    raise TypeError
                return cls(name, source, tokenizer, system)._checked()
            if jinja.exists():
                return cls("model", jinja.read_text(encoding="utf-8"), tokenizer)._checked()
        except (OSError, ValueError, KeyError, TypeError):
            raise WorkbenchError(
                f"The template saved in {folder} cannot be read.",
                f"Remove {path.name} there to use the model's own template.",
                kind="template",
            ) from None
        return cls.for_model(tokenizer)

    def save(self, folder: Path) -> None:
        """Write the template into an adapter's folder: for us, and as ``chat_template.jinja`` for everybody else."""
        saved = {"name": self.name, "source": self.source, "system": self.system}
        folder = Path(folder)
        (folder / FILE).write_text(json.dumps(saved, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(self._source_for_others(), encoding="utf-8")

    def with_system(self, system: str | None) -> Self:
        """The same template with a default system prompt; one that is already set stays."""
        return replace(self, system=system)._checked() if system and not self.system else self

    # -- text -----------------------------------------------------------------------------------------------------

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text of a conversation, with the prompt for the next response where asked.

        Raises:
            BadRecord: the template refuses the conversation; with its own words.
        """
        prepared = self.renderer.prepare(Conversation(list(messages)), self.system)
        return self.renderer.render(prepared, add_generation_prompt)

    def cut(self, conversation: Conversation, *, answer_only: bool = False) -> Cut:
        """A conversation's text cut at its responses.

        Args:
            answer_only: leave the reasoning of responses out of what is trained.

        Raises:
            BadRecord: there is no assistant turn, or the template refuses the conversation.
        """
        prepared = self.renderer.prepare(conversation, self.system)
        replies = prepared.responses
        if not replies:
            raise BadRecord("there is no assistant turn")
        prepared = prepared.first(replies[-1] + 1)
        marked = self.renderer.render_marked(prepared)
        if marked is not None and len(marked.spans) == len(replies):
            return self._cut_as_marked(prepared, marked, answer_only)
        return self._cut_at_prefixes(prepared, answer_only)

    def _cut_as_marked(self, prepared: Conversation, rendered: MarkedText, answer_only: bool) -> Cut:
        """The text cut where the template itself marks its responses."""
        text = rendered.text
        pieces: list[Piece] = []
        at = 0
        for place, (marked, end) in zip(prepared.responses, rendered.spans, strict=True):
            # What the prompt of a response already holds is not the model's to write, even where the mark says so.
            prompt = self._prompt(prepared, place)
            start = len(prompt) if text.startswith(prompt) and marked < len(prompt) < end else marked
            reply, _ = self._split_end(text[start:end])
            pieces += [Piece(text[at:start], False), *_reply_pieces(reply, prepared, place, answer_only)]
            at = start + len(reply)
        pieces.append(Piece(text[at:], False))
        unused = tuple(self.renderer.unwritten(prepared, text))
        return Cut([piece for piece in pieces if piece.text], unused, prepared.changes)

    def _cut_at_prefixes(self, prepared: Conversation, answer_only: bool) -> Cut:
        """The text cut where rendered prefixes of the conversation end."""
        last = len(prepared.messages) - 1
        pieces, rewritten = self._cut_prompt(prepared, last, answer_only)
        prompt = "".join(piece.text for piece in pieces)
        whole = self.renderer.render(prepared, False)
        unused = tuple(self.renderer.unwritten(prepared, whole))
        if whole.startswith(prompt):
            reply, after = self._split_end(whole[len(prompt) :])
        else:
            # The template ends a prompt with text that it leaves out before a finished response.
            message = prepared.messages[last]
            if "tool_calls" in message:
                raise BadRecord(f"the {self.name} template does not continue its own prompt with a tool call")
            origins = prepared.origins
            lost = [
                unwritten_field(key, message[key], origins.get(key, "")) for key in REASONING_KEYS if key in message
            ]
            unused = tuple(dict.fromkeys((*unused, *lost)))
            reply, after, rewritten = message["content"] + self._end, "", True
        pieces += [*_reply_pieces(reply, prepared, last, answer_only), *([Piece(after, False)] if after else [])]
        return Cut(pieces, unused, (*prepared.changes, *([REWRITTEN] if rewritten else [])))

    def text_pieces(self, text: str) -> list[Piece]:
        """Plain text as one piece, between begin and end of sequence; those that it already has are not doubled."""
        return [Piece(self._begun(text) + self._missing_end(text), True)]

    def parted_pieces(self, chosen: str, rejected: str) -> tuple[list[Piece], list[Piece]]:
        """Two plain texts with what both begin with masked, up to a word's end, as TRL parts them."""
        texts = (self.text_pieces(chosen)[0].text, self.text_pieces(rejected)[0].text)
        end = common_length(*texts)
        if end and texts[0][end - 1] == " ":
            end -= 1
        first, second = ([Piece(text[:end], False), Piece(text[end:], True)] for text in texts)
        return [piece for piece in first if piece.text], [piece for piece in second if piece.text]

    def document_pieces(self, text: str) -> list[Piece]:
        """Plain text in pieces that end where a paragraph does."""
        paragraphs = re.split(r"(?<=\n\n)(?=[^\n])", text)
        paragraphs[0] = self._begun(paragraphs[0])
        paragraphs[-1] += self._missing_end(paragraphs[-1])
        return [Piece(paragraph, True) for paragraph in paragraphs]

    # -- tokens ---------------------------------------------------------------------------------------------------

    def encode_conversation(self, conversation: Conversation) -> Encoded:
        """A conversation as training sees it, uncut: ``len(input_ids) == len(trained)``.

        Raises:
            BadRecord: as :meth:`cut`.
        """
        return self.encode_pieces([self.cut(conversation).pieces])[0]

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[dict[str, object]] = ()) -> list[int]:
        """The tokens that chat gives the model to continue: those that training sees before the same response.

        Raises:
            WorkbenchError: the template refuses the conversation.
        """
        try:
            prepared = self.renderer.prepare(Conversation(list(messages), list(tools)), self.system)
            pieces, _ = self._cut_prompt(prepared, len(prepared.messages))
        except BadRecord as error:
            raise WorkbenchError(
                f"The {self.name} template rejects this conversation: {error}.", "Start a new conversation.",
                kind="template",
            ) from None  # fmt: skip
        return self.encode_pieces([pieces])[0].input_ids

    def check_tools(self, tools: Sequence[dict[str, object]]) -> None:
        """Refuse tools that a chat would drop in silence.

        Raises:
            WorkbenchError: the template does not write them.
        """
        if not tools:
            return
        question = Conversation([{"role": "user", "content": _PROBE}])
        try:
            is_written = self.renderer.render(question, True) != self.renderer.render(
                replace(question, tools=list(tools)), True
            )
        except BadRecord:
            is_written = False
        if not is_written:
            raise WorkbenchError(
                f"The {self.name} template writes no tools: the model would not see them.",
                "Chat without tools, or train with a template that writes them, such as data.template chatml-tools.",
                kind="template",
            )

    def encode_text(self, text: str) -> Encoded:
        """Plain text as training sees it: begin of sequence where the tokenizer adds one, text, end of sequence."""
        return self.encode_pieces([self.text_pieces(text)])[0]

    def encode_pieces(self, texts: Sequence[Sequence[Piece]]) -> list[Encoded]:
        """Texts in pieces as tokens; each piece is tokenized by itself, all of them in one call."""
        return self._encoder.encode(texts)

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that training puts at the end of a response, so that they end one in a chat."""
        ids = self._encoder.tokenize([self._end])[0] if self._end else []
        return tuple(ids[:1]) if len(ids) == 1 else ()

    @cached_property
    def reply_form(self) -> ReplyForm:
        """Reads what the model writes as a message."""
        return reply_form(self.renderer)

    @cached_property
    def renderer(self) -> Renderer:
        """Renders through this template."""
        return Renderer(self.name, self.source, self.tokenizer)

    @cached_property
    def _encoder(self) -> PieceEncoder:
        return PieceEncoder(self.tokenizer)

    # -- where responses start and end ----------------------------------------------------------------------------

    def _cut_prompt(self, prepared: Conversation, end: int, answer_only: bool = False) -> tuple[list[Piece], bool]:
        """The prompt of the message at ``end``, cut at the responses in it.

        Whole, and True, where the template rewrites earlier turns.
        """
        prompt = self._prompt(prepared, end)
        pieces: list[Piece] = []
        at = 0
        for number, message in enumerate(prepared.messages[:end]):
            if message["role"] != "assistant":
                continue
            before = self._prompt(prepared, number)
            upto = self.renderer.render(prepared.first(number + 1), False)
            if not (prompt.startswith(upto) and upto.startswith(before)):
                return [Piece(prompt, False)], True
            reply, _ = self._split_end(upto[len(before) :])
            pieces += [
                Piece(prompt[at : len(before)], False),
                *_reply_pieces(reply, prepared, number, answer_only),
            ]
            at = len(before) + len(reply)
        pieces.append(Piece(prompt[at:], False))
        return [piece for piece in pieces if piece.text], False

    def _prompt(self, prepared: Conversation, end: int) -> str:
        """The text before the response at ``end``. transformers renders no empty conversation: what then comes before
        a response is found by rendering one alone."""
        if end:
            return self.renderer.render(prepared.first(end), True)
        opened = self.renderer.render(replace(prepared, messages=[{"role": "assistant", "content": _PROBE}]), False)
        return opened[: opened.rindex(_PROBE)] if _PROBE in opened else ""

    @cached_property
    def _end(self) -> str:
        """The text that follows a response and belongs to it, as the template writes it."""
        text = self.render(_PROBES.messages)
        return self._split_end(text[text.rindex(_PROBE) + len(_PROBE) :])[0]

    @cached_property
    def _added_tokens(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.added_tokens_encoder)

    def _split_end(self, text: str) -> tuple[str, str]:
        """A response's text, and the white space after the token that ends it, which belongs to the template."""
        stripped = text.rstrip()
        if stripped.endswith(self._added_tokens):
            return stripped, text[len(stripped) :]
        return text, ""

    @cached_property
    def _begin(self) -> str:
        return begin_of_sequence(self.tokenizer)

    def _begun(self, text: str) -> str:
        return text if self._begin and text.startswith(self._begin) else self._begin + text

    def _missing_end(self, text: str) -> str:
        """The end of sequence, unless the text ends with one, or with the token that ends a turn."""
        return "" if self._known_ends and text.rstrip().endswith(self._known_ends) else self.tokenizer.eos_token or ""

    @cached_property
    def _known_ends(self) -> tuple[str, ...]:
        """Tokens of this tokenizer that end a text or a turn."""
        ends = (self.tokenizer.eos_token, self._end.strip(), "<|im_end|>", "<|eot_id|>", "<end_of_turn>")
        return tuple(token for token in ends if token and token in self._added_tokens)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _checked(self) -> Self:
        """This template with its notices, once it has rendered a conversation.

        Raises:
            WorkbenchError: it cannot.
        """
        try:
            end = self._end
            pieces = self.cut(_PROBES).pieces
        except (BadRecord, ValueError) as error:
            raise WorkbenchError(
                f"The {self.name} template cannot render a question and a response: {one_line(error)}.",
                f"Choose another in data.template: auto, {', '.join(NAMED)}.",
                kind="template",
            ) from None
        if not any(piece.reply and _PROBE in piece.text for piece in pieces):
            raise WorkbenchError(
                f"The {self.name} template omits the response.",
                f"Choose another in data.template: auto, {', '.join(NAMED)}.",
                kind="template",
            )
        notices = list(self.notices)
        if not end.strip():
            notices.append("The template adds no end token to a response: the model will not learn where to stop.")
        if self.system and not self.renderer.takes_system:
            notices.append("The template does not support a system prompt: it is prepended to the first question.")
        return replace(self, notices=tuple(dict.fromkeys(notices)))

    def _source_for_others(self) -> str:
        """The template with its default system prompt written into it."""
        if not self.system or not self.renderer.takes_system:
            return self.source
        content: object = [{"type": "text", "text": self.system}] if self.renderer.takes_parts else self.system
        system = json.dumps(content, ensure_ascii=False)
        return (
            "{%- if not messages or messages[0]['role'] != 'system' -%}"
            "{%- set messages = [{'role': 'system', 'content': " + system + "}] + messages -%}"
            "{%- endif -%}" + self.source
        )


def _reply_pieces(reply: str, prepared: Conversation, place: int, answer_only: bool) -> list[Piece]:
    """A response as one piece, or as its reasoning and its answer."""
    trained = place not in prepared.untrained
    at = _answer_start(reply, prepared.messages[place]) if answer_only and trained else 0
    return [Piece(reply[:at], False), Piece(reply[at:], trained)] if at else [Piece(reply, trained)]


def _answer_start(reply: str, message: Message) -> int:
    """Where the answer begins in the text of a response; 0 if it has no reasoning."""
    thought, answer = split_thinking(message["content"] or "")
    reasoning = next((str(message[key]) for key in REASONING_KEYS if key in message), thought).strip()
    if not reasoning or reasoning not in reply:
        return 0
    end = reply.index(reasoning) + len(reasoning)
    return reply.index(answer.strip(), end) if answer.strip() and answer.strip() in reply[end:] else end
