"""How a conversation becomes tokens: one object that serves training and chat, and travels with the adapter.

A conversation's text is cut where each response starts and where it ends (:mod:`workbench.data.templates.cutting`), and
each piece is tokenized by itself. So no token straddles the place where the model starts to write, the tokens that
training sees before a response are those that chat gives the model, whatever the template, and which tokens are trained
needs no guess from offsets.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from workbench.data.records.conversation import BadRecord, Conversation, Message, Segments
from workbench.data.templates.cutting import PROBE, PROBES, Cut, ResponseCutter
from workbench.data.templates.lookup import (
    DEFAULT_NAME,
    custom_source,
    named_source,
    one_line,
    own_template,
    own_templates,
    with_ends,
)
from workbench.data.templates.named import NAMED
from workbench.data.templates.pieces import Encoded, Piece, PieceEncoder
from workbench.data.templates.plain_text import PlainText
from workbench.data.templates.render import Renderer
from workbench.data.templates.reply_form import ReplyForm, reply_form
from workbench.data.templates.stored import StoredTemplate, read_template, write_template
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Template:
    """A chat template bound to a tokenizer.

    ``name`` is ``model`` for the model's own, ``custom``, or that of a named one. ``source`` is Jinja, rendered in
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
            name: ``auto`` (the model's own), a name of :data:`~workbench.data.templates.named.NAMED`, a name of one of
                the model's own templates, a path that ends in ``.jinja``, or Jinja itself.

        Raises:
            WorkbenchError: there is no such template, or it cannot be rendered.
        """
        notices: list[str] = []
        owned = own_templates(tokenizer)
        if name == "auto":
            own = own_template(tokenizer)
            if own is not None:
                if others := [other for other, source in owned.items() if source != own]:
                    notices.append(
                        f"The model has more chat templates: {', '.join(others)}. Set data.template to the name of "
                        "one to use it."
                    )
                return cls("model", own, tokenizer, system, tuple(notices))._checked()
            name = DEFAULT_NAME
            notices.append(
                f"The model has no chat template; {name} is used for training and chat. Set data.template to change it."
            )
        if name in NAMED:
            source, source_notices = named_source(tokenizer, name)
            return cls(name, source, tokenizer, system, (*notices, *source_notices))._checked()
        if name in owned:
            return cls(name, owned[name], tokenizer, system)._checked()
        return cls("custom", with_ends(tokenizer, custom_source(name, owned)), tokenizer, system)._checked()

    @classmethod
    def load(cls, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> Self:
        """The template saved with an adapter; without one, the folder's ``chat_template.jinja`` or the model's own.

        Raises:
            WorkbenchError: the saved template is damaged.
        """
        stored = read_template(Path(folder))
        if stored is None:
            return cls.for_model(tokenizer)
        return cls(stored.name, stored.source, tokenizer, stored.system)._checked()

    def save(self, folder: Path) -> None:
        """Write the template into an adapter's folder: for us, and as ``chat_template.jinja`` for everybody else."""
        write_template(Path(folder), StoredTemplate(self.name, self.source, self.system), self.source_for_others())

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
        return self._cutter.cut(conversation, answer_only=answer_only)

    def text_pieces(self, text: str) -> list[Piece]:
        """Plain text as one piece, between begin and end of sequence; those that it already has are not doubled."""
        return self._plain_text.text_pieces(text)

    def segment_pieces(self, segments: Segments) -> list[Piece]:
        """Text in segments as it is, without a begin or end of sequence; each segment is tokenized by itself."""
        return [Piece(segment.text, segment.trained) for segment in segments.segments]

    def is_ended(self, text: str) -> bool:
        """Whether a text ends with the end of sequence, or with the token that ends a turn."""
        return self._plain_text.is_ended(text)

    def without_end(self, text: str) -> str:
        """A text without the token that ends it, if one does."""
        return self._plain_text.without_end(text)

    def sequence_pieces(self, content: Conversation | str) -> list[Piece]:
        """A text as the tokenizer encodes it, or a conversation as the template writes it, as one piece.

        Raises:
            BadRecord: the template refuses the conversation.
        """
        if isinstance(content, str):
            return self._plain_text.sequence_pieces(content)
        return [Piece(self.renderer.render(self.renderer.prepare(content, self.system), False), True)]

    def parted_pieces(self, chosen: str, rejected: str) -> tuple[list[Piece], list[Piece]]:
        """Two plain texts with what both begin with masked, up to a word's end, as TRL parts them."""
        return self._plain_text.parted_pieces(chosen, rejected)

    def document_pieces(self, text: str) -> list[Piece]:
        """Plain text in pieces that end where a paragraph does."""
        return self._plain_text.document_pieces(text)

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
            pieces, _ = self._cutter.cut_prompt(prepared, len(prepared.messages))
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
        question = Conversation([{"role": "user", "content": PROBE}])
        try:
            is_written = self.renderer.render(question, True) != self.renderer.render(
                replace(question, tools=list(tools)), True
            )
        except BadRecord:
            is_written = False
        if not is_written:
            raise WorkbenchError(
                f"The {self.name} template writes no tools: the model would not see them.",
                "Chat without tools, or train with a template that writes them, such as data.template "
                f"{'tool_use' if 'tool_use' in own_templates(self.tokenizer) else 'chatml-tools'}.",
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
        end = self._cutter.end
        ids = self._encoder.tokenize([end])[0] if end else []
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
    def _cutter(self) -> ResponseCutter:
        return ResponseCutter(self.renderer, self.system)

    @cached_property
    def _plain_text(self) -> PlainText:
        return PlainText(self.tokenizer, self._cutter.end)

    @cached_property
    def _encoder(self) -> PieceEncoder:
        return PieceEncoder(self.tokenizer)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _checked(self) -> Self:
        """This template with its notices, once it has rendered a conversation.

        Raises:
            WorkbenchError: it cannot.
        """
        try:
            end = self._cutter.end
            pieces = self.cut(PROBES).pieces
        except (BadRecord, ValueError) as error:
            raise WorkbenchError(
                f"The {self.name} template cannot render a question and a response: {one_line(error)}.",
                f"Choose another in data.template: auto, {', '.join(NAMED)}.",
                kind="template",
            ) from None
        if not any(piece.reply and PROBE in piece.text for piece in pieces):
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

    def source_for_others(self) -> str:
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
