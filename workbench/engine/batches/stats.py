"""Counts the tokens of a batch on the CPU when it is collated; on a GPU each count would wait for queued work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

STATS_KEY = "batch_stats"
"""The name under which a batch carries its :class:`BatchStats` from the collator to the trainer."""


@dataclass(frozen=True)
class BatchStats:
    """Sizes of one batch.

    Attributes:
        lengths: tokens of each record.
        positions: token positions, padding included.
        trained: tokens that the loss is computed on.
    """

    lengths: tuple[int, ...]
    positions: int
    trained: int


class CountingCollator:
    """Wraps a collator so that each batch carries its :class:`BatchStats`; also works in a data loader's processes."""

    def __init__(self, collate: "Callable[[list[dict[str, list[int]]]], dict[str, torch.Tensor]]") -> None:
        self._collate = collate

    def __call__(self, records: list[dict[str, list[int]]]) -> "dict[str, torch.Tensor | BatchStats]":
        batch = self._collate(records)
        return {**batch, STATS_KEY: batch_stats(batch)}


def batch_stats(batch: "dict[str, torch.Tensor]") -> BatchStats:
    """Count a batch that is still on the CPU.

    Args:
        batch: padded rows with their mask, or all records in one row, with positions that start at 0 for each.
    """
    if "attention_mask" in batch:
        lengths = batch["attention_mask"].numpy().sum(axis=1)
    else:
        positions = batch["position_ids"].numpy().ravel()
        lengths = np.diff(np.flatnonzero(positions == 0), append=positions.size)
    trained = np.count_nonzero(batch["labels"].numpy()[:, 1:] != -100)
    return BatchStats(tuple(lengths.tolist()), batch["input_ids"].numel(), int(trained))
