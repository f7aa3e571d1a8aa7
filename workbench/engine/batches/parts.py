"""A micro-batch in smaller parts that together give the same gradient."""

from itertools import pairwise
from typing import Any

# Fields that describe a flattened batch as a whole; they are made anew for a part of it.
_OF_FLAT = {"input_ids", "labels", "position_ids", "seq_idx"}


def parts_of(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Cut a batch into at most ``parts`` parts of whole records, of about equal size.

    Args:
        batch: what TRL's collator makes: padded rows (records × tokens), or with padding-free batches all records in
            one row, with ``position_ids`` that begin at 0 for each.
    """
    if parts == 1:
        return [batch]
    if "attention_mask" in batch:
        return _rows(batch, parts)
    return _records_of_row(batch, parts)


def _rows(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    rows = batch["input_ids"].shape[0]
    bounds = [rows * part // parts for part in range(parts + 1)]
    return [
        _trimmed({name: value[start:end] for name, value in batch.items()})
        for start, end in pairwise(bounds)
        if end > start
    ]


def _trimmed(rows: dict[str, Any]) -> dict[str, Any]:
    """Without the columns on the right that are padding in every row."""
    longest = max(int(rows["attention_mask"].sum(dim=1).max()), 1)
    return {name: value[:, :longest] for name, value in rows.items()}


def _records_of_row(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    import torch

    tokens = batch["input_ids"].shape[1]
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    wanted = [tokens * part // parts for part in range(1, parts)]
    cuts = sorted({0, tokens, *(max((s for s in starts if s <= at), default=0) for at in wanted)})
    made = []
    for start, end in pairwise(cuts):
        part = {name: value[:, start:end] for name, value in batch.items() if name in _OF_FLAT}
        if "cu_seq_lens_q" in batch:
            inside = [s - start for s in starts if start <= s < end]
            lengths = torch.tensor([*inside, end - start], dtype=torch.int32, device=batch["cu_seq_lens_q"].device)
            part["cu_seq_lens_q"] = part["cu_seq_lens_k"] = lengths
            part["max_length_q"] = part["max_length_k"] = int(lengths.diff().max())
        if "seq_idx" in part:
            part["seq_idx"] = part["seq_idx"] - part["seq_idx"][0, 0]
        made.append(part)
    return made
