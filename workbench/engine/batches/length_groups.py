"""Orders training records so that those of a step have similar lengths.

transformers' sampler of this kind takes its order from the global random state, which a resumed run cannot repeat. This
one depends on a seed and the epoch alone. An exported script contains this text: nothing of the project is imported.
"""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroups(torch.utils.data.Sampler[int]):
    """Samples records in groups of similar length, in another order in each epoch.

    Args:
        lengths: tokens of each record.
        step: records of an optimizer step.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._step = step
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from get_length_grouped_indices(self._lengths, self._step, generator=generator)
