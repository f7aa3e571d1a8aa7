"""Interleaves the records of several sources by weight, as ``datasets.interleave_datasets`` does.

With the same lengths, probabilities and seed the order is that of ``datasets``, but the records are streamed: no length
has to be known, and nothing is kept in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
SEED = 42
# As many as datasets draws at a time: the order depends on it.
_DRAWN_AT_ONCE = 1000


def interleave(
    sources: Sequence[Callable[[], Iterator[T]]],
    weights: Sequence[float],
    stopping: str,
    is_drawn: Callable[[T], bool],
) -> Iterator[T]:
    """Yield records of the sources in turn: at random by weight, or one of each in a row if all weights are equal.

    Args:
        sources: each returns the records of one source, from the first one on.
        weights: relative probabilities of the sources.
        stopping: ``first_exhausted``: end when one source is read to its end. ``all_exhausted``: when all are; a source
            that ends earlier starts again. ``all_exhausted_without_replacement``: the same, each record once.
        is_drawn: whether a record counts. One that does not, such as a held-out one, is yielded where it is met, once.
    """
    streams = [_Stream(source, is_drawn) for source in sources]
    for stream in streams:
        yield from stream.advance()
    ends, repeats = (any, False) if stopping == "first_exhausted" else (all, stopping == "all_exhausted")
    for turn in _turns(weights):
        # A round of equal weights is finished even if one of its sources ends in it.
        if ends(stream.is_exhausted for stream in streams):
            return
        for index in turn:
            yield from streams[index].take(repeats)


def _turns(weights: Sequence[float]) -> Iterator[Sequence[int]]:
    """The indices of the sources to take from, endlessly; in one turn all of equal weight, else one."""
    if len(set(weights)) == 1:
        while True:
            yield range(len(weights))
    import numpy as np

    probabilities = np.asarray(weights) / np.sum(weights)
    random = np.random.default_rng(SEED)
    while True:
        for index in random.choice(len(weights), size=_DRAWN_AT_ONCE, p=probabilities):
            yield (int(index),)


class _Stream(Generic[T]):
    """The records of one source, read one ahead so that its end is known with its last record."""

    def __init__(self, source: Callable[[], Iterator[T]], is_drawn: Callable[[T], bool]) -> None:
        self._source = source
        self._is_drawn = is_drawn
        self._records = source()
        self._next: list[T] = []
        self._is_repeated = False
        self.is_exhausted = False

    def take(self, repeats: bool) -> Iterator[T]:
        """Yield the next record and those that do not count after it; nothing at the end, unless it ``repeats``."""
        if not self._next and repeats:
            self._records, self._is_repeated = self._source(), True
            yield from self.advance()
        if self._next:
            yield self._next.pop()
            yield from self.advance()

    def advance(self) -> Iterator[T]:
        """Read up to the next record that counts; yields those before it, the first time that they are met."""
        for record in self._records:
            if self._is_drawn(record):
                self._next.append(record)
                return
            if not self._is_repeated:
                yield record
        self.is_exhausted = True
