"""The outputs about data.

A key is never renamed or removed: programs read them. A new one may be added.
"""

from typing import Any, NotRequired

from typing_extensions import TypedDict


class TokenCounts(TypedDict):
    """Token counts. ``total`` is ``trained`` and ``masked``; ``cut`` were lost to truncation."""

    total: int
    trained: int
    masked: int
    cut: int


class LengthData(TypedDict):
    """Tokens per record, before truncation."""

    p50: int
    p90: int
    p99: int
    max: int


class LongRecord(TypedDict):
    """One of the longest records. ``where``: its file and line."""

    index: int
    where: str
    tokens: int


class UnusedData(TypedDict):
    """A field of the records that is not used.

    Attributes:
        records: how many fill it. asks: whether a run asks about it first.
    """

    path: str
    records: int
    asks: bool


class ExampleData(TypedDict):
    """A record as formatted training text.

    Attributes:
        spans: ``[start, end, trained]`` in characters of ``text``.
        tokens, cut: number of tokens, and of those lost to truncation.
        unused: its fields that are not used.
        problem: why it is not trained on; empty if it is.
        rejected: the rejected side of a pair, in the same form. good: whether an unpaired response is good.
    """

    index: int
    where: str
    text: str
    spans: list[list[Any]]
    tokens: int
    cut: int
    held_out: bool
    unused: list[str]
    problem: str
    rejected: NotRequired[dict[str, Any]]
    good: NotRequired[bool]


class DatasetStats(TypedDict):
    """Statistics of a dataset.

    Attributes:
        records: usable ones; train_records, eval_records: of these, trained on and held out.
        skipped: invalid records, by reason in ``skipped_reasons``.
        lost_reply_records: skipped because truncation left no token to train on.
        loses_many_replies: whether a run asks about that first.
        format, reason: the record format, and why it was detected.
        histogram: bins ``[from, to, records]`` of lengths, ``to`` not included.
        truncated_records: records that lost tokens to truncation.
        packed_sequences: sequences per epoch with packing.
        padding_waste, packed_waste: share of padding without and with packing, 0 to 1.
        duplicates: training records equal to an earlier one. overlap: held-out records that are also trained on.
        near_empty: records with at most one trained token besides the end.
        padding: how batches are padded.
        largest_id: the largest token id.
        exact: false for the statistics of a sample.
    """

    records: int
    train_records: int
    eval_records: int
    skipped: int
    skipped_reasons: dict[str, int]
    lost_reply_records: int
    loses_many_replies: bool
    format: str
    reason: str
    template: str
    max_length: int
    tokens: TokenCounts
    length: LengthData
    histogram: list[list[int]]
    truncated_records: int
    packed_sequences: int
    padding_waste: float
    packed_waste: float
    duplicates: int
    overlap: int
    near_empty: int
    longest: list[LongRecord]
    notices: list[str]
    unused: list[UnusedData]
    padding: str
    largest_id: int
    exact: bool
    examples: list[ExampleData]


class CleanedData(TypedDict):
    """What ``data --write`` did.

    Attributes:
        read: records. invalid: by reason in ``invalid_reasons``.
        near_duplicates_from: the similarity from which on records were left out; null if it was off.
        over_length: records left out as too long. split: records that were split, into ``split_into``.
        questions_left_out: of split conversations, whose response is too long even alone.
        not_written: fields that the file cannot hold, with the number of records. changes: of the text, by kind.
        files: the written files. not_read: documents that could not be read, by suffix.
    """

    read: int
    invalid: int
    invalid_reasons: dict[str, int]
    duplicates: int
    near_duplicates: int
    overlap: int
    over_length: int
    split: int
    split_into: int
    questions_left_out: int
    train_records: int
    eval_records: int
    not_written: dict[str, int]
    changes: dict[str, int]
    files: list[str]
    near_duplicates_from: float | None
    not_read: dict[str, int]
