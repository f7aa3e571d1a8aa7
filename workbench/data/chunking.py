"""Long documents in chunks of ``max_length`` tokens, cut at paragraph ends where there is one to cut at."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# So much of a chunk is repeated from the one before: read for context, not trained a second time.
OVERLAP = 1 / 8
# A chunk is not ended at a paragraph that would leave more than this share of it empty.
_LEAST_FILL = 0.5


@dataclass(frozen=True)
class Chunk:
    """Tokens ``start`` to ``end`` of a document; the first ``overlap`` of them were in the chunk before."""

    start: int
    end: int
    overlap: int


def chunks(input_ids: Sequence[int], paragraph_ends: Sequence[int], max_length: int) -> Iterator[Chunk]:
    """Chunks that together hold every token, each as new exactly once.

    Args:
        paragraph_ends: places in ``input_ids`` after a paragraph's last token, ascending.
    """
    total, start, new = len(input_ids), 0, 0
    while new < total:
        end = min(start + max_length, total)
        if end < total:
            least = max(start + int(max_length * _LEAST_FILL), new + 1)
            at = bisect_right(paragraph_ends, end) - 1
            if at >= 0 and paragraph_ends[at] >= least:
                end = paragraph_ends[at]
        yield Chunk(start, end, new - start)
        earliest = max(end - int(max_length * OVERLAP), start + 1)
        at = bisect_left(paragraph_ends, earliest)
        start = paragraph_ends[at] if at < len(paragraph_ends) and paragraph_ends[at] < end else earliest
        new = end
