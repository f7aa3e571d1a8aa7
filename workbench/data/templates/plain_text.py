"""Plain text, which no template surrounds, in the pieces in which training sees it."""

import re
from functools import cached_property
from typing import TYPE_CHECKING

from workbench.data.records.values import common_length
from workbench.data.templates.lookup import begin_of_sequence
from workbench.data.templates.pieces import Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainText:
    """Puts plain text between a tokenizer's begin and end of sequence.

    Args:
        turn_end: what the template writes after a response; a text that ends with it needs no other end.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", turn_end: str) -> None:
        self._tokenizer = tokenizer
        self._turn_end = turn_end

    def text_pieces(self, text: str) -> list[Piece]:
        """Plain text as one piece, between begin and end of sequence; those that it already has are not doubled."""
        return [Piece(self._begun(text) + self._missing_end(text), True)]

    def sequence_pieces(self, text: str) -> list[Piece]:
        """Plain text as the tokenizer itself encodes it, with the begin and end of sequence that it adds."""
        return [Piece(self._begin + text + self._added_end, True)]

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

    def is_ended(self, text: str) -> bool:
        """Whether a text ends with the end of sequence, or with the token that ends a turn."""
        return not self._missing_end(text)

    def without_end(self, text: str) -> str:
        """A text without the token that ends it, if one does."""
        ended = text.rstrip()
        return next((ended.removesuffix(end) for end in self._known_ends if ended.endswith(end)), text)

    @cached_property
    def _added_end(self) -> str:
        """The end of sequence if the tokenizer itself puts one after a text, else nothing."""
        ids, end = self._tokenizer("a")["input_ids"], self._tokenizer.eos_token_id
        return self._tokenizer.eos_token if end is not None and ids[-1] == end else ""

    @cached_property
    def _begin(self) -> str:
        return begin_of_sequence(self._tokenizer)

    def _begun(self, text: str) -> str:
        return text if self._begin and text.startswith(self._begin) else self._begin + text

    def _missing_end(self, text: str) -> str:
        """The end of sequence, unless the text ends with one, or with the token that ends a turn."""
        return "" if self._known_ends and text.rstrip().endswith(self._known_ends) else self._tokenizer.eos_token or ""

    @cached_property
    def _known_ends(self) -> tuple[str, ...]:
        """Tokens of this tokenizer that end a text or a turn."""
        ends = (self._tokenizer.eos_token, self._turn_end.strip(), "<|im_end|>", "<|eot_id|>", "<end_of_turn>")
        return tuple(token for token in ends if token and token in self._tokenizer.added_tokens_encoder)
