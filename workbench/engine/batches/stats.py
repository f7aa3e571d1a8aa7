"""What a batch holds, counted on the host where it is made: on a GPU every look at it would wait for the queue."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FED = "fed"
"""The name that a batch carries its :class:`Fed` under, from the collator to the trainer."""


@dataclass(frozen=True)
class Fed:
    """What is fed of one batch.

    Attributes:
        lengths: tokens of each record.
        places: for tokens, those that only hold padding too.
        trained: tokens that a loss is computed of.
    """

    lengths: tuple[int, ...]
    places: int
    trained: int


class CountingCollator:
    """A collator whose batches carry what they hold; also from a process of a loader's own."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, records: list[Any]) -> dict[str, Any]:
        batch = self._collate(records)
        batch[FED] = count_fed(batch)
        return batch


def count_fed(batch: dict[str, Any]) -> Fed:
    """Count a batch on the processor.

    Args:
        batch: padded rows with their mask, or records end to end in one row, whose positions begin at 0 for each.
    """
    if "attention_mask" in batch:
        lengths = batch["attention_mask"].numpy().sum(axis=1)
    else:
        positions = batch["position_ids"].numpy().ravel()
        lengths = np.diff(np.flatnonzero(positions == 0), append=positions.size)
    trained = np.count_nonzero(batch["labels"].numpy()[:, 1:] != -100)
    return Fed(tuple(lengths.tolist()), batch["input_ids"].numel(), int(trained))
