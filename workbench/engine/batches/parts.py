"""Splits a micro-batch into smaller parts whose gradients add up to the same gradient."""

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    # A collated batch: tensors by name; ``max_length_q`` and ``max_length_k`` are numbers.
    Batch = dict[str, torch.Tensor]

# Tensors that are sliced by token; the others are computed again for each part.
_PER_TOKEN = {"input_ids", "labels", "attention_mask", "position_ids", "seq_idx"}


def split_batch(batch: "Batch", parts: int) -> "list[Batch]":
    """Split a batch into at most ``parts`` parts of whole records, about equal in size.

    Args:
        batch: made by TRL's collator: padded rows (records × tokens), or, padding-free, all records in one row, with
            ``position_ids`` that start at 0 for each.
    """
    if parts == 1:
        return [batch]
    if "attention_mask" in batch:
        return _split_rows(batch, parts)
    return _split_records(batch, parts)


def _split_rows(batch: "Batch", parts: int) -> "list[Batch]":
    rows = batch["input_ids"].shape[0]
    bounds = [rows * part // parts for part in range(parts + 1)]
    return [
        _trimmed({name: value[start:end] for name, value in batch.items() if name in _PER_TOKEN})
        for start, end in pairwise(bounds)
        if end > start
    ]


def _trimmed(rows: "Batch") -> "Batch":
    """Remove the columns on the right that are padding in every row."""
    longest = max(int(rows["attention_mask"].sum(dim=1).max()), 1)
    return {name: value[:, :longest] for name, value in rows.items()}


def _split_records(batch: "Batch", parts: int) -> "list[Batch]":
    import torch

    tokens = batch["input_ids"].shape[1]
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    even_cuts = [tokens * part // parts for part in range(1, parts)]
    # Each cut moves back to the start of a record.
    cuts = sorted({0, tokens, *(max((s for s in starts if s <= cut), default=0) for cut in even_cuts)})
    split = []
    for start, end in pairwise(cuts):
        part = {name: value[:, start:end] for name, value in batch.items() if name in _PER_TOKEN}
        if "cu_seq_lens_q" in batch:
            inside = [s - start for s in starts if start <= s < end]
            lengths = torch.tensor([*inside, end - start], dtype=torch.int32, device=batch["cu_seq_lens_q"].device)
            part["cu_seq_lens_q"] = part["cu_seq_lens_k"] = lengths
            part["max_length_q"] = part["max_length_k"] = int(lengths.diff().max())
        if "seq_idx" in part:
            part["seq_idx"] = part["seq_idx"] - part["seq_idx"][0, 0]
        split.append(part)
    return split
