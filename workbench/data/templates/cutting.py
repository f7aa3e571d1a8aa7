"""Cuts a conversation's text where each response starts and where it ends.

The places are found by rendering prefixes: the prompt of a response must be the start of the whole text, and so must
the text up to its end. A template that rewrites earlier turns (some drop their reasoning) has no such places; then only
the last response of a conversation is trained, after exactly the prompt that chat would give. With ``data.responses``
``each``, every response is the last one of a record of its own.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.reasoning import REASONING_KEYS, split_thinking
from workbench.data.records.unused import Unused, unwritten_field
from workbench.data.templates.pieces import Piece
from workbench.data.templates.render import MarkedText, Renderer
from workbench.data.templates.unwritten import unwritten

REWRITTEN = (
    "Trained on the last response only, because the template rewrites earlier turns (data.responses each trains all)"
)
PROBE = "probe"
PROBES = Conversation([{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}])
"""A question and a response, to find out what a template puts around them."""


@dataclass(frozen=True)
class Cut:
    """A conversation's text in pieces, the fields that the template did not write, and what was done to it."""

    pieces: list[Piece]
    unused: tuple[Unused, ...] = ()
    changes: tuple[str, ...] = ()


class ResponseCutter:
    """Cuts conversations at the places where a template puts responses.

    Args:
        renderer: renders through the template.
        system: put before conversations that bring no system prompt.
    """

    def __init__(self, renderer: Renderer, system: str | None) -> None:
        self._renderer = renderer
        self._system = system

    def cut(self, conversation: Conversation, *, answer_only: bool = False) -> Cut:
        """A conversation's text cut at its responses.

        Args:
            answer_only: leave the reasoning of responses out of what is trained.

        Raises:
            BadRecord: there is no assistant turn, or the template refuses the conversation.
        """
        prepared = self._renderer.prepare(conversation, self._system)
        replies = prepared.responses
        if not replies:
            raise BadRecord("there is no assistant turn")
        prepared = prepared.first(replies[-1] + 1)
        marked = self._renderer.render_marked(prepared)
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
        unused = unwritten(self._renderer, prepared, text)
        return Cut([piece for piece in pieces if piece.text], unused, prepared.changes)

    def _cut_at_prefixes(self, prepared: Conversation, answer_only: bool) -> Cut:
        """The text cut where rendered prefixes of the conversation end."""
        last = len(prepared.messages) - 1
        pieces, rewritten = self.cut_prompt(prepared, last, answer_only)
        prompt = "".join(piece.text for piece in pieces)
        whole = self._renderer.render(prepared, False)
        unused = unwritten(self._renderer, prepared, whole)
        if whole.startswith(prompt):
            reply, after = self._split_end(whole[len(prompt) :])
        else:
            # The template ends a prompt with text that it leaves out before a finished response.
            message = prepared.messages[last]
            if "tool_calls" in message:
                raise BadRecord(f"the {self._renderer.name} template does not continue its own prompt with a tool call")
            origins = prepared.origins
            lost = [
                unwritten_field(key, message[key], origins.get(key, "")) for key in REASONING_KEYS if key in message
            ]
            unused = tuple(dict.fromkeys((*unused, *lost)))
            reply, after, rewritten = message["content"] + self.end, "", True
        pieces += [*_reply_pieces(reply, prepared, last, answer_only), *([Piece(after, False)] if after else [])]
        is_lost = rewritten and not prepared.untrained.issuperset(prepared.responses[:-1])
        return Cut(pieces, unused, (*prepared.changes, *([REWRITTEN] if is_lost else [])))

    def cut_prompt(self, prepared: Conversation, end: int, answer_only: bool = False) -> tuple[list[Piece], bool]:
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
            upto = self._renderer.render(prepared.first(number + 1), False)
            if not prompt.startswith(upto):
                upto = self._without_end_of_text(upto)
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

    def _without_end_of_text(self, text: str) -> str:
        """A text without the token that Phi-3's template puts after the end of a whole conversation."""
        turns = text.removesuffix(self._renderer.tokenizer.eos_token or "")
        return turns if turns.rstrip().endswith(self._added_tokens) else text

    def _prompt(self, prepared: Conversation, end: int) -> str:
        """The text before the response at ``end``. transformers renders no empty conversation: what then comes before
        a response is found by rendering one alone."""
        if end:
            return self._renderer.render(prepared.first(end), True)
        opened = self._renderer.render(replace(prepared, messages=[{"role": "assistant", "content": PROBE}]), False)
        return opened[: opened.rindex(PROBE)] if PROBE in opened else ""

    @cached_property
    def end(self) -> str:
        """The text that follows a response and belongs to it, as the template writes it."""
        text = self._renderer.render(self._renderer.prepare(PROBES, self._system), False)
        return self._split_end(text[text.rindex(PROBE) + len(PROBE) :])[0]

    @cached_property
    def _added_tokens(self) -> tuple[str, ...]:
        return tuple(self._renderer.tokenizer.added_tokens_encoder)

    def _split_end(self, text: str) -> tuple[str, str]:
        """A response's text, and the white space after the token that ends it, which belongs to the template."""
        stripped = text.rstrip()
        if stripped.endswith(self._added_tokens):
            return stripped, text[len(stripped) :]
        return text, ""


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
