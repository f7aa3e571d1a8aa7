"""Finds a padding token for any tokenizer."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pad_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The tokenizer's padding id, else its end-of-text id, else 0: padding is masked out, so any id works."""
    return int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
