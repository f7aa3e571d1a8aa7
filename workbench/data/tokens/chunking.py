"""Splits long documents into overlapping chunks of at most ``max_length`` tokens, preferably at paragraph ends."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Share of a chunk that repeats the end of the previous one, as context that is not trained on again.
OVERLAP = 1 / 8
# A chunk ends at a paragraph end only if it is at least this full.
_MIN_FILL = 0.5


@dataclass(frozen=True)
class Chunk:
    """Tokens ``start`` to ``end`` of a document; the first ``overlap`` of them are also in the previous chunk."""

    start: int
    end: int
    overlap: int


def chunks(input_ids: Sequence[int], paragraph_ends: Sequence[int], max_length: int) -> Iterator[Chunk]:
    """Yield chunks such that every token is in exactly one chunk outside of the overlap.

    Args:
        paragraph_ends: indices after the last token of each paragraph, ascending.
    """
    total, start, new = len(input_ids), 0, 0
    while new < total:
        end = min(start + max_length, total)
        if end < total:
            earliest_end = max(start + int(max_length * _MIN_FILL), new + 1)
            at = bisect_right(paragraph_ends, end) - 1
            if at >= 0 and paragraph_ends[at] >= earliest_end:
                end = paragraph_ends[at]
        yield Chunk(start, end, new - start)
        earliest = max(end - int(max_length * OVERLAP), start + 1)
        at = bisect_left(paragraph_ends, earliest)
        start = paragraph_ends[at] if at < len(paragraph_ends) and paragraph_ends[at] < end else earliest
        new = end
