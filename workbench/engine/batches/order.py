"""Predicts the order of the training records, to find the fullest micro-batch. Imports accelerate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

# Passes over the data to look at; a fuller micro-batch in a later one is only slightly fuller.
_PASSES = 3


def fullest_micro_batch(
    dataset: "Dataset", size: int, seed: int, micro_batches: int, columns: Sequence[str] = ("input_ids",)
) -> int:
    """Token count of the fullest of the first micro-batches of a training, without padding.

    Args:
        size: records per micro-batch.
        seed: seed of the order, ``data_seed`` in the trainer's arguments.
        micro_batches: how many to look at; at most three passes.
        columns: those of the dataset that hold tokens.
    """
    import numpy as np
    import pyarrow.compute as pc
    from accelerate.data_loader import SeedableRandomSampler

    table = dataset.select_columns(list(columns)).with_format("arrow")[:]
    lengths = sum(pc.list_value_length(table[name]).to_numpy() for name in columns)
    sampler = SeedableRandomSampler(dataset, data_seed=seed)
    fullest = 0
    for _ in range(_PASSES):
        if micro_batches <= 0:
            break
        order = np.fromiter(sampler, dtype=np.int64, count=len(lengths))[: micro_batches * size]
        fullest = max(fullest, int(np.add.reduceat(lengths[order], np.arange(0, len(order), size)).max()))
        micro_batches -= -(-len(order) // size)
    return fullest
