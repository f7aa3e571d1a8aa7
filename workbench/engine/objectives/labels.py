"""Batches of texts with labels, and how well predicted labels match."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.engine.objectives.texts import Collate, Row, collated

if TYPE_CHECKING:
    from workbench.engine.batches.parts import Batch


class LabelCollator:
    """Collates texts for classification with a collator of single texts; the labels travel with the records."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Row]) -> "Batch":
        texts = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
        return collated(self.collate, texts, rows)
