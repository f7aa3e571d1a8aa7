"""The order in which records come, known before they do. Imports accelerate: only for the process that trains."""

from typing import Any

# Passes looked at; a fuller micro-batch in a later one is fuller by little.
_PASSES = 3


def fullest_micro_batch(dataset: Any, size: int, seed: int, micro_batches: int) -> int:
    """Tokens of the fullest micro-batch of those that training begins with, its records end to end.

    Args:
        dataset: of ``datasets``, with ``input_ids``.
        size: records a micro-batch.
        seed: of the order, ``data_seed`` in the trainer's arguments.
        micro_batches: how many are looked at, at most three passes.
    """
    import numpy as np
    import pyarrow.compute as pc
    from accelerate.data_loader import SeedableRandomSampler

    column = dataset.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    lengths = pc.list_value_length(column).to_numpy()
    sampler = SeedableRandomSampler(dataset, data_seed=seed)
    fullest = 0
    for _ in range(_PASSES):
        if micro_batches <= 0:
            break
        order = np.fromiter(sampler, dtype=np.int64, count=len(lengths))[: micro_batches * size]
        fullest = max(fullest, int(np.add.reduceat(lengths[order], np.arange(0, len(order), size)).max()))
        micro_batches -= -(-len(order) // size)
    return fullest
