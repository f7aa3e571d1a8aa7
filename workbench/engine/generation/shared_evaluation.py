"""Computes the held-out loss with several processes, each on a share of the records."""

from typing import TYPE_CHECKING

from workbench.engine.generation.evaluation import HeldOutLoss, held_out_loss
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.progress import Report

if TYPE_CHECKING:
    from datasets import Dataset


class SyncedCancel:
    """Says before each batch of an evaluation whether to stop; the same in all processes.

    Args:
        records: number of records, of which each process evaluates a share.
    """

    def __init__(self, controls: Controls, ranks: Ranks, records: int, batch_size: int) -> None:
        self._controls = controls
        # Shares differ by at most one record, hence one batch: the processes sync before each batch that all have.
        self._syncs_left = -(-(records // ranks.count) // batch_size)

    def __call__(self) -> bool:
        self._syncs_left -= 1
        return self._controls.sync() if self._syncs_left >= 0 else self._controls.is_stopped()


def shared_held_out_loss(
    base: LoadedBase,
    records: "Dataset",
    batch_size: int,
    report: Report,
    controls: Controls,
    ranks: Ranks,
    *,
    path: LossPath,
) -> HeldOutLoss | None:
    """The held-out loss over all records, returned in every process; None if the run should stop."""
    cancelled = SyncedCancel(controls, ranks, len(records), batch_size)
    share = records.select(range(ranks.index, len(records), ranks.count))
    part = held_out_loss(base, share, batch_size, report, cancelled, path=path)
    if controls.is_stopped():
        return None
    total, tokens, correct = ranks.sum((part.loss * part.tokens, part.tokens, part.correct) if part else (0, 0, 0))
    return HeldOutLoss(total / tokens, int(tokens), int(correct)) if tokens else None
