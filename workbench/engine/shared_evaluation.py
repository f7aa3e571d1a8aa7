"""An evaluation whose records several processes share out among them."""

from collections.abc import Callable
from typing import Any

from workbench.engine.base import LoadedBase
from workbench.engine.control import Controls
from workbench.engine.evaluation import HeldOutLoss, held_out_loss
from workbench.engine.protocol import Progress
from workbench.engine.ranks import Ranks


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
    """As :func:`~workbench.engine.evaluation.held_out_loss`; every process returns the figures of all records."""
    # Shares differ by one record, so by one batch: about stopping all agree before those that all have.
    met = -(-(len(records) // ranks.count) // batch_size)

    def cancelled() -> bool:
        nonlocal met
        met -= 1
        return controls.agree() if met >= 0 else controls.is_stopped()

    share = records.select(range(ranks.index, len(records), ranks.count))
    mine = held_out_loss(base, share, batch_size, report, cancelled, padded=padded)
    if controls.is_stopped():
        return None
    total, tokens, correct = ranks.add((mine.loss * mine.tokens, mine.tokens, mine.correct) if mine else (0, 0, 0))
    return HeldOutLoss(total / tokens, int(tokens), int(correct)) if tokens else None
