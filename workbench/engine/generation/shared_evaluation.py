"""An evaluation whose records several processes share out among them."""

from collections.abc import Callable
from typing import Any

from workbench.engine.generation.evaluation import HeldOutLoss, held_out_loss
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.progress import Progress


def shared_held_out_loss(
    base: LoadedBase,
    records: Any,
    batch_size: int,
    report: Callable[[Progress], None],
    controls: Controls,
    ranks: Ranks,
    *,
    padded: bool,
) -> HeldOutLoss | None:
    """The held-out loss over all records, in every process; each computes a share of them."""
    # Shares differ by one record, so by one batch: about stopping all agree before those that all have.
    met = -(-(len(records) // ranks.count) // batch_size)

    def cancelled() -> bool:
        nonlocal met
        met -= 1
        return controls.sync() if met >= 0 else controls.is_stopped()

    share = records.select(range(ranks.index, len(records), ranks.count))
    mine = held_out_loss(base, share, batch_size, report, cancelled, padded=padded)
    if controls.is_stopped():
        return None
    total, tokens, correct = ranks.sum((mine.loss * mine.tokens, mine.tokens, mine.correct) if mine else (0, 0, 0))
    return HeldOutLoss(total / tokens, int(tokens), int(correct)) if tokens else None
