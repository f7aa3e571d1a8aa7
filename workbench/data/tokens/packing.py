"""Computes from record lengths how many sequences packing makes, and how much of a batch is padding without it."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence

import numpy as np


def packed_sequences(lengths: Sequence[int], max_length: int) -> int:
    """The number of sequences that TRL's default packing makes of records with these lengths.

    It is best-fit decreasing (Ding et al. 2024, https://arxiv.org/abs/2404.10830), as in ``trl.data_utils``: starting
    with the longest, each record goes into the fullest sequence that still has room for it.
    """
    rooms: Counter[int] = Counter()
    sizes: list[int] = []  # the distinct keys of ``rooms``, in order
    sequences = 0
    for length, count in sorted(Counter(min(length, max_length) for length in lengths).items(), reverse=True):
        for _ in range(count if length else 0):
            at = bisect_left(sizes, length)
            if at == len(sizes):
                room, sequences = max_length, sequences + 1
            else:
                room = sizes[at]
                rooms[room] -= 1
                if not rooms[room]:
                    del rooms[room], sizes[at]
            left = room - length
            if left:
                if left not in rooms:
                    insort(sizes, left)
                rooms[left] += 1
    return sequences


def padding_waste(lengths: Sequence[int], batch_size: int, seed: int = 0) -> float:
    """The share of padding, 0 to 1, when batches are filled in random order; computed for one seeded shuffle."""

    if not len(lengths):
        return 0.0
    shuffled = np.random.default_rng(seed).permutation(np.asarray(lengths, dtype=np.int64))
    starts = np.arange(0, len(shuffled), batch_size)
    longest = np.maximum.reduceat(shuffled, starts)
    rows = np.minimum(batch_size, len(shuffled) - starts)
    room = int((longest * rows).sum())
    return 1 - int(shuffled.sum()) / room if room else 0.0
