"""Puts the texts of several records into one batch, and reads each text's log-probability from the model's output.

The texts are collated like any other batch, padded or padding-free, so that kernels, clocks and counts need not know
what is compared in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from workbench.engine.batches.parts import Batch

ROWS = "rows"
"""The key of a batch under which its :class:`BatchRows` travel. The model does not take it."""
MASK = "response_mask"
"""The key of a mask of the predicted tokens that belong to responses; (1, predicted). Without it all of them do."""

Row = Mapping[str, Any]
"""A record: token ids and labels by column."""
Text = dict[str, list[int]]
"""``input_ids`` and ``labels`` of one text."""
Collate = Callable[[list[Text]], "Batch"]


@dataclass(frozen=True)
class BatchRows:
    """The records of a batch, to split it by; and by text its tokens.

    Attributes:
        predicted: of each text, the tokens whose log-probability is computed.
        trained: of each text, those of them that belong to the response.
        ids: the token ids of each text, to be read without waiting for the device that the batch is on.
    """

    rows: tuple[Row, ...]
    lengths: tuple[int, ...]
    predicted: tuple[int, ...]
    trained: tuple[int, ...]
    ids: tuple[Sequence[int], ...]


class RowCollator(Protocol):
    """Makes a batch of whole records."""

    def __call__(self, rows: Sequence[Row]) -> "Batch": ...


def collated(collate: Collate, texts: Sequence[Text], rows: Sequence[Row], whole: int = 0) -> "Batch":
    """The batch of some texts.

    Args:
        rows: the records that the texts belong to.
        whole: of so many texts, the first ones, the prompt is predicted too.
    """
    labeled = [{**text, "labels": text["input_ids"]} if place < whole else text for place, text in enumerate(texts)]
    lengths = tuple(len(text["input_ids"]) for text in texts)
    # The first token of a text is not predicted.
    predicted, trained = (tuple(map(_predicted, part)) for part in (labeled, texts))
    batch = collate([{"input_ids": text["input_ids"], "labels": text["labels"]} for text in labeled])
    if whole:
        import torch

        mask = [
            label != -100
            for text, asked in zip(texts, labeled, strict=True)
            for label, used in zip(text["labels"][1:], asked["labels"][1:], strict=True)
            if used != -100
        ]
        batch[MASK] = torch.tensor([mask], dtype=torch.float32)
    batch[ROWS] = BatchRows(tuple(rows), lengths, predicted, trained, tuple(text["input_ids"] for text in texts))
    return batch


def _predicted(text: Text) -> int:
    return sum(label != -100 for label in text["labels"][1:])


def rows_of(batch: "Batch") -> BatchRows:
    """The records of a batch that :func:`collated` made."""
    rows: object = batch[ROWS]
    assert isinstance(rows, BatchRows)
    return rows


def model_inputs(batch: "Batch") -> "Batch":
    """What of a batch the model takes."""
    return {name: value for name, value in batch.items() if name not in (ROWS, MASK) and not isinstance(value, dict)}


def split_rows(collate: RowCollator, batch: "Batch", parts: int) -> "list[Batch]":
    """Split a batch into at most ``parts`` batches of whole records, about equal in size."""
    rows = rows_of(batch).rows
    count = min(parts, len(rows))
    if count == 1:
        return [batch]
    bounds = [len(rows) * part // count for part in range(count + 1)]
    return [collate(rows[start:end]) for start, end in pairwise(bounds)]


def sums_by_text(values: "torch.Tensor", batch: "Batch", *, responses: bool = True) -> "torch.Tensor":
    """The sum over each text of a value per predicted token, such as a model output's ``log_probs``; (texts,).

    Args:
        responses: leave out predicted tokens of prompts.
    """
    import torch

    if "trained_positions" not in batch:
        return values.sum(1)  # TRL's head, which returns zeros for tokens that are not labeled
    if responses and MASK in batch:
        values = values * batch[MASK].to(values.device)
    # Only predicted tokens reach the head, in the order of the texts.
    return torch.stack([part.sum() for part in values[0].split(list(rows_of(batch).predicted))])


def sequence_ends(batch: "Batch", padding: int) -> "torch.Tensor":
    """The place of each text's last token in the batch's states with its rows concatenated; (texts,).

    As in transformers' models for sequence classification, it is the last one that is not the padding token.
    """
    import torch

    texts, (count, width) = rows_of(batch), batch["input_ids"].shape
    # Texts lie end to end in one row, or each in a row that is padded on the right.
    starts = [0, *accumulate(texts.lengths)] if count == 1 else [row * width for row in range(count)]
    return torch.tensor([start + _last(ids, padding) for start, ids in zip(starts, texts.ids, strict=False)])


def _last(ids: Sequence[int], padding: int) -> int:
    """The place of the last token that is not padding; of the last one if all are."""
    return next((place for place in reversed(range(len(ids))) if ids[place] != padding), len(ids) - 1)


def token_counts(counts: tuple[int, ...], like: "torch.Tensor") -> "torch.Tensor":
    """Numbers of tokens as a tensor of the dtype and device of another one."""
    import torch

    return torch.tensor(counts, dtype=like.dtype).to(like.device, non_blocking=True)
