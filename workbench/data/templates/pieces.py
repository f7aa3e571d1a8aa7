"""Text in pieces, each tokenized by itself, so that no token straddles the place where a response starts or ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from workbench.data.tokens.tokenize import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Piece:
    """A stretch of a conversation's text; ``reply`` where it is trained, a response's end of sequence included."""

    text: str
    reply: bool


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens. ``trained[i]`` tells whether ``input_ids[i]`` is trained.

    ``piece_ends[k]`` is the place after the last token of the k-th piece.
    """

    input_ids: list[int]
    trained: list[bool]
    piece_ends: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class PieceEncoder:
    """Tokenizes pieces; a tokenizer that puts a space before a text's first word does so for the first piece only."""

    tokenizer: "PreTrainedTokenizerBase"

    def encode(self, texts: Sequence[Sequence[Piece]]) -> list[Encoded]:
        """Texts in pieces as tokens, all of them in one call of the tokenizer."""
        flat = [
            self._anchor + piece.text if number and self._anchor else piece.text
            for pieces in texts
            for number, piece in enumerate(pieces)
        ]
        ids = iter(self.tokenize(flat))
        result = []
        for pieces in texts:
            input_ids: list[int] = []
            trained: list[bool] = []
            ends: list[int] = []
            for number, piece in enumerate(pieces):
                piece_ids = next(ids)
                if number and self._anchor:
                    piece_ids = self._without_anchor(piece_ids, piece.text)
                input_ids += piece_ids
                trained += [piece.reply] * len(piece_ids)
                ends.append(len(input_ids))
            result.append(Encoded(input_ids, trained, ends))
        return result

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without tokens that the tokenizer would add."""
        return token_ids(self.tokenizer, texts)

    @cached_property
    def _anchor(self) -> str:
        """Text that a later piece is tokenized after, where the tokenizer would put a space before its first word."""
        first, second, alone = self.tokenize(["\n", "\na", "a"])
        return "" if second == first + alone or second[: len(first)] != first else "\n"

    def _without_anchor(self, ids: list[int], text: str) -> list[int]:
        anchor = self.tokenize([self._anchor])[0]
        # A text that starts with a line feed may join it to the anchor: then it is tokenized alone after all.
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self.tokenize([text])[0]
