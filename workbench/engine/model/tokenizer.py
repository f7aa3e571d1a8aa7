"""What is asked of a tokenizer beside encoding."""

from typing import Any


def pad_token_id(tokenizer: Any) -> int:
    """Any id will do where padding is masked out of attention and labels."""
    return int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
