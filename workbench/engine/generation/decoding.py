"""Decodes a reply's tokens, also while more of them come."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from workbench.data.templates.reply_form import special_token_ids
from workbench.data.templates.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ReplyDecoder:
    """Decodes a reply without special tokens, except those that the template marks reasoning and calls with."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: Template, ends: Sequence[int]) -> None:
        self.form = template.reply_form
        self._tokenizer = tokenizer
        self._hidden = special_token_ids(tokenizer.added_tokens_decoder, self.form.literals, ends)

    def decode(self, tokens: Sequence[int]) -> str:
        shown = [token for token in tokens if token not in self._hidden]
        return str(self._tokenizer.decode(shown, skip_special_tokens=False)) if shown else ""


class TextStream:
    """Turns tokens that come one after another into text that can no longer change.

    Only the newest tokens and those just before them are decoded, since a tokenizer's spaces depend on the previous
    token: the cost per token does not grow with the text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        # The text of the tokens up to `_emitted` was returned; decoding starts at `_start`.
        self._start = 0
        self._emitted = 0

    def add(self, tokens: Sequence[int], *, final: bool = False) -> str:
        """The text that these tokens complete; with ``final``, all that is left."""
        self._tokens.extend(tokens)
        before = self._decode(self._tokens[self._start : self._emitted])
        text = self._decode(self._tokens[self._start :])
        # A character that consists of several tokens decodes to U+FFFD until its last token is there.
        if len(text) <= len(before) or (text.endswith("\ufffd") and not final):
            return ""
        self._start, self._emitted = self._emitted, len(self._tokens)
        return text[len(before) :]
