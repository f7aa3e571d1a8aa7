"""Batches of unpaired responses, and the exchanged responses that estimate the divergence from the reference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.engine.objectives.texts import Collate, Row, Text, collated

if TYPE_CHECKING:
    from workbench.engine.batches.parts import Batch

EXCHANGED = "exchanged"
"""The key of a batch under which the batch of its exchanged responses travels."""


class UnpairedCollator:
    """Collates unpaired responses with a collator of single texts.

    Args:
        max_length: exchanged responses are truncated at so many tokens; None to make none of them.
    """

    def __init__(self, collate: Collate, max_length: int | None) -> None:
        self.collate = collate
        self._max_length = max_length

    def __call__(self, rows: Sequence[Row]) -> "Batch":
        batch = collated(self.collate, [_text(row) for row in rows], rows)
        if self._max_length is not None:
            batch[EXCHANGED] = self.collate_texts(exchanged(rows, self._max_length))
        return batch

    def collate_texts(self, rows: Sequence[Row]) -> "Batch":
        """The batch of some texts, without exchanging their responses."""
        return collated(self.collate, [_text(row) for row in rows], rows)


def exchanged(rows: Sequence[Row], max_length: int) -> list[Text]:
    """Each prompt with the response of the record before it, the first with the last one's, as TRL's KTOTrainer."""
    return [_joined(row, rows[place - 1], max_length) for place, row in enumerate(rows)]


def _text(row: Row) -> Text:
    return {"input_ids": row["input_ids"], "labels": row["labels"]}


def _joined(prompt: Row, response: Row, max_length: int) -> Text:
    end, start = _response_start(prompt), _response_start(response)
    ids = [*prompt["input_ids"][:end], *response["input_ids"][start:]]
    labels = [*prompt["labels"][:end], *response["labels"][start:]]
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def _response_start(row: Row) -> int:
    """The place of the first trained token."""
    return next(place for place, label in enumerate(row["labels"]) if label != -100)
