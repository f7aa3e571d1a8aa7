"""Chooses a few real records, cut short, on which :mod:`workbench.engine.model.loss_check.check` compares losses."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

Record = dict[str, list[int]]

# Tokens of the first record, if no window asks for more, and of its neighbors.
_LONG, _SHORT = 64, (24, 9, 33)
# Windows up to this many tokens are exceeded. Most records are shorter than wider ones.
_WIDEST_WINDOW = 512
_WINDOWS = (
    "sliding_window", "attention_chunk_size", "attention_window_size", "window_size", "chunk_size", "mamba_chunk_size",
    "index_topk", "indexer_budget",
)  # fmt: skip
# Tokens at each end of a record that are trained, whatever its labels say.
_AT_ENDS = 3
# Records that are looked at.
_CANDIDATES = 64


def check_records(model: "PreTrainedModel", records: "Dataset | Sequence[Record]") -> list[Record]:
    """Up to four records: one longer than the model's windows where there is one, between shorter neighbors.

    Their trained tokens are those of the labels, and some at both ends. Cut off are ends of records, never starts.
    """
    rows = [_row(records[index]) for index in range(min(len(records), _CANDIDATES))]
    rows = [row for row in rows if len(row["input_ids"]) > 1]
    if not rows:
        return []
    longest = max(rows, key=lambda row: len(row["input_ids"]))
    others = [row for row in rows if row is not longest] or [longest]
    long_size = max([_LONG, *(window + 32 for window in windows_of(model) if window <= _WIDEST_WINDOW)])
    first, second, third = (_cut(others[index % len(others)], size) for index, size in enumerate(_SHORT))
    return [first, _cut(longest, long_size), second, third]


def halved(records: Sequence[Record]) -> list[Record]:
    """The same records, each with half of its tokens, and at least two."""
    return [_cut(record, max(len(record["input_ids"]) // 2, 2)) for record in records]


def windows_of(model: "PreTrainedModel") -> list[int]:
    """The widths, in tokens, of everything in a model that sees less than a whole record."""
    config = model.config.get_text_config()
    values: Iterable[object] = (getattr(config, name, None) for name in _WINDOWS)
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0]


def _row(record: Record) -> Record:
    return {name: list(record[name]) for name in ("input_ids", "labels")}


def _cut(record: Record, tokens: int) -> Record:
    ids, labels = record["input_ids"][:tokens], record["labels"][:tokens]
    ends = {*range(1, 1 + _AT_ENDS), *range(len(ids) - _AT_ENDS, len(ids))}
    return {
        "input_ids": ids,
        "labels": [
            token if place in ends else label for place, (token, label) in enumerate(zip(ids, labels, strict=True))
        ],
    }
