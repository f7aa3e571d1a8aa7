"""Batches of pairs of responses: n pairs are 2n texts, the n chosen sides first, as TRL's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.engine.objectives.texts import Collate, Row, collated

if TYPE_CHECKING:
    from workbench.engine.batches.parts import Batch


class PairCollator:
    """Collates pairs with a collator of single texts.

    Args:
        whole: of the chosen sides, the prompt is predicted too.
    """

    def __init__(self, collate: Collate, *, whole: bool = False) -> None:
        self.collate = collate
        self._whole = whole

    def __call__(self, rows: Sequence[Row]) -> "Batch":
        texts = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
        texts += [{"input_ids": row["rejected_ids"], "labels": row["rejected_labels"]} for row in rows]
        return collated(self.collate, texts, rows, len(rows) if self._whole else 0)
