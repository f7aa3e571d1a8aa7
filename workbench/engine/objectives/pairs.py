"""Puts both sides of pairs of responses into one batch, and reads each side's log-probability from the model's output.

A batch of n pairs is a batch of 2n texts, the n chosen sides first, as TRL's. It is collated like any other batch,
padded or padding-free, so that kernels, clocks and counts need not know about pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from workbench.engine.batches.parts import Batch

PAIRS = "pairs"
"""The key of a batch under which its :class:`PairRows` travel. The model does not take it."""

Row = Mapping[str, list[int]]
"""A record: ``input_ids`` and ``labels`` of its chosen side, ``rejected_ids`` and ``rejected_labels``."""
Collate = Callable[[list[dict[str, list[int]]]], "Batch"]


@dataclass(frozen=True)
class PairRows:
    """The records of a batch, to split it by; and by text its tokens and those that are predicted and trained."""

    rows: tuple[Row, ...]
    lengths: tuple[int, ...]
    trained: tuple[int, ...]


class PairCollator:
    """Collates pairs with a collator of single texts."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Row]) -> "Batch":
        texts = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
        texts += [{"input_ids": row["rejected_ids"], "labels": row["rejected_labels"]} for row in rows]
        lengths = tuple(len(text["input_ids"]) for text in texts)
        # The first token of a text is not predicted.
        trained = tuple(sum(label != -100 for label in text["labels"][1:]) for text in texts)
        batch = self.collate(texts)
        batch[PAIRS] = PairRows(tuple(rows), lengths, trained)
        return batch

    def split(self, batch: "Batch", parts: int) -> "list[Batch]":
        """Split a batch into at most ``parts`` batches of whole pairs, about equal in size."""
        rows = pairs_of(batch).rows
        count = min(parts, len(rows))
        if count == 1:
            return [batch]
        bounds = [len(rows) * part // count for part in range(count + 1)]
        return [self(rows[start:end]) for start, end in pairwise(bounds)]


def pairs_of(batch: "Batch") -> PairRows:
    """The pairs of a batch that :class:`PairCollator` made."""
    pairs: object = batch[PAIRS]
    assert isinstance(pairs, PairRows)
    return pairs


def model_inputs(batch: "Batch") -> "Batch":
    """What of a batch the model takes."""
    return {name: value for name, value in batch.items() if name != PAIRS}


def sums_by_text(values: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
    """The sum over each text of a value per token, such as a model output's ``log_probs``; (2n,)."""
    import torch

    if "trained_positions" not in batch:
        return values.sum(1)  # TRL's head, which returns zeros for tokens that are not labeled
    # Only trained tokens reach the head, in the order of the texts.
    return torch.stack([part.sum() for part in values[0].split(list(pairs_of(batch).trained))])
