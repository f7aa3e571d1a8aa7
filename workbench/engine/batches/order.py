"""Predicts the order of the training records, to find the fullest micro-batch. Imports accelerate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from workbench.engine.batches.length_groups import LengthGroups

# Passes over the data to look at; a fuller micro-batch in a later one is only slightly fuller.
_PASSES = 3


def record_lengths(dataset: "Dataset", columns: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Tokens of each record, summed over the columns that hold tokens."""
    import pyarrow.compute as pc

    table = dataset.select_columns(list(columns)).with_format("arrow")[:]
    lengths: np.ndarray[Any, np.dtype[np.int64]] = sum(pc.list_value_length(table[name]).to_numpy() for name in columns)
    return lengths


def fullest_micro_batch(
    dataset: "Dataset",
    size: int,
    seed: int,
    micro_batches: int,
    columns: Sequence[str] = ("input_ids",),
    sampler: "LengthGroups | None" = None,
) -> int:
    """Token count of the fullest of the first micro-batches of a training, without padding.

    Args:
        size: records per micro-batch.
        seed: seed of the order, ``data_seed`` in the trainer's arguments.
        micro_batches: how many to look at; at most three passes.
        columns: those of the dataset that hold tokens.
        sampler: what orders the records; None for the random order of ``seed``.
    """
    import numpy as np
    from accelerate.data_loader import SeedableRandomSampler

    lengths = record_lengths(dataset, columns)
    order_of = SeedableRandomSampler(dataset, data_seed=seed) if sampler is None else sampler
    fullest = 0
    for epoch in range(_PASSES):
        if micro_batches <= 0:
            break
        order_of.set_epoch(epoch)
        order = np.fromiter(order_of, dtype=np.int64, count=len(lengths))[: micro_batches * size]
        fullest = max(fullest, int(np.add.reduceat(lengths[order], np.arange(0, len(order), size)).max()))
        micro_batches -= -(-len(order) // size)
    return fullest
