"""Refuses records whose tokens the model has no embedding for, before a model is loaded or trained."""

from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAMED = 3


def refuse_unknown_tokens(largest_id: int, tokenizer: "PreTrainedTokenizerBase", rows: int | None) -> None:
    """Check the largest token id of a dataset against the rows of the model's embedding.

    A tokenizer may have more tokens than the embedding has rows, as long as no record uses one of them.

    Args:
        rows: of the embedding, which is the configuration's ``vocab_size``; None if unknown.

    Raises:
        WorkbenchError: a record uses a token without a row; kind ``token_range``.
    """
    if rows is None or largest_id < rows:
        return
    beyond = [tokenizer.convert_ids_to_tokens(number) for number in range(rows, min(len(tokenizer), rows + _NAMED))]
    more = len(tokenizer) - rows - len(beyond)
    named = ", ".join(map(repr, beyond)) + (f" and {more} more" if more > 0 else "")
    raise WorkbenchError(
        f"The tokenizer has {len(tokenizer):,} tokens, the model's embedding {rows:,} rows: "
        f"{named} cannot be used, and the records use token id {largest_id:,}.",
        "Use the tokenizer that belongs to the model, remove these tokens from the records, or set "
        "model.resize_embeddings=true, which adds the rows and trains them.",
        kind="token_range",
    )
