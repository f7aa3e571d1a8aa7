"""Computes the held-out loss with several processes, each on a share of the records."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.engine.generation.evaluation import HeldOutLoss, held_out_loss
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset


def shared_held_out_loss(
    base: LoadedBase,
    records: "Dataset",
    batch_size: int,
    report: Callable[[Progress], None],
    controls: Controls,
    ranks: Ranks,
    *,
    padded: bool,
) -> HeldOutLoss | None:
    """The held-out loss over all records, returned in every process; None if the run should stop."""
    # Shares differ by at most one record, hence one batch: the processes sync before each batch that all of them have.
    syncs_left = -(-(len(records) // ranks.count) // batch_size)

    def cancelled() -> bool:
        nonlocal syncs_left
        syncs_left -= 1
        return controls.sync() if syncs_left >= 0 else controls.is_stopped()

    share = records.select(range(ranks.index, len(records), ranks.count))
    part = held_out_loss(base, share, batch_size, report, cancelled, padded=padded)
    if controls.is_stopped():
        return None
    total, tokens, correct = ranks.sum((part.loss * part.tokens, part.tokens, part.correct) if part else (0, 0, 0))
    return HeldOutLoss(total / tokens, int(tokens), int(correct)) if tokens else None
