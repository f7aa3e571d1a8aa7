"""How a conversation becomes tokens: one object that serves training and chat, and travels with the adapter.

A conversation's text is cut where each reply starts and where it ends, and each piece is tokenised by itself. So no
token straddles the place where the model starts to write, the tokens that training sees before a reply are those that
chat gives the model, whatever the template, and which tokens are trained needs no guess from offsets.

The places are found by rendering prefixes: the prompt of a reply must be the start of the whole text, and so must the
text up to its end. A template that rewrites earlier turns (some drop their reasoning) has no such places; then only the
last reply of a conversation is trained, after exactly the prompt that chat would give.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from workbench.data.formats import BadRecord, Conversation, Message
from workbench.data.named_templates import NAMED
from workbench.data.tokenize import token_ids
from workbench.errors import WorkbenchError

FILE = "template.json"
DEFAULT_NAME = "instruction-response"
_PROBE = "probe"


@dataclass(frozen=True)
class Piece:
    """A stretch of a conversation's text; ``reply`` where the assistant wrote it, its end of sequence included."""

    text: str
    reply: bool


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens. ``trained[i]`` tells whether ``input_ids[i]`` is a reply's.

    ``piece_ends[k]`` is the place after the last token of the k-th piece. ``rewritten``: the template rewrites earlier
    turns, and only the last reply counts as one.
    """

    input_ids: list[int]
    trained: list[bool]
    piece_ends: list[int] = field(default_factory=list)
    rewritten: bool = False


@dataclass(frozen=True)
class Template:
    """A chat template bound to a tokenizer.

    ``name`` is ``model`` for the model's own, ``custom``, or a named one. ``source`` is Jinja, rendered in
    transformers' sandbox. ``system`` is put before conversations that bring no system prompt.
    """

    name: str
    source: str
    tokenizer: Any = field(repr=False, compare=False)
    system: str | None = None
    notices: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def for_model(cls, tokenizer: Any, name: str = "auto", system: str | None = None) -> Self:
        """The template that a recipe's ``data.template`` names.

        Args:
            name: ``auto`` (the model's own), a name of :data:`~workbench.data.named_templates.NAMED`, a path that ends
                in ``.jinja``, or Jinja itself.

        Raises:
            WorkbenchError: there is no such template, or it cannot be rendered.
        """
        notices: list[str] = []
        if name == "auto":
            own = _own_template(tokenizer)
            if own is not None:
                return cls("model", own, tokenizer, system)._checked()
            name = DEFAULT_NAME
            notices.append(
                f"The model has no chat template; {name} is used for training and chat. Set data.template to change it."
            )
        if name in NAMED:
            header, end_notices = _header(tokenizer, name)
            return cls(name, header + NAMED[name], tokenizer, system, (*notices, *end_notices))._checked()
        return cls("custom", _custom_source(name), tokenizer, system)._checked()

    @classmethod
    def load(cls, folder: Path, tokenizer: Any) -> Self:
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

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text of a conversation, with the prompt for the next reply where asked.

        Raises:
            BadRecord: the template refuses the conversation; with its own words.
        """
        return self._render_prepared(self._prepared(messages), add_generation_prompt)

    def pieces(self, messages: Sequence[Message]) -> tuple[list[Piece], bool]:
        """A conversation cut at its replies, and whether the template rewrites earlier turns.

        Raises:
            BadRecord: there is no assistant turn, or the template refuses the conversation.
        """
        prepared = self._prepared(messages)
        last = max((i for i, message in enumerate(prepared) if message["role"] == "assistant"), default=-1)
        if last < 0:
            raise BadRecord("there is no assistant turn")
        prompt = self._render_prepared(prepared[:last], True)
        pieces, rewritten = self._prompt_pieces(prepared[:last], prompt)
        whole = self._render_prepared(prepared[: last + 1], False)
        if whole.startswith(prompt):
            reply, after = self._split_end(whole[len(prompt) :])
        else:
            reply, after, rewritten = prepared[last]["content"] + self._end, "", True
        pieces.append(Piece(reply, True))
        if last + 1 < len(prepared):
            everything = self._render_prepared(prepared, False)
            after = everything[len(prompt) + len(reply) :] if everything.startswith(prompt + reply) else after
        if after:
            pieces.append(Piece(after, False))
        return pieces, rewritten

    def encode_conversation(self, messages: Sequence[Message]) -> Encoded:
        """A conversation as training sees it, uncut: ``len(input_ids) == len(trained)``.

        Raises:
            BadRecord: as :meth:`pieces`.
        """
        pieces, rewritten = self.pieces(messages)
        (encoded,) = self.encode_pieces([pieces])
        return replace(encoded, rewritten=rewritten)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens that chat gives the model to continue: those that training sees before the same reply.

        Raises:
            WorkbenchError: the template refuses the conversation.
        """
        try:
            prepared = self._prepared(messages)
            pieces, _ = self._prompt_pieces(prepared, self._render_prepared(prepared, True))
        except BadRecord as error:
            raise WorkbenchError(
                f"The {self.name} template rejects this conversation: {error}.", "Start a new conversation.",
                kind="template",
            ) from None  # fmt: skip
        return self.encode_pieces([pieces])[0].input_ids

    def encode_text(self, text: str) -> Encoded:
        """Plain text as training sees it: begin of sequence where the tokenizer adds one, text, end of sequence."""
        return self.encode_pieces([self.text_pieces(text)])[0]

    def text_pieces(self, text: str) -> list[Piece]:
        return [Piece(_begin(self.tokenizer) + text + (self.tokenizer.eos_token or ""), True)]

    def document_pieces(self, text: str) -> list[Piece]:
        """Plain text in pieces that end where a paragraph does."""
        paragraphs = re.split(r"(?<=\n\n)(?=[^\n])", text)
        paragraphs[0] = _begin(self.tokenizer) + paragraphs[0]
        paragraphs[-1] += self.tokenizer.eos_token or ""
        return [Piece(paragraph, True) for paragraph in paragraphs]

    def encode_pieces(self, texts: Sequence[Sequence[Piece]]) -> list[Encoded]:
        """Texts in pieces as tokens; each piece is tokenised by itself, all of them in one call."""
        flat = [
            self._anchor + piece.text if number and self._anchor else piece.text
            for pieces in texts
            for number, piece in enumerate(pieces)
        ]
        ids = iter(self._tokenise(flat))
        result = []
        for pieces in texts:
            input_ids: list[int] = []
            trained: list[bool] = []
            ends: list[int] = []
            for number, piece in enumerate(pieces):
                own = next(ids)
                if number and self._anchor:
                    own = self._without_anchor(own, piece.text)
                input_ids += own
                trained += [piece.reply] * len(own)
                ends.append(len(input_ids))
            result.append(Encoded(input_ids, trained, ends))
        return result

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that training puts at the end of a reply, so that they end one in a chat."""
        ids = self._tokenise([self._end])[0] if self._end else []
        return tuple(ids[:1]) if len(ids) == 1 else ()

    @cached_property
    def _end(self) -> str:
        """The text that follows a reply and belongs to it, as the template writes it."""
        pieces = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        text = self.render(pieces)
        return self._split_end(text[text.rindex(_PROBE) + len(_PROBE) :])[0]

    @cached_property
    def _added_tokens(self) -> tuple[str, ...]:
        return tuple(self.tokenizer.added_tokens_encoder)

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template has a place for a system prompt; Gemma's refuses one, others leave it out."""
        messages = [{"role": "system", "content": "§system§"}, {"role": "user", "content": _PROBE}]
        try:
            return "§system§" in self._render_prepared(messages, True)
        except BadRecord:
            return False

    @cached_property
    def _anchor(self) -> str:
        """What a later piece is tokenised after, where the tokenizer would put a space before a text's first word."""
        first, second, alone = self._tokenise(["\n", "\na", "a"])
        return "" if second == first + alone or second[: len(first)] != first else "\n"

    def _without_anchor(self, ids: list[int], text: str) -> list[int]:
        anchor = self._tokenise([self._anchor])[0]
        # A text that starts with a line feed may join it to the anchor: then it is tokenised alone after all.
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._tokenise([text])[0]

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        return token_ids(self.tokenizer, texts)

    def _prepared(self, messages: Sequence[Message]) -> Conversation:
        """The conversation with its system prompt in place, inside the first user turn where the template has none."""
        prepared = list(messages)
        if self.system and (not prepared or prepared[0]["role"] != "system"):
            prepared.insert(0, {"role": "system", "content": self.system})
        if len(prepared) > 1 and prepared[0]["role"] == "system" and not self._takes_system:
            system, first = prepared[0]["content"], prepared[1]
            prepared[:2] = [{"role": first["role"], "content": f"{system}\n\n{first['content']}"}]
        return prepared

    def _render_prepared(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise BadRecord(f"the {self.name} template rejects it ({_one_line(error)})") from None
        return str(text)

    def _prompt_pieces(self, messages: Sequence[Message], prompt: str) -> tuple[list[Piece], bool]:
        """A prompt cut at the replies in it; whole, and True, where the template rewrites earlier turns."""
        pieces: list[Piece] = []
        at = 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render_prepared(messages[:number], True)
            upto = self._render_prepared(messages[: number + 1], False)
            if not (prompt.startswith(upto) and upto.startswith(before)):
                return [Piece(prompt, False)], True
            reply, _ = self._split_end(upto[len(before) :])
            pieces += [Piece(prompt[at : len(before)], False), Piece(reply, True)]
            at = len(before) + len(reply)
        pieces.append(Piece(prompt[at:], False))
        return [piece for piece in pieces if piece.text], False

    def _split_end(self, text: str) -> tuple[str, str]:
        """A reply's text, and the white space after the token that ends it, which belongs to the template."""
        stripped = text.rstrip()
        if stripped.endswith(self._added_tokens):
            return stripped, text[len(stripped) :]
        return text, ""

    def _checked(self) -> Self:
        """This template with what is to be told about it, once it has rendered a conversation.

        Raises:
            WorkbenchError: it cannot.
        """
        try:
            end = self._end
            pieces, _ = self.pieces([{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}])
        except (BadRecord, ValueError) as error:
            raise WorkbenchError(
                f"The {self.name} template cannot render a question and a response: {_one_line(error)}.",
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
        if self.system and not self._takes_system:
            notices.append("The template does not support a system prompt: it is prepended to the first question.")
        return replace(self, notices=tuple(dict.fromkeys(notices)))

    def _source_for_others(self) -> str:
        """The template with its default system prompt written into it."""
        if not self.system or not self._takes_system:
            return self.source
        system = json.dumps(self.system, ensure_ascii=False)
        return (
            "{%- if not messages or messages[0]['role'] != 'system' -%}"
            "{%- set messages = [{'role': 'system', 'content': " + system + "}] + messages -%}"
            "{%- endif -%}" + self.source
        )


def _own_template(tokenizer: Any) -> str | None:
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, dict):
        own = own.get("default")
    return own or None


def _begin(tokenizer: Any) -> str:
    """The begin-of-sequence token where this tokenizer puts one before a text by itself, else nothing."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] else ""


def _header(tokenizer: Any, name: str) -> tuple[str, list[str]]:
    """What goes before a named template's source: this tokenizer's begin of sequence, and what ends a reply."""
    notices = []
    end = tokenizer.eos_token or ""
    if name == "chatml":
        if "<|im_end|>" in tokenizer.added_tokens_encoder:
            end = "<|im_end|>"
        else:
            end = "<|im_end|>" + end
            notices.append("This tokenizer has no ChatML tokens: <|im_start|> and <|im_end|> are encoded as text.")
    begin = _begin(tokenizer)
    return f"{{%- set end = {json.dumps(end)} %}}{{{{- {json.dumps(begin)} }}}}", notices


def _custom_source(name: str) -> str:
    if "{{" in name or "{%" in name:
        return name
    path = Path(name).expanduser()
    if path.suffix in (".jinja", ".jinja2", ".j2"):
        try:
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkbenchError(
                f"Cannot read the template {name}: {_one_line(error)}.", "Give a readable .jinja file.", kind="template"
            ) from None
    raise WorkbenchError(
        f"Unknown template {name!r}.",
        f"Choose auto, {', '.join(NAMED)}, a .jinja file, or write Jinja.",
        kind="template",
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
